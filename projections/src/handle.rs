//! The handle on projections that run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{AsOf, EventStore, Invalid, Position, ReadError, Tenant};
use futures::FutureExt;
use futures::future::select_all;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::as_of::{AsOfError, RowsAsOf, rows_as_of, typed};
use crate::builder::ProjectionsBuilder;
use crate::database::ReadModelDatabase;
use crate::error::{ControlError, ProjectionProgress, Stopped, WaitError};
use crate::health::Monitor;
use crate::keeper::Order;
use crate::member::AnyProjection;
use crate::pass::Shared;
use crate::projection::Projection;
use crate::reactor::{KnownReactor, ReactorState, ReactorStatus};
use crate::read_model::ReadModel;
use crate::reads::Reads;
use crate::status::{ProjectionState, ProjectionStatus};
use crate::transaction::Controlled;
use crate::wait::{Fed, Names};

/// Projections that run. Cloning is cheap; when the last clone is dropped they are closed, without anybody waiting for it.
///
/// [`ProjectionsBuilder::start`](crate::ProjectionsBuilder::start) makes it; [`Projections::wait_for`] has an example.
/// Close it before the store whose events it reads; a projection whose store was closed stops and says so.
#[derive(Clone)]
#[must_use = "the projections are closed when the last handle is dropped; keep it, and `close` it in the end"]
pub struct Projections(Arc<Inner>);

struct Inner {
    names: Names,
    reactors: Vec<KnownReactor>,
    most_rows_as_of: usize,
    reads: Reads,
    monitor: Arc<Monitor>,
    tracker: TaskTracker,
    cancel: CancellationToken,
    /// What the keeper of the leases is to do.
    orders: mpsc::UnboundedSender<Order>,
    _cancel_on_drop: DropGuard,
}

impl Projections {
    /// Projections of the events of `store` into read models in `database`, which may be another than that of the events, also
    /// of another engine. Neither is closed with them.
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
    /// let views = Projections::of(&store, &reports).with(PerTill).start().await?;
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
    pub fn of(store: &(impl EventStore + Clone), database: &impl ReadModelDatabase) -> ProjectionsBuilder {
        ProjectionsBuilder::new(Arc::new(store.clone()), database.clone().into_read_models().0)
    }

    pub(crate) fn new(
        names: Names,
        reactors: Vec<KnownReactor>,
        most_rows_as_of: usize,
        monitor: Arc<Monitor>,
        tracker: TaskTracker,
        cancel: CancellationToken,
        orders: mpsc::UnboundedSender<Order>,
    ) -> Self {
        let _cancel_on_drop = cancel.clone().drop_guard();
        Self(Arc::new(Inner {
            names,
            reactors,
            most_rows_as_of,
            reads: Reads::default(),
            monitor,
            tracker,
            cancel,
            orders,
            _cancel_on_drop,
        }))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.names.shared
    }

    pub(crate) fn order(&self, order: Order) -> Result<(), ControlError> {
        self.0.orders.send(order).map_err(|_| ControlError::Closed)
    }

    pub(crate) fn status_of<P: Controlled>(&self) -> Option<ProjectionStatus> {
        Some(self.0.names.fed[self.place_of::<P>().ok()?].status.borrow().clone())
    }

    /// The state of `P`, as it changes. For runners that work on the streams of its slots; no promise is made about it.
    #[doc(hidden)]
    pub fn __watch<P: Projection>(&self) -> Option<watch::Receiver<ProjectionStatus>> {
        Some(self.0.names.fed[self.place_of::<P>().ok()?].status.clone())
    }

    /// What runs of `P`.
    pub(crate) fn any<P: Projection>(&self) -> Option<Arc<dyn AnyProjection>> {
        Some(Arc::clone(&self.0.names.fed[self.place_of::<P>().ok()?].projection))
    }

    /// The names of all projections, for errors.
    pub(crate) fn names_of_all(&self) -> String {
        let known: Vec<String> = self.0.names.fed.iter().map(|fed| format!("`{}`", fed.model.projection)).collect();
        known.join(", ")
    }

