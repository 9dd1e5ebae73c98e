//! Applying events in transactions, each of which moves the checkpoint past them.

use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{BackendError, Backoff, Checkpoint};
use tokio::time::{Instant, sleep};
use tracing::{Instrument, Span};

use super::typed::{NotApplied, TransactionEvents};
use crate::batch::Batch;
use crate::changes::Changes;
use crate::commit::{Part, move_on};
use crate::database::{Applying, Fault};
use crate::error::StopCause;
use crate::folding::Stop;
use crate::member::{Member, chain};
use crate::metrics;
use crate::pass::{MOST_TRIES, Shared, begin_try, other_log};

/// The most events of a transaction.
pub(crate) const MOST_AT_ONCE: usize = 500;

/// A transaction ends behind the first event after this time. On SQLite nobody else writes meanwhile.
const LONGEST: Duration = Duration::from_millis(50);

/// Applies what the projection of a pass of its own wants of a batch that accounts for the log up to `checkpoint`.
pub(crate) async fn process(shared: &Shared, members: &mut [Member], batch: &Batch, checkpoint: Checkpoint) {
    let [member] = &mut *members else { return };
    if let Some(cause) = other_log(member, checkpoint) {
        return member.stop_for_good(cause);
    }
    let projection = Arc::clone(&member.projection);
    let Some(events) = projection.in_transaction().map(|own| own.events(batch, member.position())) else { return };
    if events.len() == 0 {
        let part = Part::of(0, member.work(checkpoint, Changes::default()), 0, None);
        move_on(shared, members, vec![part]).await;
        return;
    }
    let mut run = Run { shared, events, checkpoint, done: 0, most: MOST_AT_ONCE, tried: None };
    let mut backoff = Backoff::default();
    while run.done < run.events.len() && !shared.cancel.is_cancelled() {
        let attempt = match run.begin_try(member).await {
            Some(attempt) => attempt,
            None => run.attempt(member).await,
        };
        match attempt {
            Attempt::Done(applied, to) => {
                let delay = member.is_live().then(|| member.since(run.events.recorded_at(run.done)));
                metrics::committed(&member.model, applied, delay);
                member.committed(to, applied);
                run.done += applied;
                backoff = Backoff::default();
            }
            Attempt::Fewer(most) => run.most = most,
            Attempt::Stopped(stop) => return member.stop(stop),
            Attempt::Elsewhere => {
                let part = Part::comparing(0, member);
                move_on(shared, members, vec![part]).await;
                return;
            }
            Attempt::MayPass(source) => {
                member.set_retrying(&source);
                tokio::select! {
                    () = shared.cancel.cancelled() => return,
                    () = sleep(backoff.next_wait()) => {}
                }
            }
            Attempt::Cancelled => return,
        }
    }
}

/// A batch on its way.
struct Run<'a> {
    shared: &'a Shared,
    events: Box<dyn TransactionEvents>,
    checkpoint: Checkpoint,
    /// How many events are applied and committed.
    done: usize,
    /// How many are tried in one transaction.
    most: usize,
    /// The event whose try was counted last, where events are tried one by one.
    tried: Option<usize>,
}

/// What became of a transaction.
enum Attempt {
    /// So many events are committed, and the checkpoint is here.
    Done(usize, Checkpoint),
    /// Nothing is committed; so many events should be tried alone.
    Fewer(usize),
    /// Nothing is committed, and nothing would be.
    Stopped(Stop),
    /// The checkpoint is elsewhere, or another process owns it.
    Elsewhere,
    /// Nothing is committed, or the outcome is unknown; the next one finds out.
    MayPass(BackendError),
    Cancelled,
}

