//! What the handle on running projections offers about reactors.

use std::sync::PoisonError;

use annals_eventstore::StreamId;
use tokio::sync::oneshot;

use super::engine::Request;
use super::reactor::Reactor;
use super::start::KnownReactor;
use super::status::ReactorStatus;
use crate::error::EventPlace;
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

/// Why parked streams could not be listed or retried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParkedError {
    /// The reactor was not started with this handle. Ask where it was.
    #[error("no reactor `{name}` was started here; ask the handle that `start` gave where it was")]
    Unknown {
        /// Its name.
        name: &'static str,
    },
    /// The reactor does not run here any more: it has stopped, was closed, or another process runs it now. Its status says
    /// which.
    #[error("reactor `{name}` does not run here any more; its status says why")]
    NotRunning {
        /// Its name.
        name: &'static str,
    },
    /// The stream is not parked, so there is nothing to retry.
    #[error("stream `{stream}` is not parked by reactor `{name}`; there is nothing to retry")]
    NotParked {
        /// The reactor's name.
        name: &'static str,
        /// The stream.
        stream: StreamId,
    },
}

impl Projections {
    /// The state of every reactor that was started here, in the order in which they were added.
    /// [`Reactor`] has an example. [`Projections::stopped`] also waits for reactors.
    #[must_use]
    pub fn reactors(&self) -> Vec<ReactorStatus> {
        self.known_reactors().iter().map(|reactor| reactor.status.borrow().clone()).collect()
    }

    /// The streams that the reactor `R` has set aside, those that are being retried too: see [`Reacting::dead_letter`](crate::Reacting::dead_letter).
    ///
    /// # Errors
    /// [`ParkedError::Unknown`] or [`ParkedError::NotRunning`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn parked<R: Reactor>(&self) -> Result<Vec<ParkedStream>, ParkedError> {
        let parked = self.ask::<R, _>(Request::Parked).await?;
        Ok(parked.into_iter().map(|failing| ParkedStream { event: failing.place, error: failing.error }).collect())
    }

    /// Lets the reactor `R` handle a parked stream again, from the event that failed: that one and all later ones, in order. When all
    /// are handled, the stream is not parked any more. If one fails, the stream is parked from there.
    ///
    /// Returns when the retry has begun; [`Projections::parked`] shows what is left. It ends with the process: after a restart
    /// the stream is parked still, and what was handled since is handled again when it is retried.
    ///
    /// # Errors
    /// [`ParkedError::NotParked`] if the stream is not parked; [`ParkedError::Unknown`] or [`ParkedError::NotRunning`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the retry has begun.
    pub async fn retry_parked<R: Reactor>(&self, stream: &StreamId) -> Result<(), ParkedError> {
        match self.ask::<R, _>(|answer| Request::Retry(stream.clone(), answer)).await? {
            true => Ok(()),
            false => Err(ParkedError::NotParked { name: R::NAME, stream: stream.clone() }),
        }
    }

    async fn ask<R: Reactor, T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, ParkedError> {
        let is_its_own = |reactor: &&KnownReactor| reactor.name == R::NAME;
        let reactor = self.known_reactors().iter().find(is_its_own).ok_or(ParkedError::Unknown { name: R::NAME })?;
        let gone = ParkedError::NotRunning { name: R::NAME };
        let (answer, answered) = oneshot::channel();
        let requests = reactor.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match requests.map(|requests| requests.send(request(answer))) {
            Some(Ok(())) => answered.await.map_err(|_| gone),
            Some(Err(_)) | None => Err(gone),
        }
    }
}
