//! `annals-bench`: what annals costs beside the bare database, measured in alternating slices; and `policy`, which
//! simulates calls to a dependency with faults.

mod append;
mod baseline;
mod fill;
mod idle;
mod lag;
mod load;
mod many_rows;
mod memory;
mod part;
mod plain;
mod policy;
mod project;
mod read;
mod report;
mod saga;
mod sample;
mod server;
mod slices;
mod snapshots;
mod tenants;
mod visible;
mod waiting;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::report::Report;

/// Measures one case against its baseline; both run in this process and alternate in slices of time.
#[derive(Clone, Parser)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Options {
    #[command(subcommand)]
    other: Option<Other>,
    /// What to measure.
    #[arg(value_enum, required = true)]
    case: Option<Case>,
    /// Which store.
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    store: Store,
    /// How many clients work at once.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// How long each side runs in all.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How many events the log holds: 200,000 for reading cases, 10,000,000 for growth.
    #[arg(long)]
    events: Option<usize>,
    /// How many writers each of our handles has on PostgreSQL; without it, the default of the library.
    #[arg(long)]
    writers: Option<usize>,
    /// `append` on PostgreSQL: this number of processes with `--clients` each, beside one process with all clients. `project`
    /// on PostgreSQL: this number of processes that share the slots of a stream projection, beside one.
    #[arg(long, default_value_t = 1)]
    processes: usize,
    /// The task of one of those processes, in JSON.
    #[arg(long, hide = true)]
    part: Option<String>,
    /// `project`: so many projections on one pass, up to 3, beside one.
    #[arg(long, default_value_t = 1)]
    projections: usize,
    /// `project`: a stream projection with so many slots in one process, beside one that is not divided.
    #[arg(long)]
    slots: Option<u32>,
    /// `project`: leases of so many milliseconds, beside leases of an hour.
    #[arg(long)]
    lease_ms: Option<u64>,
    /// `project` with several processes: one of them is killed in the middle.
    #[arg(long)]
    kill: bool,
    /// Leave the baseline out: for measuring memory.
    #[arg(long)]
    alone: bool,
    /// Print a JSON line instead of a table.
    #[arg(long)]
    json: bool,
}

/// Measurements without a baseline.
#[derive(Clone, Subcommand)]
enum Other {
    Lag(lag::Options),
    Visible(visible::Options),
    Policy(policy::Options),
    Saga(saga::Options),
    SagaWaiting(waiting::Options),
    Tenants(tenants::Options),
    Memory(memory::Options),
    ManyRows(many_rows::Options),
    Idle(idle::Options),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Appends of one event.
    Append,
    /// Appends of 100 events.
    AppendBatch,
    /// Appends of one event to a log of many events, beside one of 100,000.
    Growth,
    /// Loads of a stream of 100 events.
    Load,
    /// Loads of an aggregate with 10,050 events and a snapshot at 10,000, beside one with 50 events.
    LoadLong,
    /// The same, beside loads without snapshots.
    LoadLongReplay,
    /// An aggregate with 10,000 events as of positions in their middle, beside the same without snapshots.
    AsOf,
    /// Commands on aggregates with a snapshot every 100 events, beside the same without.
    AppendSnapshots,
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
    /// PostgreSQL with fsync and synchronous_commit on; a new server, or the one that `DATABASE_URL` names.
    Postgres,
}

impl Options {
    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn events(&self) -> usize {
        self.events.unwrap_or(if self.case == Some(Case::Growth) { 10_000_000 } else { 200_000 })
    }
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    run(Options::parse()).await.unwrap_or_else(|error| {
        eprintln!("{error}");
        let mut source = error.source();
        while let Some(error) = source {
            eprintln!("because: {error}");
            source = error.source();
        }
        ExitCode::from(2)
    })
}

async fn run(options: Options) -> Result<ExitCode, Fault> {
    match (&options.other, options.case) {
        (Some(Other::Lag(options)), _) => {
            print(&lag::measure(options).await?, options.json)?;
            Ok(ExitCode::SUCCESS)
        }
        (Some(Other::Visible(options)), _) => {
            print(&visible::measure(options).await?, options.json)?;
            Ok(ExitCode::SUCCESS)
        }
        (Some(Other::Saga(options)), _) => {
            print(&saga::measure(options).await?, options.json)?;
            Ok(ExitCode::SUCCESS)
        }
        (Some(Other::SagaWaiting(options)), _) => {
            print(&waiting::measure(options).await?, options.json)?;
            Ok(ExitCode::SUCCESS)
        }
        (Some(Other::ManyRows(options)), _) => {
            print(&many_rows::measure(options).await?, options.json)?;
            Ok(ExitCode::SUCCESS)
        }
        (Some(Other::Tenants(options)), _) => {
            let report = tenants::measure(options).await?;
            bounded(&report, options.json, report.holds())
        }
        (Some(Other::Memory(options)), _) => {
            let report = memory::measure(options).await?;
            bounded(&report, options.json, report.holds())
        }
        (Some(Other::Idle(options)), _) => {
            let report = idle::measure(options).await?;
            bounded(&report, options.json, report.holds())
        }
        (Some(Other::Policy(options)), _) => {
            let owned = options.clone();
            // Its runtimes of paused time cannot be entered from within this one.
            tokio::task::spawn_blocking(move || policy::measure(&owned)).await??.print(options.json)?;
            Ok(ExitCode::SUCCESS)
        }
        (None, Some(case)) if options.part.is_some() => {
            let task = options.part.as_deref().unwrap_or_default();
            match case {
                Case::Project => project::part(task).await?,
                _ => append::part(task, &options).await?,
            }
            Ok(ExitCode::SUCCESS)
        }
        (None, Some(case)) => {
            print(&measure(case, &options).await?, options.json)?;
            Ok(ExitCode::SUCCESS)
        }
        (None, None) => Err("name a case to measure".into()),
    }
}

/// Prints a report that has a bound; the exit code says whether it holds.
fn bounded(report: &(impl serde::Serialize + std::fmt::Display), json: bool, holds: bool) -> Result<ExitCode, Fault> {
    print(report, json)?;
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &(impl serde::Serialize + std::fmt::Display), json: bool) -> Result<(), Fault> {
    if json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}

async fn measure(case: Case, options: &Options) -> Result<Report, Fault> {
    match (case, options.store) {
        (Case::Append, _) => append::measure(options, 1).await,
        (Case::AppendBatch, _) => append::measure(options, 100).await,
        (Case::Growth, Store::Postgres) => append::growth(options).await,
        (Case::Growth, _) => Err("growth is measured on PostgreSQL: use `--store postgres`".into()),
        (Case::Load, _) => load::measure(options).await,
        (Case::LoadLong | Case::LoadLongReplay | Case::AsOf | Case::AppendSnapshots, _) => {
            snapshots::measure(case, options).await
        }
        (Case::Read, _) => read::measure(options).await,
        (Case::Project, _) => project::measure(options).await,
    }
}
