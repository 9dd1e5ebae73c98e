//! A reader of the whole log that keeps its place while others write. What it is not given, though the log has it at the
//! end, it has missed.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use crate::peer::{Fault, Peer};
use crate::work;

/// How long nothing new must come until the reader takes the log as complete: longer than any writer is held.
const QUIET: Duration = Duration::from_secs(4);

/// How long a reader rests that has found nothing.
const REST: Duration = Duration::from_millis(2);

/// What a race has shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raced {
    /// Events in the log at the end.
    pub(crate) stored: u64,
    /// Of those, what the reader was never given.
    pub(crate) missed: u64,
    /// What the reader was given more than once.
    pub(crate) repeated: u64,
}

/// Lets a reader run beside so many writers for so long. `None` if the store has no reads for it.
pub(crate) async fn race<P: Peer>(
    peer: &Arc<P>,
    next: &Arc<AtomicU64>,
    writers: usize,
    time: Duration,
) -> Result<Option<Raced>, Fault> {
    if peer.page(None).await?.is_none() {
        return Ok(None);
    }
    let writing = tokio::spawn({
        let (peer, next) = (Arc::clone(peer), Arc::clone(next));
        async move { work::append(&peer, &next, writers, 1, time).await }
    });
    let (mut seen, mut given, mut after) = (HashSet::new(), 0, None);
    let mut last = Instant::now();
    while !writing.is_finished() || last.elapsed() < QUIET {
        let page = peer.page(after.as_ref()).await?.ok_or("the feed is gone")?;
        after = page.next;
        if page.events.is_empty() {
            tokio::time::sleep(REST).await;
            continue;
        }
        last = Instant::now();
        for event in &page.events {
            seen.insert(event.number()?);
            given += 1;
        }
    }
    let acknowledged = writing.await??.units;
    let (mut stored, mut after) = (HashSet::new(), None);
    loop {
        let page = peer.page(after.as_ref()).await?.ok_or("the feed is gone")?;
        if page.events.is_empty() {
            break;
        }
        for event in &page.events {
            stored.insert(event.number()?);
        }
        after = page.next;
    }
    if (stored.len() as u64) < acknowledged {
        return Err(format!("{acknowledged} events were acknowledged, {} are there", stored.len()).into());
    }
    Ok(Some(Raced {
        stored: stored.len() as u64,
        missed: stored.difference(&seen).count() as u64,
        repeated: given - seen.len() as u64,
    }))
}
