//! The two processes that readers live in, one of which is killed and started again, over and over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::torture::Fault;
use crate::torture::board::Board;
use crate::torture::part::{Part, ReaderPlan, Way};
use crate::torture::place::Place;
use crate::torture::process::Process;

/// Starts both. Their tasks end when all readers have been given the last event of the run; to drop them kills the
/// processes.
pub(crate) fn start(
    place: &Place,
    plans: &[ReaderPlan],
    seed: u64,
    board: &Arc<Board>,
    killed: &Arc<AtomicU64>,
    ending: &watch::Receiver<bool>,
) -> JoinSet<Result<(), Fault>> {
    let mut hosts = JoinSet::new();
    for host in 0..2 {
        let readers: Vec<ReaderPlan> =
            plans.iter().copied().filter(|plan| plan.way != Way::Watch && plan.number % 2 == host).collect();
        if readers.is_empty() {
            continue;
        }
        let folder = place.folder().to_owned();
        let seed = seed.wrapping_add(1_000 + host as u64);
        let part = move |life: u64| Part::Readers {
            folder: folder.clone(),
            seed: seed.wrapping_add(life.wrapping_mul(1_000)),
            readers: readers.clone(),
        };
        let kills = (host == 1).then(|| Arc::clone(killed));
        hosts.spawn(keep(part, Arc::clone(board), kills, Rng::with_seed(seed), ending.clone()));
    }
    hosts
}

/// Keeps one process of readers alive, life after life. With `kills`, which counts, each life but the last is a short one.
async fn keep(
    part: impl Fn(u64) -> Part + Send,
    board: Arc<Board>,
    kills: Option<Arc<AtomicU64>>,
    mut random: Rng,
    mut ending: watch::Receiver<bool>,
) -> Result<(), Fault> {
    for life in 0.. {
        let mut process = Process::start(&part(life), 0, &board)?;
        if let Some(kills) = &kills {
            let dies = tokio::select! {
                _ = process.ended() => false,
                // At the end it may come to its own.
                _ = ending.wait_for(|ending| *ending) => false,
                _ = sleep(Duration::from_millis(random.u64(1_000..10_000))) => true,
            };
            if dies {
                process.kill().await?;
                kills.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        }
        if !process.ended().await? {
            board.failed("a process of readers has failed".to_owned());
        }
        return Ok(());
    }
    Ok(())
}
