//! Every stop of projections and reactors, for alerts.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::select_all;
use tokio::sync::watch;

use crate::error::Stopped;
use crate::handle::Projections;
use crate::reactor::{ReactorState, ReactorStatus};
use crate::status::{ProjectionState, ProjectionStatus};

/// The stops of projections and reactors, one after the other: [`Projections::stops`] makes it.
pub struct Stops(Vec<Watched>);

/// One projection or reactor.
struct Watched {
    status: Status,
    /// The stops that were given and have not ended.
    given: Vec<Stopped>,
    ended: bool,
}

enum Status {
    Projection(watch::Receiver<ProjectionStatus>),
    Reactor(watch::Receiver<ReactorStatus>),
}

impl Projections {
    /// The stops of all projections and reactors of this handle, for alerts: those that there are already, and each later one.
    /// [`Projections::stopped`] knows the first alone.
    ///
    /// ```
    /// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
    /// # use till::*;
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("till.db");
    /// use annals_projections::ProjectionsExt;
    ///
    /// let store = annals_eventstore::sqlite(&path).await?;
    /// let views = store.projections().with(PerTill).start().await?;
    /// let mut stops = views.stops();
    /// let alerts = tokio::spawn(async move {
    ///     while let Some(stopped) = stops.next().await {
    ///         eprintln!("{stopped}"); // send it to somebody
    ///     }
    /// });
    /// views.close().await;
    /// alerts.await?; // all are closed, so that there will be no other
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    #[must_use]
    pub fn stops(&self) -> Stops {
        let projections = self.names().fed.iter().map(|fed| Status::Projection(fed.status.clone()));
        let reactors = self.known_reactors().iter().map(|reactor| Status::Reactor(reactor.status.clone()));
        let watched = projections.chain(reactors);
        Stops(watched.map(|status| Watched { status, given: Vec::new(), ended: false }).collect())
    }
}

impl Stops {
    /// Waits for the next stop; `None` when all are closed. What was started again and stops once more is given once more.
    ///
    /// # Cancel safety
    /// Dropping the future loses no stop.
    pub async fn next(&mut self) -> Option<Stopped> {
        loop {
            if let Some(stopped) = self.0.iter_mut().find_map(Watched::not_given) {
                return Some(stopped);
            }
            let waiting = self.0.iter_mut().filter(|watched| !watched.ended);
            let waiting: Vec<_> = waiting.map(|watched| watched.changed().boxed()).collect();
            if waiting.is_empty() {
                return None;
            }
            select_all(waiting).await;
        }
    }
}

impl Watched {
    /// A stop that was not given yet.
    fn not_given(&mut self) -> Option<Stopped> {
        let (stopped, closed) = match &mut self.status {
            Status::Projection(status) => {
                let status = status.borrow_and_update();
                let stopped = status.slots.iter().filter_map(|slot| stopped_of(&slot.state).cloned());
                (stopped.collect::<Vec<_>>(), matches!(status.state, ProjectionState::Closed))
            }
            Status::Reactor(status) => match &status.borrow_and_update().state {
                ReactorState::Stopped(stopped) => (vec![stopped.clone()], false),
                state => (Vec::new(), matches!(state, ReactorState::Closed)),
            },
        };
        self.ended |= closed;
        self.given.retain(|given| stopped.iter().any(|stopped| is_same(stopped, given)));
        let new = stopped.into_iter().find(|stopped| !self.given.iter().any(|given| is_same(stopped, given)))?;
        self.given.push(new.clone());
        Some(new)
    }

    async fn changed(&mut self) {
        let changed = match &mut self.status {
            Status::Projection(status) => status.changed().await,
            Status::Reactor(status) => status.changed().await,
        };
        self.ended |= changed.is_err();
    }
}

fn stopped_of(state: &ProjectionState) -> Option<&Stopped> {
    match state {
        ProjectionState::Stopped(stopped) => Some(stopped),
        _ => None,
    }
}

/// What stops all slots of a projection at once is one stop.
fn is_same(one: &Stopped, other: &Stopped) -> bool {
    Arc::ptr_eq(&one.cause, &other.cause)
}
