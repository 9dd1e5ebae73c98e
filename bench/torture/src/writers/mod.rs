//! The writers of one process.

mod library;
mod raw;
mod shared;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use annals::{EventStore, OpenError, PostgresOptions, PostgresStore};
use fastrand::Rng;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::Fault;
use crate::protocol::{Instruction, Message, send};
use crate::run_folder::{RunFolder, TIMEOUT};
use shared::Shared;

/// What a writer does, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Many streams in one hand-written statement, as a group commit does. Most of the log comes from these.
    Group,
    /// One stream or several, through the library, by several callers at once.
    Library,
    /// Transactions that wait after they have allocated positions, and roll back or undo a part.
    Slow,
    /// The same, then prepared and ended later, some by another session.
    Prepared,
    /// Units of work of the library, with rows beside the events.
    Unit,
}

const KINDS: [Kind; 8] =
    [Kind::Group, Kind::Library, Kind::Slow, Kind::Library, Kind::Prepared, Kind::Unit, Kind::Library, Kind::Group];

/// Runs these writers until the coordinator ends them.
pub(crate) async fn run(
    folder: &Path,
    process: usize,
    seed: u64,
    writers: &[u32],
    mut instructions: mpsc::Receiver<Instruction>,
) -> Result<(), Fault> {
    let folder = RunFolder::new(folder);
    let shared = Arc::new(Shared::open(&folder.acknowledged(process))?);
    let store = open(&folder).await?;
    let mut tasks = JoinSet::new();
    for &writer in writers {
        let mut random = Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(writer.into()));
        let shared = Arc::clone(&shared);
        match KINDS[writer as usize % KINDS.len()] {
            Kind::Group => drop(tasks.spawn(raw::Group::new(&folder, writer, random).write(shared))),
            Kind::Slow => drop(tasks.spawn(raw::Slow::new(&folder, writer, random, false).write(shared))),
            Kind::Prepared => drop(tasks.spawn(raw::Slow::new(&folder, writer, random, true).write(shared))),
            Kind::Unit => drop(tasks.spawn(library::Units::new(store.clone(), writer, random).write(shared))),
            Kind::Library => {
                for caller in 0..library::CALLERS {
                    let appends = library::Appends::new(store.clone(), writer, caller, random.fork());
                    tasks.spawn(appends.write(Arc::clone(&shared)));
                }
            }
        }
    }
    let mut paused = None;
    let mut tick = interval(Duration::from_millis(200));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => send_tally(&shared)?,
            instruction = instructions.recv() => match instruction.ok_or("the coordinator has exited")? {
                Instruction::Pause => {
                    paused = Some(shared.pause().await);
                    send(&Message::Paused)?;
                }
                Instruction::Resume => paused = None,
                Instruction::Slow => shared.set_slow(true),
                Instruction::Fast => shared.set_slow(false),
                Instruction::End => {
                    paused = None;
                    shared.end();
                }
            },
            ended = tasks.join_next() => match ended {
                Some(ended) => ended??,
                None => break,
            },
        }
    }
    drop(paused);
    store.close().await;
    shared.flush()?;
    send_tally(&shared)
}

fn send_tally(shared: &Shared) -> Result<(), Fault> {
    let tally = *shared.tally();
    send(&Message::Wrote(tally))
}

/// A handle on the store, as soon as the server can be reached.
async fn open(folder: &RunFolder) -> Result<PostgresStore, Fault> {
    let begun = Instant::now();
    loop {
        match PostgresOptions::new(folder.url()).connections(8).open().await {
            Err(OpenError::Unavailable { .. }) if begun.elapsed() < TIMEOUT => sleep(Duration::from_millis(20)).await,
            opened => return Ok(opened?),
        }
    }
}

/// Usually a few milliseconds, sometimes much longer.
async fn wait_at_random(random: &mut Rng) {
    let most = match random.u8(..100) {
        0 => 400.0,
        1..10 => 50.0,
        _ => 4.0,
    };
    sleep(Duration::from_secs_f64(random.f64() * most / 1_000.0)).await;
}
