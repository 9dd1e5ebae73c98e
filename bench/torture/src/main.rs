//! `annals-torture`: races writers and readers in several processes on a PostgreSQL server that crashes, then checks
//! that no event was lost, duplicated or misplaced.
//!
//! The coordinator starts the other processes and speaks with them by the protocol. Writers record what was
//! acknowledged, readers record what was delivered, and the checker compares both with the log.

mod check;
mod coordinator;
mod crash;
mod disturbances;
mod fact;
mod progress;
mod protocol;
mod readers;
mod record;
mod report;
mod run_folder;
mod writers;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::fact::Wanted;
use crate::protocol::{Method, ReaderPlan};

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Races writers and readers in several processes on a server that is crashed again and again, then compares what was
/// acknowledged and delivered with the log.
///
/// Starts its own PostgreSQL server and removes it. Exit status: 0 if nothing is missed, duplicated, inverted, lost,
/// torn or left out, 1 if anything is, 2 if the run could not be made. `--reader naive` should find missed events;
/// otherwise the run has shown nothing.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// Which store.
    #[arg(long, value_enum, default_value_t = Store::Postgres)]
    store: Store,
    /// How long writers begin new work; 10 if `--appends` is not given either.
    #[arg(long)]
    seconds: Option<f64>,
    /// How many appends must be acknowledged. What one transaction adds to one stream is one append.
    #[arg(long)]
    appends: Option<u64>,
    /// Seed of the random decisions; chosen and printed if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Number of writers in all processes.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    writers: u32,
    /// Number of writer processes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    processes: u32,
    /// Number of readers in two more processes, one of which is killed again and again. `--reader ours` adds one that
    /// measures waits.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    readers: u32,
    /// Which kind of reader.
    #[arg(long, value_enum, default_value_t = Reader::Ours)]
    reader: Reader,
    /// Seconds between two crashes of the server; 0 for no crashes.
    #[arg(long, default_value_t = 5.0)]
    crash_every: f64,
    /// Continues until the server has crashed this many times, whatever the time.
    #[arg(long, default_value_t = 0)]
    crashes: u32,
    /// Every n-th crash is followed by the promotion of a standby; 0 for no promotions.
    #[arg(long, default_value_t = 3)]
    promote_every: u32,
    /// Print a JSON line instead of a table.
    #[arg(long)]
    json: bool,
    /// The part of one process of a run, in JSON. The coordinator starts other processes with it.
    #[arg(long, hide = true)]
    part: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Store {
    /// The run's own PostgreSQL server, with fsync and synchronous_commit on.
    Postgres,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Reader {
    /// The library's reads.
    Ours,
    /// The control: continues after the last position it has seen, so it must miss events.
    Naive,
}

impl Options {
    /// The time limit; none if the run is limited by appends only.
    fn time(&self) -> Option<Duration> {
        let seconds = self.seconds.or(self.appends.is_none().then_some(10.0))?;
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }

    /// The time between two crashes.
    fn crash_every(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.crash_every).ok().filter(|every| !every.is_zero())
    }

    /// The numbers of the writers of one process.
    fn writers_of(&self, process: u32) -> Vec<u32> {
        (0..self.writers).filter(|writer| writer % self.processes == process).collect()
    }

    /// How each reader reads. The last of ours measures.
    fn reader_plans(&self) -> Vec<ReaderPlan> {
        const OURS: [(Method, Wanted); 6] = [
            (Method::Subscription, Wanted::All),
            (Method::Pages, Wanted::All),
            (Method::ReadAll, Wanted::Odd),
            (Method::Subscription, Wanted::Third),
            (Method::Pages, Wanted::Correlated),
            (Method::ReadAll, Wanted::All),
        ];
        let methods = match self.reader {
            Reader::Ours => OURS,
            Reader::Naive => [(Method::Naive, Wanted::All); 6],
        };
        let chosen = methods.into_iter().cycle().take(self.readers as usize);
        let measuring = (self.reader == Reader::Ours).then_some((Method::Measure, Wanted::All));
        let plan = |(number, (method, wanted))| ReaderPlan { number, method, wanted };
        chosen.chain(measuring).enumerate().map(plan).collect()
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = runtime.map_err(Fault::from).and_then(|runtime| {
        let done = runtime.block_on(run(options));
        // A blocked read of standard input ends only with the process.
        runtime.shutdown_background();
        done
    });
    done.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
}

async fn run(options: Options) -> Result<ExitCode, Fault> {
    if let Some(part) = &options.part {
        return protocol::run_part(part).await.map(|()| ExitCode::SUCCESS);
    }
    let report = tokio::select! {
        report = coordinator::run(&options) => report?,
        // Handled here, so that the server and the records are removed.
        interrupted = tokio::signal::ctrl_c() => return Err(interrupted.map_or_else(Fault::from, |()| "interrupted".into())),
    };
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(ExitCode::from(u8::from(!report.passed())))
}