impl Run<'_> {
    /// Where a process has ended without saying so, counts that an event is about to be applied alone. `None` if it may be.
    async fn begin_try(&mut self, member: &Member) -> Option<Attempt> {
        if !member.is_careful() || self.tried == Some(self.done) {
            return None;
        }
        let Some(begun) = begin_try(self.shared, member, self.events.place(self.done).position).await else {
            return Some(Attempt::Cancelled);
        };
        match begun {
            Ok(Some(tries)) if tries > MOST_TRIES => {
                Some(self.stopped_at(self.done, StopCause::ProcessEnded(MOST_TRIES)))
            }
            Ok(Some(_)) => {
                self.tried = Some(self.done);
                None
            }
            Ok(None) => Some(Attempt::Elsewhere),
            Err(fault) => Some(Attempt::Stopped(Stop::of(StopCause::Database(fault.source)))),
        }
    }

    /// Applies as many events as fit into one transaction.
    async fn attempt(&self, member: &Member) -> Attempt {
        let begun = Instant::now();
        let mut transaction = match self.shared.database.begin_applying(&member.model, &member.saved()).await {
            Ok(Some(transaction)) => transaction,
            Ok(None) => return Attempt::Elsewhere,
            Err(Fault { transient: true, source, .. }) => return Attempt::MayPass(source),
            Err(fault) => return Attempt::Stopped(Stop::of(StopCause::Database(fault.source))),
        };
        let most = if member.is_careful() { 1 } else { self.most };
        let mut end = self.done;
        while end < self.events.len() && end - self.done < most {
            if let Err(failed) = self.apply(member, end, transaction.as_mut()).await {
                if transaction.may_have_stored().await {
                    return self.ended(end + 1);
                }
                return match failed {
                    Failed::MayPass(source) => Attempt::MayPass(source),
                    Failed::Cause(_) if end > self.done => Attempt::Fewer(end - self.done),
                    Failed::Cause(cause) => self.stopped_at(end, cause),
                };
            }
            end += 1;
            if begun.elapsed() >= LONGEST || self.shared.cancel.is_cancelled() {
                break;
            }
        }
        let to = match end == self.events.len() {
            true => self.checkpoint,
            false => self.events.checkpoint(self.checkpoint.incarnation, end),
        };
        match transaction.commit(&to, self.shared.clock.now()).await {
            Ok(true) => Attempt::Done(end - self.done, to),
            Err(Fault { transient: true, source, .. }) => Attempt::MayPass(source),
            // One of them has left the transaction in a state that cannot be committed; alone it shows which.
            Err(_) if end - self.done > 1 => Attempt::Fewer(1),
            Err(fault) => self.stopped_at(self.done, StopCause::Database(fault.source)),
            Ok(false) => self.ended(end),
        }
    }

    /// One of the events before `end` has ended the transaction. What was written by then may be stored, so none of it is run again.
    fn ended(&self, end: usize) -> Attempt {
        match end - self.done {
            1 => self.stopped_at(self.done, StopCause::TransactionEnded),
            _ => Attempt::Stopped(Stop::of(StopCause::TransactionEnded)),
        }
    }

    /// Applies one event.
    async fn apply(&self, member: &Member, index: usize, transaction: &mut dyn Applying) -> Result<(), Failed> {
        // A rebuild says nothing of old events.
        let span = member.is_live().then(|| self.events.span(index)).flatten().unwrap_or_else(Span::none);
        let applied = self.events.apply(index, &mut transaction.connection()).instrument(span).await;
        if let Err(NotApplied::Error(error)) = &applied
            && let Some(source) = error.source().filter(|source| transaction.may_pass(*source))
        {
            return Err(Failed::MayPass(BackendError::new(chain(source))));
        }
        if transaction.is_ended() {
            return Err(Failed::Cause(StopCause::TransactionEnded));
        }
        applied.map_err(|failed| match failed {
            NotApplied::Error(error) => Failed::Cause(error.into()),
            NotApplied::Cause(cause) => Failed::Cause(cause),
        })
    }

    fn stopped_at(&self, index: usize, cause: StopCause) -> Attempt {
        Attempt::Stopped(Stop { event: Some(self.events.place(index)), cause })
    }
}

/// Why an event could not be applied.
enum Failed {
    MayPass(BackendError),
    Cause(StopCause),
}