    pub(crate) fn names(&self) -> &Names {
        &self.0.names
    }

    pub(crate) fn reads(&self) -> &Reads {
        &self.0.reads
    }

    pub(crate) fn monitor(&self) -> &Monitor {
        &self.0.monitor
    }

    pub(crate) fn known_reactors(&self) -> &[KnownReactor] {
        &self.0.reactors
    }

    /// The state of every projection that runs here, in the order in which they were added. What queries by the stable name
    /// see may be another version: [`Projections::progress`].
    #[must_use]
    pub fn status(&self) -> Vec<ProjectionStatus> {
        self.0.names.fed.iter().map(|fed| fed.status.borrow().clone()).collect()
    }

    /// Up to where queries by the stable name of each read model see the log at this moment, in the order in which the
    /// projections were added. It is one query of the database of the read models.
    ///
    /// While a new version is deployed, the name may show another version than the one that runs here, and whose
    /// [`Projections::status`] may be `Live`: [`ProjectionProgress::elsewhere`] says which, and when its checkpoint was last
    /// moved. If that process has ended, queries see no new events until a build with that version is started again, or the
    /// name shows the version that runs here by [`Projections::show`].
    ///
    /// # Errors
    /// [`WaitError::Unavailable`] or [`WaitError::Database`] if the database cannot be asked.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn progress(&self) -> Result<Vec<ProjectionProgress>, WaitError> {
        self.0.names.progress().await
    }

    /// Waits until queries of every read model see everything up to `position`, `timeout` at most: with the position of an
    /// append, this is how to read one's own writes. Needs a tokio runtime with timers.
    ///
    /// It compares what is stored of the version that the stable name shows, whichever process feeds that, by one query for
    /// all waits of this handle. If it is the version that runs here, it is notified of progress; else it looks
    /// every 20 ms, and where nothing concerns a projection, another process stores how far it is a second later.
    ///
    /// Rows of events that the log has lost, by a restore or a failover, never end it well: a position that was reached
    /// before the wait began is compared with the log, by one read.
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
    /// [`WaitError::TimedOut`] after `timeout`, saying how far each has got, and which version is shown if another process
    /// has to feed it; [`WaitError::Stopped`] or [`WaitError::Closed`] at once if one will not get there, and `Stopped` for every
    /// position if the log is not the one that the projection has read;
    /// [`WaitError::Database`] if the database cannot be asked.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn wait_for(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        self.0.names.wait_for_all(position, timeout).await
    }

    /// Waits until queries of every read model see everything that is in the log at the time of the call, `timeout` at most:
    /// for tests, and for a service that answers nothing until its read models are current. Needs a tokio runtime with timers.
    /// While a raised version is built, the name may show the one before, and so lack new columns;
    /// [`Projections::progress`] says which version it shows.
    ///
    /// # Errors
    /// [`WaitError::HeadUnknown`] if the end of the log cannot be read; others as of [`Projections::wait_for`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn caught_up(&self, timeout: Duration) -> Result<(), WaitError> {
        self.0.names.wait_for_head(timeout).await
    }

    /// The same as [`Projections::wait_for`] for one projection, whatever becomes of the others.
    ///
    /// # Errors
    /// As of [`Projections::wait_for`]; [`WaitError::Unknown`] if `P` was not started.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn wait_for_one<P: Controlled>(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        self.0.names.wait(&[self.known::<P>()?], position, timeout).await
    }

    /// Lets the stable name of `P`'s read model show the version that runs here, also if it shows a higher one: this is how
    /// a deploy is taken back. Waits until this version has read what the one shown has, `timeout` at most.
    ///
    /// From then on the name stays at this version until this is called elsewhere, or a version is started that is higher
    /// than all that it has shown: that which it was taken from does not take it again by itself. Columns that only the other
    /// version has are gone for queries by the name.
    ///
    /// # Errors
    /// [`WaitError::NotShown`] after `timeout`, saying why; [`WaitError::Stopped`] if this version stopped before it had read
    /// enough, or because the log is not the one that it has read; [`WaitError::Database`] if the database refuses, as when others depend on columns that this version lacks;
    /// [`WaitError::Unknown`] if `P` was not started.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the name as it was, or switched.
    pub async fn show<P: Projection>(&self, timeout: Duration) -> Result<(), WaitError> {
        self.0.names.show(self.known::<P>()?, timeout).await
    }

    /// The rows of `P`'s read model as they were: those of a projection that was stopped there. They are sorted by key, and
    /// nothing is stored.
    ///
    /// The log up to there is read and folded into memory, so it takes as long as a rebuild up to there. What a position and a
    /// time mean, [`AsOf`] says. `P` folds the events of its tenant alone, if it has one. Of a read model that is per tenant, the
    /// rows are those of the projection's tenant, or of the default tenant if it has none;
    /// [`Projections::as_of_tenant`] gives others. How far it is is logged by `tracing`, at the level `DEBUG`. For one row of a
    /// stream projection, [`Projections::find_as_of`] reads less.
    ///
    /// ```
    /// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
    /// # use till::*;
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("till.db");
    /// use annals_eventstore::{AsOf, EventStore, EventStoreExt, ExpectedVersion, StreamId, Tenant};
    /// use annals_projections::ProjectionsExt;
    ///
    /// let store = annals_eventstore::sqlite(&path).await?;
    /// let views = store.projections().with(PerTill).start().await?;
    /// let stream = StreamId::new(Tenant::default(), "till", "t-1")?;
    /// let sold = |cents| store.new_event(&TillEvent::Sold { cents });
    /// let first = store.append(&stream, ExpectedVersion::Any, vec![sold(4_50)?]).await?;
    /// store.append(&stream, ExpectedVersion::Any, vec![sold(1_00)?]).await?;
    ///
    /// let then = views.as_of::<PerTill>(AsOf::position(first.position)).await?;
    /// assert_eq!(then.rows[0].cents, 4_50);
    /// # views.close().await;
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`AsOfError::Read`] if the position is beyond the log, the time is not over, or the log cannot be read;
    /// [`AsOfError::Stopped`] naming an event that cannot be applied; [`AsOfError::TooManyRows`]; [`AsOfError::Unknown`] if `P` was
    /// not started.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn as_of<P: Projection>(&self, as_of: AsOf) -> Result<RowsAsOf<P::Row>, AsOfError> {
        self.rows_as_of::<P>(None, as_of).await
    }

    /// The rows of one tenant, as they were, of a read model that is per tenant; see [`Projections::as_of`].
    ///
    /// The events of other tenants are not read, so they cost no memory, and one of them that cannot be applied is no error.
    ///
    /// # Errors
    /// As of [`Projections::as_of`]; [`AsOfError::Read`] with [`Invalid`] and the field `tenant` if the read model is not per
    /// tenant, or `P` wants the events of another tenant alone.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn as_of_tenant<P: Projection>(
        &self,
        tenant: &Tenant,
        as_of: AsOf,
    ) -> Result<RowsAsOf<P::Row>, AsOfError> {
        if !P::Row::TABLE.per_tenant {
            let problem = format!("is given for `{}`, whose rows belong to no tenant", P::Row::TABLE.name);
            return Err(ReadError::from(Invalid::new("tenant", problem, "ask for all rows by `as_of`")).into());
        }
        self.rows_as_of::<P>(Some(tenant), as_of).await
    }

    async fn rows_as_of<P: Projection>(
        &self,
        tenant: Option<&Tenant>,
        as_of: AsOf,
    ) -> Result<RowsAsOf<P::Row>, AsOfError> {
        let Inner { names, most_rows_as_of, .. } = &*self.0;
        let projection = self.any_as_of::<P>()?;
        let tenant = tenant_as_of::<P>(projection.tenant(), tenant)?;
        let all = rows_as_of(&names.shared.store, projection, tenant.as_ref(), as_of, *most_rows_as_of).await?;
        let RowsAsOf { rows: all, position, parked } = all;
        let rows = all.into_iter().map(|row| typed::<P>(row, position)).collect::<Result<_, _>>()?;
        Ok(RowsAsOf { rows, position, parked })
    }

    /// What runs of `P`, to be asked what was true then.
    pub(crate) fn any_as_of<P: Projection>(&self) -> Result<&dyn AnyProjection, AsOfError> {
        let unknown = |known| AsOfError::Unknown { name: P::NAME.to_owned(), known };
        Ok(self.0.names.fed[self.place_of::<P>().map_err(unknown)?].projection.as_ref())
    }

    /// Where `P` is among the projections; the names that there are if it is not.
    fn place_of<P: Controlled>(&self) -> Result<usize, String> {
        let is_it =
            |fed: &Fed| fed.model.projection == P::__NAME && fed.model.is_in_transaction() == P::__IN_TRANSACTION;
        self.0.names.fed.iter().position(is_it).ok_or_else(|| self.names_of_all())
    }

    fn known<P: Controlled>(&self) -> Result<usize, WaitError> {
        self.place_of::<P>().map_err(|known| WaitError::Unknown { name: P::__NAME.to_owned(), known })
    }

    /// Waits until a projection or a reactor stops because of an error, or all of them are closed. Once one has stopped this returns at
    /// once; alerts, which want the others too, take [`Projections::stops`].
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
    /// The first projection or reactor that has stopped, and why. The others continue. [`StopCause`](crate::StopCause) says what
    /// helps; then start the projections again.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn stopped(&self) -> Result<(), Stopped> {
        let projections = self.0.names.fed.iter().map(|fed| end(fed.status.clone()).boxed());
        let reactors = self.0.reactors.iter().map(|reactor| end_of_reactor(reactor.status.clone()).boxed());
        let mut waiting: Vec<_> = projections.chain(reactors).collect();
        while !waiting.is_empty() {
            let (ended, _, rest) = select_all(waiting).await;
            if let Some(stopped) = ended {
                return Err(stopped);
            }
            waiting = rest;
        }
        Ok(())
    }

    /// Lets every projection finish the batch it is at and every reactor the events it is at, at most for its time limit; stores
    /// checkpoints that are behind, and waits until nothing runs any more. Closing twice is harmless. On a database that does not answer,
    /// each statement is given up after the time limits of its handle: with the defaults of PostgreSQL it takes some 35 s.
    ///
    /// # Cancel safety
    /// Dropping the future lets them end by themselves; closing again waits for them.
    pub async fn close(&self) {
        self.0.cancel.cancel();
        self.0.tracker.wait().await;
    }
}

