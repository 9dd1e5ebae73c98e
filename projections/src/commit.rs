//! Committing what projections made of a batch: together, and without those that cannot.

use tokio::time::sleep;

use crate::backoff::Backoff;
use crate::database::{Moved, Work};
use crate::error::StopCause;
use crate::folding::Stop;
use crate::member::Member;
use crate::pass::Shared;

/// What one projection has to commit.
pub(crate) struct Part {
    /// Which of the pass's projections.
    member: usize,
    work: Work,
    /// How many events it stands for.
    applied: usize,
    /// Why the projection stops behind it, if it does.
    stop: Option<Stop>,
}

impl Part {
    pub(crate) fn of(member: usize, work: Work, applied: usize, stop: Option<Stop>) -> Self {
        Self { member, work, applied, stop }
    }
}

/// Commits all parts in one transaction and moves the projections on. A part that the database refuses stops its projection
/// and the others go without it; a fault that may pass is waited out. False if it was cancelled while waiting.
pub(crate) async fn commit(shared: &Shared, members: &mut [Member], mut parts: Vec<Part>) -> bool {
    let mut backoff = Backoff::default();
    let mut unanswered = false;
    while !parts.is_empty() {
        let work: Vec<&Work> = parts.iter().map(|part| &part.work).collect();
        let fault = match shared.database.commit(&work, shared.clock.now()).await {
            Ok(moved) => {
                for (part, moved) in parts.into_iter().zip(moved) {
                    move_on(shared, &mut members[part.member], part, moved, unanswered).await;
                }
                return true;
            }
            Err(fault) => fault,
        };
        if fault.transient {
            unanswered = true;
            for part in &parts {
                members[part.member].hold_up(&fault.source);
            }
            tokio::select! {
                biased;
                () = shared.cancel.cancelled() => return false,
                () = sleep(backoff.next()) => {}
            }
            continue;
        }
        match fault.part.filter(|part| *part < parts.len()) {
            Some(part) => members[parts.remove(part).member].stop_by(fault),
            None => {
                let source = std::sync::Arc::new(fault.source);
                for part in parts {
                    let source = annals_eventstore::BackendError::new(std::sync::Arc::clone(&source));
                    members[part.member].stop_for_good(StopCause::Database(source));
                }
                return true;
            }
        }
    }
    true
}

/// `unanswered` says that an earlier try may have been committed all the same.
async fn move_on(shared: &Shared, member: &mut Member, part: Part, moved: Moved, unanswered: bool) {
    if moved == Moved::Done {
        member.committed(part.work.to, part.applied);
        if let Some(stop) = part.stop {
            member.stop(stop);
        }
        return;
    }
    // Another process was faster, or the earlier try was committed after all; the stored checkpoint tells how far. Whether
    // this projection must stop is judged again from there.
    let mut backoff = Backoff::default();
    loop {
        match shared.database.checkpoint(&member.model).await {
            Ok(Some(stored)) if unanswered && stored.position == part.work.to.position => {
                member.committed(stored, part.applied);
                return;
            }
            Ok(Some(stored)) => {
                member.overtaken(stored);
                return;
            }
            Ok(None) => {
                member.stop_for_good(StopCause::CheckpointRemoved);
                return;
            }
            Err(fault) if fault.transient => {
                member.hold_up(&fault.source);
                tokio::select! {
                    biased;
                    () = shared.cancel.cancelled() => return,
                    () = sleep(backoff.next()) => {}
                }
            }
            Err(fault) => {
                member.stop_by(fault);
                return;
            }
        }
    }
}
