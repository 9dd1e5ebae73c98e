//! `annals-drive`: drives a store, so that outside tools can check its history.
//!
//! Every line on standard output is one finished operation. See `bench/README.md` for the format.

mod ack;
mod dump;
mod line;
mod load;
mod pay;
mod run;
mod saga;
mod sum;
mod target;

use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Drives a store for outside checkers.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Random appends, loads and full subscriptions from several processes; one JSON line per finished operation.
    Load {
        /// The store: `sqlite:FILE` or `postgres://..`.
        #[arg(long)]
        db: String,
        /// How many processes work at once.
        #[arg(long, default_value_t = 2)]
        procs: u32,
        /// For how long.
        #[arg(long, default_value_t = 10.0)]
        secs: f64,
        /// What the operations follow from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// One of the processes of `load`.
    #[command(hide = true)]
    Client {
        #[arg(long)]
        db: String,
        #[arg(long)]
        client: u32,
        #[arg(long)]
        secs: f64,
        #[arg(long)]
        seed: u64,
    },
    /// The whole log as one JSON object.
    Dump {
        /// The store: `sqlite:FILE` or `postgres://..`.
        #[arg(long)]
        db: String,
    },
    /// Appends one event at a time and prints `ACK n` after each answer, until it is ended.
    Ack {
        /// The store: `sqlite:FILE` or `postgres://..`.
        #[arg(long)]
        db: String,
    },
    /// Runs a projection, beside other processes that run it too, until SIGTERM.
    Run {
        /// The store and its read models: `sqlite:FILE` or `postgres://..`.
        #[arg(long)]
        db: String,
        /// Which projection.
        #[arg(long)]
        projection: Projected,
        /// Into how many slots its streams are divided; the same in all processes.
        #[arg(long, default_value_t = 4)]
        slots: u32,
        /// How long this process may be silent before others take over, in milliseconds.
        #[arg(long, default_value_t = 5_000)]
        lease_ms: u64,
        /// What other processes call this one; by default its process id.
        #[arg(long)]
        name: Option<String>,
    },
    Saga(saga::Options),
}

/// The projections of the driver.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Projected {
    /// The count and the sum of the events of each stream, in the table `drive_sum`.
    Sum,
}

fn main() -> Result<(), Fault> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match options.command {
            Command::Load { db, procs, secs, seed } => load::processes(&db, procs, secs, seed).await,
            Command::Client { db, client, secs, seed } => {
                load::client(&db, client, Duration::from_secs_f64(secs), seed).await
            }
            Command::Dump { db } => dump::run(&db).await,
            Command::Ack { db } => ack::run(&db).await,
            Command::Run { db, projection: Projected::Sum, slots, lease_ms, name } => {
                let name = name.unwrap_or_else(|| std::process::id().to_string());
                run::run(&db, slots, Duration::from_millis(lease_ms), &name).await
            }
            Command::Saga(options) => saga::run(&options).await,
        }
    })
}
