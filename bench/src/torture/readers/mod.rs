//! The readers of one process.

mod naive;
mod session;
mod shelf;
pub(crate) mod waits;
pub(crate) mod watch;

use std::path::Path;

use fastrand::Rng;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::torture::Fault;
use crate::torture::part::{Progress, ReaderPlan, Said, Way, Word, say};
use crate::torture::place::Place;
use shelf::Shelf;
pub(crate) use shelf::judged;

/// Runs these readers until each has been given the last event of the run.
pub(crate) async fn run(
    folder: &Path,
    seed: u64,
    plans: Vec<ReaderPlan>,
    mut words: mpsc::Receiver<Word>,
) -> Result<(), Fault> {
    let place = Place::new(folder);
    let mut tasks = JoinSet::new();
    for plan in plans {
        let random = Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(plan.number as u64));
        let place = place.clone();
        tasks.spawn(async move { read(place, plan, random).await.map_err(|e| failed(plan, &*e)) });
    }
    loop {
        tokio::select! {
            word = words.recv() => if word.is_none() {
                return Err("the leading process is gone".into());
            },
            ended = tasks.join_next() => match ended {
                Some(ended) => ended??,
                None => return Ok(()),
            },
        }
    }
}

fn failed(plan: ReaderPlan, error: &(dyn std::error::Error + 'static)) -> Fault {
    format!("reader {} ({:?} of {:?}): {}", plan.number, plan.way, plan.wanted, crate::torture::part::told(error))
        .into()
}

/// One reader: session after session, each from where the last one has kept its checkpoint.
async fn read(place: Place, plan: ReaderPlan, mut random: Rng) -> Result<(), Fault> {
    let mut progress = Progress { reader: plan.number, ..Progress::default() };
    loop {
        let mut shelf = Shelf::resume(&place, plan.number)?;
        progress.resumed += 1;
        let on_standby = match plan.way {
            Way::Naive => naive::session(&place, &mut shelf, &mut random, progress).await?,
            _ => session::session(&place, plan, &mut shelf, &mut random, progress).await?,
        };
        progress.on_standby += u64::from(on_standby);
        // What came after the last save is forgotten, as if the process had been killed here.
        if random.bool() {
            shelf.save()?;
        }
        progress.position = shelf.position();
        progress.done = shelf.is_done();
        say(&Said::Read(progress))?;
        if progress.done {
            return Ok(());
        }
    }
}
