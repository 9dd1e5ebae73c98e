//! Moving projections on behind a batch: together, without those that cannot, and never without a comparison of the stored
//! checkpoint in the database.

use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{BackendError, Backoff, Checkpoint, EventStore, Position, ReadError};
use futures::future::join_all;
use jiff::Timestamp;
use tokio::time::sleep;
use tracing::Span;

use crate::changes::Changes;
use crate::database::{Fault, Moved, UnitId, Work};
use crate::error::StopCause;
use crate::folding::Stop;
use crate::member::Member;
use crate::metrics;
use crate::pass::Shared;

/// How far one projection has come.
pub(crate) struct Part {
    /// Which of the pass's projections.
    member: usize,
    work: Work,
    /// How many events it stands for. With none of them there are no changes.
    applied: usize,
    /// Why the projection stops behind it, if it does.
    stop: Option<Stop>,
    seen: Seen,
}

/// What is observed of the events of a part, if its projection follows the log. A rebuild says nothing of old events.
#[derive(Default)]
pub(crate) struct Seen {
    /// When the first one was recorded.
    pub(crate) first: Option<Timestamp>,
    /// They end when the part is committed or given up.
    pub(crate) _spans: Vec<Span>,
}

impl Part {
    pub(crate) fn of(member: usize, work: Work, applied: usize, stop: Option<Stop>) -> Self {
        Self { member, work, applied, stop, seen: Seen::default() }
    }

    /// The same with what is observed of it.
    pub(crate) fn seen(self, seen: Seen) -> Self {
        Self { seen, ..self }
    }

    /// A part that applies nothing: it compares the stored checkpoint.
    pub(crate) fn comparing(at: usize, member: &Member) -> Self {
        Self::of(at, member.work(*member.progress(), Changes::default()), 0, None)
    }

    /// The part is committed.
    fn committed(self, members: &mut [Member]) {
        let member = &mut members[self.member];
        member.park(&self.work.parking.park);
        metrics::committed(&member.model, self.applied, self.seen.first.map(|first| member.since(first)));
        member.committed(self.work.to, self.applied);
        if let Some(stop) = self.stop {
            member.stop(stop);
        }
    }

    /// The stored checkpoint is where the part begins, and the part applies nothing.
    fn compared(self, members: &mut [Member]) {
        let member = &mut members[self.member];
        member.advance(self.work.to, 0);
        if let Some(stop) = self.stop {
            member.stop(stop);
        }
    }
}

/// Moves the projections on as far as their parts say. If any event was applied, all parts are committed: also changes that
/// cancel out are a step that no other process may take again. Else the stored checkpoints are compared, and follow later.
/// False if it was cancelled while waiting.
pub(crate) async fn move_on(shared: &Shared, members: &mut [Member], parts: Vec<Part>) -> bool {
    match parts.iter().any(|part| part.applied > 0) {
        true => commit(shared, members, parts).await,
        false => compare(shared, members, parts, false).await,
    }
}

/// Commits all parts in one transaction and moves the projections on. A part that the database refuses stops its projection
/// and the others go without it; so does one that others block by their locks. Any other fault that may pass is waited out. False if it
/// was cancelled while waiting.
pub(crate) async fn commit(shared: &Shared, members: &mut [Member], mut parts: Vec<Part>) -> bool {
    let mut backoff = Backoff::default();
    let mut unanswered = false;
    while !parts.is_empty() {
        let work: Vec<&Work> = parts.iter().map(|part| &part.work).collect();
        let fault = match shared.database.commit(&work, shared.clock.now()).await {
            Ok(moved) => {
                let mut overtaken = Vec::new();
                for (part, moved) in parts.into_iter().zip(moved) {
                    match moved {
                        Moved::Done => part.committed(members),
                        Moved::Overtaken => overtaken.push(part),
                    }
                }
                return compare(shared, members, overtaken, unanswered).await;
            }
            Err(fault) => fault,
        };
        let beside_others = members.iter().filter(|member| member.is_running()).count() > 1;
        if fault.blocked && beside_others && !unanswered {
            // Whose locks are meant shows when each is committed by itself.
            let Some(left) = commit_each(shared, members, parts).await else { return false };
            (parts, unanswered) = (left, true);
            continue;
        }
        if fault.transient {
            unanswered = true;
            if !wait_to_retry(shared, members, &parts, &fault, backoff.next_wait()).await {
                return false;
            }
            continue;
        }
        match fault.part.filter(|part| *part < parts.len()) {
            Some(part) => members[parts.remove(part).member].stop_by(fault),
            None => {
                stop_all(members, parts, fault);
                return true;
            }
        }
    }
    true
}

