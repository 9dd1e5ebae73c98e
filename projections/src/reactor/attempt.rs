//! One try of one event: what is stored before it, the handler under its time limit, and what follows from its outcome.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{Backoff, Clock};
use futures::FutureExt;
use jiff::SignedDuration;
use tokio::time::timeout;
use tracing::Instrument;

use super::keeper::{Failing, Kept, ReactorKeeper};
use super::lanes::Turn;
use super::reactions::Reactions;
use super::reactor::Options;
use crate::database::Fault;
use crate::error::StopCause;
use crate::fold::panic_text;
use crate::member::chain;

/// The wait after the first failure, and the longest one.
const FIRST_WAIT: Duration = Duration::from_millis(200);
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// After so many tries without an outcome the event is taken for what ends the process.
const MOST_UNFINISHED: u32 = 5;

/// What all tries of a reactor share.
#[derive(Clone)]
pub(crate) struct Attempts {
    pub(crate) reactor: &'static str,
    pub(crate) options: Options,
    pub(crate) keeper: Arc<dyn ReactorKeeper>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What became of a try.
pub(crate) enum Outcome {
    Done,
    /// It is tried again after a wait, from this part on.
    Failed {
        failing: Failing,
        wait: Duration,
        part: usize,
    },
    /// Its stream is set aside, which is stored.
    Parked(Failing),
    /// The reactor stops before this event.
    Stop(StopCause),
    /// The database did not store what must be stored first, and may later. `failing` is what is known of the event.
    NotStored {
        fault: Fault,
        failing: Option<Failing>,
        part: usize,
    },
    /// The reactor is not this run's any more.
    Lost,
}

/// Why a part could not be handled.
struct Failure {
    part: usize,
    permanent: bool,
    cause: StopCause,
}

impl Attempts {
    /// Tries an event. `careful` says that the try is stored before it is made, also if it is the first.
    pub(crate) async fn run(self, turn: Turn, careful: bool) -> Outcome {
        let Turn { item, failing, part, parked } = turn;
        let place = item.place().clone();
        let known = failing.is_some() || careful;
        let new = || Failing { parked, ..Failing::new(place.clone(), self.clock.now()) };
        let mut failing = failing.unwrap_or_else(new);
        if failing.unfinished >= MOST_UNFINISHED {
            let why = format!("the process ended {} times while the event was handled", failing.unfinished);
            let cause = StopCause::React(why.into());
            return self.failed(failing, Failure { part, permanent: true, cause }).await;
        }
        if known {
            failing.unfinished += 1;
            match self.keeper.keep(&failing).await {
                Ok(Kept::Done) => failing.unfinished -= 1,
                Ok(Kept::Lost) => return Outcome::Lost,
                Err(fault) => {
                    failing.unfinished -= 1;
                    return not_stored(fault, Some(failing), part);
                }
            }
        }
        let span = tracing::info_span!(
            "react",
            reactor = self.reactor,
            position = place.position.get(),
            stream = %place.stream,
            event = &*place.name,
            trace_parent = tracing::field::Empty,
        );
        if let Some(trace_parent) = item.page.trace_parent(item.at) {
            span.record("trace_parent", trace_parent);
        }
        let handled = self.handle(Arc::clone(&item.page), item.at, part).instrument(span).await;
        match handled {
            Ok(()) if known && !parked => match self.keeper.forget(&place.stream).await {
                Ok(Kept::Lost) => Outcome::Lost,
                Ok(Kept::Done) => Outcome::Done,
                Err(fault) => {
                    // It is forgotten with the next checkpoint.
                    tracing::debug!(reactor = self.reactor, fault = %fault.source, "a handled event is still stored as failing");
                    Outcome::Done
                }
            },
            Ok(()) => Outcome::Done,
            Err(failure) => self.failed(failing, failure).await,
        }
    }

