//! The handle on projections that run.

use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{EventStore, Position};
use futures::future::select_all;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::builder::Over;
use crate::error::{Stopped, WaitError};
use crate::projection::Projection;
use crate::status::{ProjectionState, ProjectionStatus};

/// Projections that run. Cloning is cheap; when the last clone is dropped they are closed, without anybody waiting for it.
///
/// [`ProjectionsBuilder::start`](crate::ProjectionsBuilder::start) makes it; [`Projections::wait_for`] has an example.
/// Close it before the store whose events it reads; a projection whose store was closed stops and says so.
#[derive(Clone)]
pub struct Projections(Arc<Inner>);

struct Inner {
    statuses: Vec<watch::Receiver<ProjectionStatus>>,
    tracker: TaskTracker,
    cancel: CancellationToken,
    _cancel_on_drop: DropGuard,
}

impl Projections {
    /// Projections of the events of `store`, into a database that need not be the store's own.
    ///
    /// ```
    /// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
    /// # use till::*;
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("reports.db");
    /// use std::time::Duration;
    ///
    /// use annals_eventstore::{EventStore, EventStoreExt, ExpectedVersion, MemoryStore, SqliteDatabase};
    /// use annals_eventstore::{StreamId, Tenant};
    /// use annals_projections::Projections;
    ///
    /// let store = MemoryStore::new();
    /// let reports = SqliteDatabase::open(&path).await?;
    /// let views = Projections::over(store.clone()).into_database(reports.clone()).with(PerTill).start().await?;
    ///
    /// let stream = StreamId::new(Tenant::default(), "till", "t-1")?;
    /// let sold = store.new_event(&TillEvent::Sold { cents: 4_50 })?;
    /// let done = store.append(&stream, ExpectedVersion::Any, vec![sold]).await?;
    ///
    /// views.wait_for(done.position, Duration::from_secs(2)).await?;
    /// let mut reader = reports.read().await?;
    /// let cents: i64 = sqlx::query_scalar("SELECT sum(cents) FROM takings").fetch_one(&mut *reader).await?;
    /// assert_eq!(cents, 4_50);
    /// # views.close().await;
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn over(store: impl EventStore) -> Over {
        Over::new(Arc::new(store))
    }

    pub(crate) fn new(
        statuses: Vec<watch::Receiver<ProjectionStatus>>,
        tracker: TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let _cancel_on_drop = cancel.clone().drop_guard();
        Self(Arc::new(Inner { statuses, tracker, cancel, _cancel_on_drop }))
    }

    /// How every projection fares at this moment, in the order in which they were added.
    #[must_use]
    pub fn status(&self) -> Vec<ProjectionStatus> {
        self.0.statuses.iter().map(|status| status.borrow().clone()).collect()
    }

