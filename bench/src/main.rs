//! `annals-bench`: what annals costs beside the bare database, measured in slices that take turns; `torture`, which
//! looks for lost, doubled and misplaced events; and `policy`, which simulates calls to a dependency with faults.

mod append;
mod baseline;
mod fill;
mod lag;
mod load;
mod plain;
mod policy;
mod project;
mod read;
mod report;
mod sample;
mod server;
mod slices;
mod torture;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::report::Report;

/// Measures one case against its baseline; both run in this process and take turns in slices of time.
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
    /// Appends on PostgreSQL: so many processes with `--clients` each, beside one process with all of them.
    #[arg(long, default_value_t = 1)]
    processes: usize,
    /// This is one of those processes, and what it has to do.
    #[arg(long, hide = true)]
    part: Option<String>,
    /// Leave the baseline out: for measuring memory.
    #[arg(long)]
    alone: bool,
    /// Print a JSON line instead of a table.
    #[arg(long)]
    json: bool,
}

/// What has no baseline.
#[derive(Clone, Subcommand)]
enum Other {
    Torture(torture::Options),
    Lag(lag::Options),
    Policy(policy::Options),
    /// One of the processes of `torture`.
    #[command(hide = true)]
    TorturePart {
        part: String,
    },
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
    /// PostgreSQL with fsync and synchronous_commit on; a server of its own, or the one that `DATABASE_URL` names.
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

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = runtime.map_err(Fault::from).and_then(|runtime| {
        let done = runtime.block_on(run(options));
        // A read of the standard input ends with the process only.
        runtime.shutdown_background();
        done
    });
    done.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
}

async fn run(options: Options) -> Result<ExitCode, Fault> {
    match (&options.other, options.case) {
        (Some(Other::Torture(options)), _) => {
            let report = tokio::select! {
                report = torture::lead(options) => report?,
                // Not left to the system, so that the server and the records are removed.
                interrupted = tokio::signal::ctrl_c() => return Err(interrupted.map_or_else(Fault::from, |()| "interrupted".into())),
            };
            print(&report, options.json)?;
            Ok(ExitCode::from(u8::from(!report.is_sound())))
        }
        (Some(Other::Lag(options)), _) => {
            print(&lag::measure(options).await?, options.json)?;
            Ok(ExitCode::SUCCESS)
        }
        (Some(Other::Policy(options)), _) => {
            let owned = options.clone();
            // Its runtimes of paused time cannot be entered from within this one.
            tokio::task::spawn_blocking(move || policy::measure(&owned)).await??.print(options.json)?;
            Ok(ExitCode::SUCCESS)
        }
        (Some(Other::TorturePart { part }), _) => torture::part(part).await.map(|()| ExitCode::SUCCESS),
        (None, Some(_)) if options.part.is_some() => {
            append::part(options.part.as_deref().unwrap_or_default(), &options).await.map(|()| ExitCode::SUCCESS)
        }
        (None, Some(case)) => {
            print(&measure(case, &options).await?, options.json)?;
            Ok(ExitCode::SUCCESS)
        }
        (None, None) => Err("say what to measure".into()),
    }
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
        (Case::Read, _) => read::measure(options).await,
        (Case::Project, _) => project::measure(options).await,
    }
}
