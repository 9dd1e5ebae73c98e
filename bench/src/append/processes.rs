//! Several processes that append to one PostgreSQL database, beside one process with as many clients.

use std::process::Stdio;
use std::time::Duration;

use annals::EventStore;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{Ours, Work, postgres, slice};
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
        parts.push(Part::start(&task, options).await?);
    }
    let one = Options { clients: work.clients * options.processes, ..options.clone() };
    let store = postgres::open(&server.database("one").await?, &one).await?;
    let all = Work::from(0, one.clients, work.events);
    let (mut ours, mut theirs) = (Tally::default(), Tally::default());
    let (slices, time) = plan(options.time());
    for _ in 0..slices {
        for part in &mut parts {
            part.begin(time).await?;
        }
        let mut busy = Duration::ZERO;
        for part in &mut parts {
            let done = part.end().await?;
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

/// Another process.
struct Part {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Part {
    /// Starts it, and waits until it is ready.
    async fn start(task: &Task, options: &Options) -> Result<Self, Fault> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["append", "--store", "postgres", "--clients", &options.clients.to_string()]);
        command.args(["--part", &serde_json::to_string(task)?]);
        if let Some(writers) = options.writers {
            command.args(["--writers", &writers.to_string()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let input = child.stdin.take().ok_or("the process has no input")?;
        let output = child.stdout.take().ok_or("the process has no output")?;
        let mut part = Self { child, input, output: BufReader::new(output).lines() };
        part.end().await?;
        Ok(part)
    }

    async fn begin(&mut self, time: Duration) -> Result<(), Fault> {
        Ok(self.input.write_all(format!("{}\n", time.as_secs_f64()).as_bytes()).await?)
    }

    async fn end(&mut self) -> Result<Done, Fault> {
        let line = self.output.next_line().await?.ok_or("a process has ended too early")?;
        Ok(serde_json::from_str(&line)?)
    }

    async fn exit(self) -> Result<(), Fault> {
        let Self { mut child, input, output } = self;
        drop(input);
        let status = child.wait().await?;
        drop(output);
        if status.success() { Ok(()) } else { Err(format!("a process has failed: {status}").into()) }
    }
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
