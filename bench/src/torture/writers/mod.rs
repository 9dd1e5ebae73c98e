//! The writers of one process.

mod desk;
mod group;
mod held;
mod insert;
mod library;
mod own;
mod unit;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use annals::{EventStore, OpenError, PostgresOptions, PostgresStore};
use fastrand::Rng;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::torture::Fault;
use crate::torture::part::{Said, Word, say};
use crate::torture::place::{PATIENCE, Place};
use desk::Desk;

/// What a writer does, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Many streams in one hand-written statement, as a group commit does. Most of the log comes from these.
    Group,
    /// One stream or several, through the library, by several callers at once.
    Library,
    /// Transactions that wait after they have drawn numbers, roll back, or undo a part.
    Held,
    /// The same, and then prepared and ended later, some by another session.
    Prepared,
    /// Units of work of the library, with rows beside the events.
    Unit,
}

const KINDS: [Kind; 8] =
    [Kind::Group, Kind::Library, Kind::Held, Kind::Library, Kind::Prepared, Kind::Unit, Kind::Library, Kind::Group];

/// Runs these writers until the leading process says that it is enough.
pub(crate) async fn run(
    folder: &Path,
    process: usize,
    seed: u64,
    writers: &[u32],
    mut words: mpsc::Receiver<Word>,
) -> Result<(), Fault> {
    let place = Place::new(folder);
    let desk = Arc::new(Desk::open(&place.acknowledged(process))?);
    let store = open(&place).await?;
    let mut tasks = JoinSet::new();
    for &writer in writers {
        let mut random = Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(writer.into()));
        let desk = Arc::clone(&desk);
        match KINDS[writer as usize % KINDS.len()] {
            Kind::Group => drop(tasks.spawn(group::Group::new(&place, writer, random).write(desk))),
            Kind::Held => drop(tasks.spawn(held::Held::new(&place, writer, random, false).write(desk))),
            Kind::Prepared => drop(tasks.spawn(held::Held::new(&place, writer, random, true).write(desk))),
            Kind::Unit => drop(tasks.spawn(unit::Units::new(store.clone(), writer, random).write(desk))),
            Kind::Library => {
                for caller in 0..library::CALLERS {
                    let library = library::Library::new(store.clone(), writer, caller, random.fork());
                    tasks.spawn(library.write(Arc::clone(&desk)));
                }
            }
        }
    }
    let mut hushed = None;
    let mut tick = interval(Duration::from_millis(200));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => say(&Said::Wrote(desk.tally()))?,
            word = words.recv() => match word.ok_or("the leading process is gone")? {
                Word::Hush => {
                    hushed = Some(desk.hush().await);
                    say(&Said::Hushed)?;
                }
                Word::Go => hushed = None,
                Word::Slow => desk.slow(true),
                Word::Fast => desk.slow(false),
                Word::End => {
                    hushed = None;
                    desk.end();
                }
            },
            ended = tasks.join_next() => match ended {
                Some(ended) => ended??,
                None => break,
            },
        }
    }
    drop(hushed);
    store.close().await;
    desk.flush()?;
    say(&Said::Wrote(desk.tally()))
}

/// A handle on the store, as soon as the server can be reached.
pub(crate) async fn open(place: &Place) -> Result<PostgresStore, Fault> {
    let begun = Instant::now();
    loop {
        match PostgresOptions::new(place.url()).connections(8).open().await {
            Err(OpenError::Unavailable { .. }) if begun.elapsed() < PATIENCE => sleep(Duration::from_millis(20)).await,
            opened => return Ok(opened?),
        }
    }
}