/// Commits each part by itself. One that is blocked is left to its projection, which does not go on with the others; gives those that
/// had another fault that may pass. `None` if it was cancelled while waiting.
async fn commit_each(shared: &Shared, members: &mut [Member], parts: Vec<Part>) -> Option<Vec<Part>> {
    let now = shared.clock.now();
    let commits = parts.iter().map(|part| async move { shared.database.commit(&[&part.work], now).await });
    let commits = join_all(commits).await;
    let (mut left, mut overtaken) = (Vec::new(), Vec::new());
    for (part, committed) in parts.into_iter().zip(commits) {
        match committed {
            Ok(moved) if moved.contains(&Moved::Done) => part.committed(members),
            Ok(_) => overtaken.push(part),
            Err(fault) if fault.blocked => members[part.member].block(&fault),
            Err(fault) if fault.transient => left.push(part),
            Err(fault) => members[part.member].stop_by(fault),
        }
    }
    compare(shared, members, overtaken, false).await.then_some(left)
}

/// Compares where the stored checkpoints are: a projection whose checkpoint is where its part begins moves on if the part
/// applies nothing, any other continues from its stored checkpoint. `unanswered` says that the parts may have been committed
/// all the same. False if it was cancelled while waiting.
async fn compare(shared: &Shared, members: &mut [Member], parts: Vec<Part>, unanswered: bool) -> bool {
    if parts.is_empty() {
        return true;
    }
    let units: Vec<UnitId> = parts.iter().map(|part| members[part.member].unit()).collect();
    let mut backoff = Backoff::default();
    let stored = loop {
        match shared.database.places(&units).await {
            Ok(stored) => break stored,
            Err(fault) if fault.transient => {
                if !wait_to_retry(shared, members, &parts, &fault, backoff.next_wait()).await {
                    return false;
                }
            }
            Err(fault) => {
                stop_all(members, parts, fault);
                return true;
            }
        }
    };
    for (part, stored) in parts.into_iter().zip(stored) {
        match stored {
            None => members[part.member].stop_for_good(StopCause::CheckpointRemoved),
            // Another process owns it, or nobody may.
            Some(stored) if stored.epoch != part.work.from.epoch => members[part.member].given_up(),
            Some(stored) if part.applied == 0 && stored == part.work.from => part.compared(members),
            Some(stored) if unanswered && stored.checkpoint == part.work.to => part.committed(members),
            // Somebody has put the checkpoint elsewhere. Whether this projection must stop
            // is judged again from there.
            Some(stored) => {
                if !continue_from(shared, &mut members[part.member], stored.checkpoint).await {
                    return false;
                }
            }
        }
    }
    true
}

/// Goes on from a checkpoint that others have stored, unless it is one of another log. False if it was cancelled while waiting.
async fn continue_from(shared: &Shared, member: &mut Member, stored: Checkpoint) -> bool {
    let mut backoff = Backoff::default();
    loop {
        match check_log(shared.store.as_ref(), &stored).await {
            Ok(()) => member.overtaken(stored),
            Err(error) if error.is_transient() => {
                member.set_retrying(&error);
                if !pause(shared, backoff.next_wait()).await {
                    return false;
                }
                continue;
            }
            Err(error) => member.stop_for_good(StopCause::Read(Arc::new(error))),
        }
        return true;
    }
}

/// Whether a stored checkpoint is one of this log. The beginning is if the incarnation is; nothing need be read for that.
pub(crate) async fn check_log(store: &dyn EventStore, stored: &Checkpoint) -> Result<(), ReadError> {
    if stored.position == Position::START {
        return stored.check(store.incarnation(), None);
    }
    store.check_checkpoint(stored).await
}

async fn wait_to_retry(shared: &Shared, members: &[Member], parts: &[Part], fault: &Fault, wait: Duration) -> bool {
    for part in parts {
        members[part.member].set_retrying(&fault.source);
    }
    pause(shared, wait).await
}

/// False if it was cancelled meanwhile.
async fn pause(shared: &Shared, wait: Duration) -> bool {
    tokio::select! {
        biased;
        () = shared.cancel.cancelled() => false,
        () = sleep(wait) => true,
    }
}

fn stop_all(members: &mut [Member], parts: Vec<Part>, fault: Fault) {
    let source = Arc::new(fault.source);
    for part in parts {
        let source = BackendError::new(Arc::clone(&source));
        members[part.member].stop_for_good(StopCause::Database(source));
    }
}
