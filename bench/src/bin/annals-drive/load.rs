//! Random work from several processes.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use annals::{
    Append, AppendError, ErrorFamily, EventStore, EventStoreExt, ExpectedVersion, Filter, Position, StreamVersion,
};
use fastrand::Rng;
use futures::TryStreamExt;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::Instant;

use crate::line::{Line, monotonic, print};
use crate::{Fault, target};

const STREAMS: usize = 12;
/// Clients of one process, which share one handle.
const TASKS: u64 = 4;

/// Starts the processes and forwards their lines as they come, each line as a whole.
pub(crate) async fn processes(db: &str, procs: u32, secs: f64, seed: u64) -> Result<(), Fault> {
    // The first that opens a new store creates its schema; the processes should find it.
    target::open(db).await?.close().await;
    let program = std::env::current_exe()?;
    let mut readers = Vec::new();
    for client in 0..procs.max(1) {
        let mut child = Command::new(&program)
            .args(["client", "--db", db])
            .args(["--client", &client.to_string()])
            .args(["--secs", &secs.to_string()])
            .args(["--seed", &seed.wrapping_mul(1_000).wrapping_add(u64::from(client)).to_string()])
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().ok_or("the child has no output")?;
        readers.push(tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Some(line) = lines.next_line().await? {
                let mut out = std::io::stdout().lock();
                writeln!(out, "{line}")?;
                out.flush()?;
            }
            let ended = child.wait().await?;
            if ended.success() { Ok(()) } else { Err(Fault::from(format!("client {client} ended with {ended}"))) }
        }));
    }
    for reader in readers {
        reader.await??;
    }
    Ok(())
}

/// One process: some clients on one handle, and one subscription from the beginning.
pub(crate) async fn client(db: &str, client: u32, time: Duration, seed: u64) -> Result<(), Fault> {
    let store = target::open(db).await?;
    let until = Instant::now() + time;
    let workers: Vec<_> = (0..TASKS)
        .map(|task| {
            let (store, random) = (Arc::clone(&store), Rng::with_seed(seed.wrapping_mul(31).wrapping_add(task)));
            tokio::spawn(work(store, random, until))
        })
        .collect();
    let (stop, stopped) = tokio::sync::watch::channel(None);
    let subscriber = tokio::spawn(subscribe(Arc::clone(&store), client, stopped));
    for worker in workers {
        worker.await??;
    }
    // The subscription must still deliver what is committed by now.
    stop.send(Some(store.head().await?.position))?;
    subscriber.await??;
    store.close().await;
    Ok(())
}

async fn subscribe(
    store: Arc<dyn EventStore>,
    c: u32,
    mut stopped: tokio::sync::watch::Receiver<Option<Position>>,
) -> Result<(), Fault> {
    let mut events = store.subscribe(Position::START, Filter::all());
    let (mut n, mut seen) = (0, Position::START);
    loop {
        let last = *stopped.borrow_and_update();
        if last.is_some_and(|last| seen >= last) {
            return Ok(());
        }
        tokio::select! {
            event = events.try_next() => {
                let event = event?.ok_or("the subscription ended")?;
                print(&Line::Sub { c, n, id: event.event_id.to_string() })?;
                n += 1;
                seen = event.position;
            }
            changed = stopped.changed(), if last.is_none() => changed?,
        }
    }
}

async fn work(store: Arc<dyn EventStore>, mut random: Rng, until: Instant) -> Result<(), Fault> {
    let mut known: HashMap<usize, StreamVersion> = HashMap::new();
    while Instant::now() < until {
        if random.u8(..10) < 3 {
            load(&store, random.usize(..STREAMS), &mut known).await?;
        } else {
            append(&store, &mut random, &mut known).await?;
        }
    }
    Ok(())
}

async fn load(
    store: &Arc<dyn EventStore>,
    stream: usize,
    known: &mut HashMap<usize, StreamVersion>,
) -> Result<(), Fault> {
    let name = format!("s{stream}");
    let t0 = monotonic();
    let events: Vec<_> = store.load(&target::stream(&name)?).try_collect().await?;
    let t1 = monotonic();
    known.insert(stream, events.last().map_or(StreamVersion::NONE, |event| event.version));
    let ids: Vec<String> = events.iter().map(|event| event.event_id.to_string()).collect();
    print(&Line::Load { s: &name, ids: &ids, t0, t1 })
}

/// An append to one stream, sometimes to several. The expected version of each is the known one, a possibly wrong one, or
/// any.
async fn append(
    store: &Arc<dyn EventStore>,
    random: &mut Rng,
    known: &mut HashMap<usize, StreamVersion>,
) -> Result<(), Fault> {
    let count = if random.u8(..10) == 0 { random.usize(2..4) } else { 1 };
    let mut streams: Vec<usize> = (0..STREAMS).collect();
    random.shuffle(&mut streams);
    streams.truncate(count);
    let mut parts = Vec::new();
    let mut append: Option<Append> = None;
    for stream in streams {
        let seen = known.get(&stream).copied().unwrap_or_default();
        let expected = match random.u8(..10) {
            0 => ExpectedVersion::NoStream,
            1..6 => ExpectedVersion::Exact(seen),
            6 => ExpectedVersion::Exact(StreamVersion::new((seen.get() - random.i64(0..2)).max(0))?),
            _ => ExpectedVersion::Any,
        };
        let exp = expected.version().map_or(-1, StreamVersion::get);
        let mut events = Vec::new();
        let mut ids = Vec::new();
        for _ in 0..random.usize(1..5) {
            let id = store.ids().next_id();
            ids.push(id.to_string());
            events.push(target::event(id, random.i64(0..1_000_000))?);
        }
        let name = format!("s{stream}");
        let id = target::stream(&name)?;
        append = Some(match append {
            None => Append::to(id, expected, events),
            Some(append) => append.and(id, expected, events),
        });
        parts.push((stream, name, exp, ids));
    }
    let Some(append) = append else { return Ok(()) };
    let t0 = monotonic();
    let answer = store.append_many(append).await;
    let t1 = monotonic();
    let mut refused = None;
    let result = match &answer {
        Ok(appended) => {
            for (part, done) in parts.iter().zip(&appended.streams) {
                known.insert(part.0, done.version);
            }
            "ok"
        }
        Err(AppendError::WrongExpectedVersion { stream, actual, .. }) => {
            refused = Some(target::shown(stream));
            for part in parts.iter().filter(|part| Some(&part.1) == refused.as_ref()) {
                known.insert(part.0, *actual);
            }
            "conflict"
        }
        Err(error) if error.family() == ErrorFamily::OutcomeUnknown => "unknown",
        Err(_) => "fail",
    };
    for (_, name, exp, ids) in &parts {
        // One wrong expected version refuses an append to several streams; the other parts were not stored either.
        let r = if refused.as_ref().is_some_and(|refused| refused != name) { "fail" } else { result };
        print(&Line::Append { s: name, exp: *exp, ids, r, t0, t1 })?;
    }
    Ok(())
}
