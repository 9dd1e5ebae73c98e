//! Several processes that append to one PostgreSQL database, beside one process with as many clients.

use std::time::Duration;

use annals::EventStore;
use serde::{Deserialize, Serialize};

use super::{Ours, Work, postgres, slice};
use crate::part::Part;
use crate::report::Report;
use crate::server::MeasuredServer;
use crate::slices::{Tally, plan, report};
use crate::{Fault, Options};

/// The task of a process, which it gets when it is started.
#[derive(Serialize, Deserialize)]
struct Task {
    url: String,
    /// The number of its first event; other processes have other numbers.
    first: u64,
    events: usize,
}

/// What a process has done in a slice.
#[derive(Default, Serialize, Deserialize)]
struct Done {
    units: u64,
    busy: Duration,
    latencies_us: Vec<f64>,
}

pub(super) async fn measure(options: &Options, work: &Work) -> Result<Report, Fault> {
    let mut server = MeasuredServer::find().await?;
    let url = server.database("processes").await?;
    // The schema exists before a process starts.
    postgres::open(&url, options).await?.close().await;
    let mut parts = Vec::new();
    for number in 0..options.processes as u64 {
        let task = Task { url: url.clone(), first: number * 10_000_000_000, events: work.events };
        parts.push(start(&task, options).await?);
    }
    let one = Options { clients: work.clients * options.processes, ..options.clone() };
    let store = postgres::open(&server.database("one").await?, &one).await?;
    let all = Work::from(0, one.clients, work.events);
    let (mut ours, mut theirs) = (Tally::default(), Tally::default());
    let (slices, time) = plan(options.time());
    for _ in 0..slices {
        for part in &mut parts {
            part.tell(&time.as_secs_f64().to_string()).await?;
        }
        let mut busy = Duration::ZERO;
        for part in &mut parts {
            let done: Done = serde_json::from_str(&part.answer().await?)?;
            ours.units += done.units;
            ours.latencies_us.extend(done.latencies_us);
            busy = busy.max(done.busy);
        }
        ours.busy += busy;
        slice(&Ours(store.clone()), &all, time, &mut theirs).await?;
    }
    let name = format!("annals in one process with {} clients", one.clients);
    let mut report = report(work.case(), "postgres", work.clients, ours, Some((&name, theirs)));
    report.processes = options.processes;
    for part in parts {
        part.exit().await?;
    }
    store.close().await;
    server.remove().await?;
    Ok(report)
}

/// Starts one of the processes.
async fn start(task: &Task, options: &Options) -> Result<Part, Fault> {
    let mut arguments = ["append", "--store", "postgres", "--clients"].map(str::to_owned).to_vec();
    arguments.extend([options.clients.to_string(), "--part".to_owned(), serde_json::to_string(task)?]);
    if let Some(writers) = options.writers {
        arguments.extend(["--writers".to_owned(), writers.to_string()]);
    }
    Part::start(&arguments).await
}

/// One of the processes. For each line with a number of seconds it works that long, and prints what it has done.
pub(crate) async fn part(task: &str, options: &Options) -> Result<(), Fault> {
    let task: Task = serde_json::from_str(task)?;
    let store = postgres::open(&task.url, options).await?;
    let work = Work::from(task.first, options.clients, task.events);
    println!("{}", serde_json::to_string(&Done::default())?);
    for line in std::io::stdin().lines() {
        let time = Duration::from_secs_f64(line?.parse()?);
        let mut tally = Tally::default();
        slice(&Ours(store.clone()), &work, time, &mut tally).await?;
        let done = Done { units: tally.units, busy: tally.busy, latencies_us: tally.latencies_us };
        println!("{}", serde_json::to_string(&done)?);
    }
    store.close().await;
    Ok(())
}
