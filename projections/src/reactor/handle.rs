//! What the handle on running projections offers about reactors.

use annals_eventstore::StreamId;

use super::reactor::Reactor;
use super::start::KnownReactor;
use super::status::ReactorStatus;
use crate::control::refused;
use crate::error::{ControlError, EventPlace};
use crate::handle::Projections;

/// A stream that a reactor has set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParkedStream {
    /// The event that could not be handled. It and all later ones of its stream wait.
    pub event: EventPlace,
    /// Why.
    pub error: String,
}

impl Projections {
    /// The state of every reactor that was started here, in the order in which they were added.
    /// [`Reactor`] has an example. [`Projections::stopped`] also waits for reactors.
    #[must_use]
    pub fn reactors(&self) -> Vec<ReactorStatus> {
        self.known_reactors().iter().map(|reactor| reactor.status.borrow().clone()).collect()
    }

    /// The streams that the reactor `R` has set aside, those that are being retried too, in the order of their events, in whichever
    /// process it runs: see [`Reacting::dead_letter`](crate::Reacting::dead_letter).
    ///
    /// # Errors
    /// [`ControlError::UnknownReactor`] if `R` was not started here; others as of [`Projections::pause`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn parked<R: Reactor>(&self) -> Result<Vec<ParkedStream>, ControlError> {
        self.known_reactor(R::NAME)?;
        let failing = self.shared().database.failing(R::NAME, false).await.map_err(refused)?;
        let parked = failing.into_iter().filter(|failing| failing.parked);
        Ok(parked.map(|failing| ParkedStream { event: failing.place, error: failing.error }).collect())
    }

    /// Lets the reactor `R` handle a parked stream again, from the event that failed: that one and all later ones, in order. When all
    /// are handled, the stream is not parked any more. If one fails, the stream is parked from there. False if it is not parked.
    ///
    /// Any process may ask for it. That it is wanted is stored when this returns, and the process that runs the reactor begins
    /// within a second; if none runs it, the next one that does. [`Projections::parked`] shows what is left. A retry that has
    /// begun ends with the process: after a restart the stream is parked still, and what was handled since is handled again when
    /// it is retried.
    ///
    /// # Errors
    /// As of [`Projections::parked`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the retry was asked for.
    pub async fn retry_parked<R: Reactor>(&self, stream: &StreamId) -> Result<bool, ControlError> {
        let reactor = self.known_reactor(R::NAME)?;
        let asked = self.shared().database.ask_again(R::NAME, stream).await.map_err(refused)?;
        reactor.asked.notify_one();
        Ok(asked)
    }

    fn known_reactor(&self, name: &'static str) -> Result<&KnownReactor, ControlError> {
        let all = self.known_reactors();
        let unknown = || {
            let known: Vec<String> = all.iter().map(|known| format!("`{}`", known.name)).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            ControlError::UnknownReactor { name, known }
        };
        all.iter().find(|reactor| reactor.name == name).ok_or_else(unknown)
    }
}