    /// Waits until every projection has applied everything up to `position`, `timeout` at most: with the position of an
    /// append, this is how to read one's own writes. Needs a tokio runtime with timers.
    ///
    /// ```
    /// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
    /// # use till::*;
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("till.db");
    /// use std::time::Duration;
    ///
    /// use annals_eventstore::{EventStore, EventStoreExt, ExpectedVersion, StreamId, Tenant};
    /// use annals_projections::ProjectionsExt;
    ///
    /// let store = annals_eventstore::sqlite(&path).await?;
    /// let views = store.projections().with(PerTill).start().await?;
    ///
    /// let stream = StreamId::new(Tenant::default(), "till", "t-1")?;
    /// let sold = store.new_event(&TillEvent::Sold { cents: 4_50 })?;
    /// let done = store.append(&stream, ExpectedVersion::Any, vec![sold]).await?;
    ///
    /// views.wait_for(done.position, Duration::from_secs(2)).await?;
    /// let mut reader = store.database().read().await?;
    /// let cents: i64 = sqlx::query_scalar("SELECT cents FROM takings WHERE till = 't-1'").fetch_one(&mut *reader).await?;
    /// assert_eq!(cents, 4_50);
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`WaitError::TimedOut`] after `timeout`, saying how far each has got; [`WaitError::Stopped`] or
    /// [`WaitError::Closed`] at once if one will not get there.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn wait_for(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        self.wait(self.0.statuses.iter(), position, timeout).await
    }

    /// The same for one projection, whatever becomes of the others.
    ///
    /// # Errors
    /// As of [`Projections::wait_for`]; [`WaitError::Unknown`] if `P` was not started.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn wait_for_one<P: Projection>(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        let Some(one) = self.0.statuses.iter().find(|status| *status.borrow().name == *P::NAME) else {
            let known: Vec<String> = self.0.statuses.iter().map(|s| format!("`{}`", s.borrow().name)).collect();
            return Err(WaitError::Unknown { name: P::NAME.to_owned(), known: known.join(", ") });
        };
        self.wait(std::iter::once(one), position, timeout).await
    }

    async fn wait<'a>(
        &'a self,
        statuses: impl Iterator<Item = &'a watch::Receiver<ProjectionStatus>> + Clone,
        position: Position,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        let reached = || statuses.clone().map(|status| status.borrow().reach()).collect();
        let all = statuses.clone().map(|status| arrive(status.clone(), position));
        match tokio::time::timeout(timeout, futures::future::try_join_all(all)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(Some(stopped))) => Err(WaitError::Stopped(stopped)),
            Ok(Err(None)) => Err(WaitError::Closed { position, reached: reached() }),
            Err(_) => Err(WaitError::TimedOut { position, waited: timeout, reached: reached() }),
        }
    }

    /// Waits until a projection stops because of an error, or all of them are closed: for whoever must tell somebody.
    ///
    /// ```
    /// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
    /// # use till::{Takings, TillEvent};
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("till.db");
    /// use annals_eventstore::{EventStore, EventStoreExt, ExpectedVersion, Recorded, StreamId, Tenant};
    /// use annals_projections::{Projection, ProjectionError, ProjectionsExt, Rows};
    ///
    /// struct Fussy;
    ///
    /// impl Projection for Fussy {
    ///     type Event = TillEvent;
    ///     type Row = Takings;
    ///
    ///     fn apply(&self, event: &Recorded<TillEvent>, _: &mut Rows<Takings>) -> Result<(), ProjectionError> {
    ///         match event.event {
    ///             TillEvent::Sold { cents } if cents < 0 => Err(ProjectionError::new("who pays the customer?")),
    ///             TillEvent::Sold { .. } => Ok(()),
    ///         }
    ///     }
    /// }
    ///
    /// let store = annals_eventstore::sqlite(&path).await?;
    /// let views = store.projections().with(Fussy).start().await?;
    /// let stream = StreamId::new(Tenant::default(), "till", "t-1")?;
    /// let sold = store.new_event(&TillEvent::Sold { cents: -1 })?;
    /// let done = store.append(&stream, ExpectedVersion::Any, vec![sold]).await?;
    ///
    /// let stopped = views.stopped().await.unwrap_err();
    /// assert_eq!(stopped.event.unwrap().position, done.position);
    /// # views.close().await;
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// The first projection that has stopped, and why. The others go on. [`StopCause`](crate::StopCause) says what
    /// helps; then start the projections again.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn stopped(&self) -> Result<(), Stopped> {
        let ends: Vec<_> = self.0.statuses.iter().map(|status| Box::pin(end(status.clone()))).collect();
        let mut waiting = ends;
        while !waiting.is_empty() {
            let (ended, _, rest) = select_all(waiting).await;
            if let Some(stopped) = ended {
                return Err(stopped);
            }
            waiting = rest;
        }
        Ok(())
    }

    /// Lets every projection finish the batch it is at, stores checkpoints that are behind, and waits until nothing runs any
    /// more. Closing twice is harmless.
    ///
    /// # Cancel safety
    /// Dropping the future lets them end by themselves; closing again waits for them.
    pub async fn close(&self) {
        self.0.cancel.cancel();
        self.0.tracker.wait().await;
    }
}

/// Waits until a projection has reached `position`; else why it will not, or `None` if it was closed.
async fn arrive(mut status: watch::Receiver<ProjectionStatus>, position: Position) -> Result<(), Option<Stopped>> {
    let there = status.wait_for(|status| status.position >= position || !status.state.is_running()).await;
    // A sender that is gone has left a last word.
    let last = there.map(|status| status.clone()).unwrap_or_else(|_| status.borrow().clone());
    match last.state {
        _ if last.position >= position => Ok(()),
        ProjectionState::Stopped(stopped) => Err(Some(stopped)),
        _ => Err(None),
    }
}

/// Waits until a projection does not run any more.
async fn end(mut status: watch::Receiver<ProjectionStatus>) -> Option<Stopped> {
    let ended = status.wait_for(|status| !status.state.is_running()).await;
    let last = ended.map(|status| status.clone()).unwrap_or_else(|_| status.borrow().clone());
    match last.state {
        ProjectionState::Stopped(stopped) => Some(stopped),
        _ => None,
    }
}