    /// Reacts to the parts of an event, from `part` on.
    async fn handle(&self, page: Arc<dyn Reactions>, at: usize, part: usize) -> Result<(), Failure> {
        let parts = page.parts(at).map_err(|unreadable| Failure {
            part,
            permanent: true,
            cause: StopCause::from(unreadable),
        })?;
        for part in part..parts {
            let failed = |permanent, cause| Failure { part, permanent, cause };
            let page = Arc::clone(&page);
            let limit = self.options.time_limit;
            // What a future does when it is dropped is guarded too.
            let limited = async move { timeout(limit, page.react(at, part)).await };
            match AssertUnwindSafe(limited).catch_unwind().await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => {
                    return Err(failed(error.is_permanent(), StopCause::React(error.source)));
                }
                Ok(Err(_)) => {
                    let why = format!("it took longer than its time limit of {limit:?}");
                    return Err(failed(false, StopCause::React(why.into())));
                }
                Err(panic) => {
                    let why = format!("it panicked: {}", panic_text(panic.as_ref()));
                    return Err(failed(true, StopCause::React(why.into())));
                }
            }
        }
        Ok(())
    }

    /// What follows from a failure, once it is stored.
    async fn failed(&self, mut failing: Failing, failure: Failure) -> Outcome {
        let Failure { part, permanent, cause } = failure;
        failing.tries = failing.tries.saturating_add(1);
        let text = error_of(&cause);
        failing.set_error(&text);
        if !permanent && self.options.tries.is_none_or(|most| failing.tries < most) {
            return self.try_again(failing, part).await;
        }
        let cause = match permanent {
            true => cause,
            false => StopCause::React(format!("the last of {} tries failed: {text}", failing.tries).into()),
        };
        // A parked stream stays parked, whatever the policy is by now: the checkpoint is behind its events.
        if self.options.dead_letter || failing.parked {
            failing.parked = true;
            return match self.keeper.keep(&failing).await {
                Ok(Kept::Done) => {
                    tracing::error!(reactor = self.reactor, event = %failing.place, reason = text, "stream parked");
                    Outcome::Parked(failing)
                }
                Ok(Kept::Lost) => Outcome::Lost,
                Err(fault) => not_stored(fault, None, part),
            };
        }
        // When it is started again, its tries begin anew.
        match self.keeper.forget(&failing.place.stream).await {
            Ok(Kept::Lost) => Outcome::Lost,
            Ok(Kept::Done) => Outcome::Stop(cause),
            Err(fault) => {
                tracing::warn!(reactor = self.reactor, fault = %fault.source, "the tries of the event are not forgotten");
                Outcome::Stop(cause)
            }
        }
    }

    async fn try_again(&self, mut failing: Failing, part: usize) -> Outcome {
        let wait = wait_after(failing.tries);
        let later = SignedDuration::try_from(wait).ok().and_then(|wait| self.clock.now().checked_add(wait).ok());
        failing.next_try_at = later.unwrap_or(failing.next_try_at);
        tracing::warn!(
            reactor = self.reactor,
            event = %failing.place,
            tries = failing.tries,
            reason = failing.error,
            "to be tried again"
        );
        match self.keeper.keep(&failing).await {
            Ok(Kept::Lost) => Outcome::Lost,
            Ok(Kept::Done) => Outcome::Failed { failing, wait, part },
            Err(fault) if !fault.transient => not_stored(fault, Some(failing), part),
            // It is stored before the next try.
            Err(_) => Outcome::Failed { failing, wait, part },
        }
    }
}

fn not_stored(fault: Fault, failing: Option<Failing>, part: usize) -> Outcome {
    match fault.transient {
        true => Outcome::NotStored { fault, failing, part },
        false => Outcome::Stop(StopCause::Database(fault.source)),
    }
}

/// The error itself, without what says that it was a reactor's.
fn error_of(cause: &StopCause) -> String {
    match cause {
        StopCause::React(source) => chain(&**source),
        other => chain(other),
    }
}

/// The wait after so many tries. They grow also over a restart, as they follow from the number of tries.
fn wait_after(tries: u32) -> Duration {
    let mut backoff = Backoff::between(FIRST_WAIT, LONGEST_WAIT);
    for _ in 1..tries.min(20) {
        backoff.next_wait();
    }
    backoff.next_wait()
}
