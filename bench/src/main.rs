//! `annals-bench`: what annals costs beside the bare database, measured in slices that take turns.

mod append;
mod baseline;
mod project;
mod read;
mod report;
mod sample;
mod slices;

use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::report::Report;

/// Measures one case against its baseline; both run in this process and take turns in slices of time.
#[derive(Parser)]
struct Options {
    /// What to measure.
    #[arg(value_enum)]
    case: Case,
    /// Which store.
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    store: Store,
    /// How many clients work at once.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// How long each side runs in all.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How many events the log holds for reading cases.
    #[arg(long, default_value_t = 200_000)]
    events: usize,
    /// Leave the baseline out: for measuring memory.
    #[arg(long)]
    alone: bool,
    /// Print a JSON line instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Appends of one event.
    Append,
    /// Appends of 100 events.
    AppendBatch,
    /// Loads of a stream of 100 events.
    Load,
    /// The whole log, payload decoded.
    Read,
    /// The order list, built from the whole log.
    Project,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Store {
    /// The memory store; it has no baseline.
    Memory,
    /// SQLite with synchronous = FULL on both sides.
    Sqlite,
}

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report: Report = runtime.block_on(async {
        let seconds = Duration::from_secs_f64(options.seconds);
        match options.case {
            Case::Append => append::measure(options.store, options.clients, 1, seconds).await,
            Case::AppendBatch => append::measure(options.store, options.clients, 100, seconds).await,
            Case::Load => read::load(options.store, options.clients, seconds).await,
            Case::Read => read::whole_log(options.store, options.events, seconds, options.alone).await,
            Case::Project if options.store == Store::Memory => {
                Err("projections need a database: use `--store sqlite`".into())
            }
            Case::Project => project::measure(options.events, seconds, options.alone).await,
        }
    })?;
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}
