//! Lets all event stores do the same work, in turn, and prints one table for each engine.

mod cases;
mod holds;
mod peers;
mod place;
mod run;
mod table;
mod worker;

use annals_peers::Fault;
use clap::Parser;

use crate::cases::Case;
use crate::place::Engine;

/// Compares annals with other event stores: every store does the same work, in turn, round by round.
#[derive(Parser)]
struct Options {
    /// A look in a few minutes: short turns, one of each, small logs. The figures mean little.
    #[arg(long)]
    quick: bool,
    /// On which engines.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Engine::Postgres, Engine::Sqlite])]
    engines: Vec<Engine>,
    /// Only these stores, beside annals.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these cases.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Case::ALL)]
    cases: Vec<Case>,
    /// How long a store works at a time.
    #[arg(long, default_value_t = 1.0, default_value_if("quick", "true", "0.3"))]
    seconds: f64,
    /// How many turns each store has.
    #[arg(long, default_value_t = 5, default_value_if("quick", "true", "1"))]
    rounds: usize,
    /// Events of the log that is loaded and read.
    #[arg(long, default_value_t = 100_000, default_value_if("quick", "true", "10000"))]
    events: u64,
    /// Events of the log that a read model is built of.
    #[arg(long, default_value_t = 20_000, default_value_if("quick", "true", "2000"))]
    projected: u64,
    /// How long the writers of the race write.
    #[arg(long, default_value_t = 10.0, default_value_if("quick", "true", "3"))]
    race: f64,
    /// Print a JSON line for each figure instead of tables.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let options = Options::parse();
    for engine in &options.engines {
        let figures = run::all(*engine, &options).await?;
        if options.json {
            table::print_lines(*engine, &figures)?;
        } else {
            table::print(*engine, &options, &figures);
        }
    }
    Ok(())
}