/// The tenant whose rows are asked for, if the read model is per tenant; `own` is the only one that the projection wants.
fn tenant_as_of<P: Projection>(own: Option<&Tenant>, asked: Option<&Tenant>) -> Result<Option<Tenant>, ReadError> {
    match (own, asked) {
        _ if !P::Row::TABLE.per_tenant => Ok(None),
        (Some(own), Some(asked)) if own != asked => Err(of_another_tenant(P::NAME, own, asked)),
        _ => Ok(Some(asked.or(own).cloned().unwrap_or_default())),
    }
}

/// The projection does not want the events of the tenant that is asked for.
pub(crate) fn of_another_tenant(projection: &str, own: &Tenant, asked: &Tenant) -> ReadError {
    let problem = format!("is `{asked}`, but projection `{projection}` is of tenant `{own}`");
    Invalid::new("tenant", problem, "ask a projection that reads its events").into()
}

/// Name and version of each projection.
impl fmt::Debug for Projections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let projections = self.0.names.fed.iter().map(|fed| (fed.model.projection, fed.model.version));
        f.write_str("Projections ")?;
        f.debug_map().entries(projections).finish()
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

/// Waits until a reactor does not run any more.
async fn end_of_reactor(mut status: watch::Receiver<ReactorStatus>) -> Option<Stopped> {
    let ended = status.wait_for(|status| !status.state.is_running()).await;
    let last = ended.map(|status| status.clone()).unwrap_or_else(|_| status.borrow().clone());
    match last.state {
        ReactorState::Stopped(stopped) => Some(stopped),
        _ => None,
    }
}
