//! Which projections are to run, over which store, into which database.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_eventstore::{Clock, EventStore, IdSource, Invalid, ReadError, SystemClock, Tenant, TimeOrderedIds};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::as_of::MOST_ROWS;
use crate::commit::check_log;
use crate::control::check_text;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::database::ReadModelDatabase;
use crate::database::{Model, ReadModels, Runner};
use crate::error::{StartError, is_rewind};
use crate::handle::Projections;
use crate::health::Monitor;
use crate::keeper::{Keeper, MayLeave, Returns};
use crate::member::{AnyProjection, Member, Typed, wanted};
use crate::pass::{Passes, Shared};
use crate::projection::Projection;
use crate::reactor::{self, AnyReactor, Reacting, Reactor, Reactors, TypedReactor};
use crate::read_model::{NAME_RULE, is_identifier};
use crate::transaction::{TransactionProjection, TypedTransaction};
use crate::wait::{Fed, Names};

/// How long a process may be silent, if nobody says otherwise.
const LEASE: Duration = Duration::from_secs(5);

/// What a lease may be: long enough to be renewed in time, short enough to end while somebody waits.
const LEASES: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);

/// Starts projections from a store, into its own database: `store.projections().with(OrderList).start()`.
/// [`ProjectionsBuilder`] has an example. An app that is generic over the engines has it for every store:
///
/// ```
/// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
/// # use till::*;
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("till.db");
/// use annals_eventstore::TransactionalStore;
/// use annals_projections::{Projections, ProjectionsExt, ReadModelDatabase, StartError};
///
/// async fn build<S>(store: &S) -> Result<Projections, StartError>
/// where
///     S: TransactionalStore<Database: ReadModelDatabase>,
/// {
///     store.projections().with(PerTill).start().await
/// }
///
/// let store = annals_eventstore::sqlite(&path).await?;
/// build(&store).await?.close().await;
/// # Ok(()) }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub trait ProjectionsExt {
    /// Projections of this store's events into read models in the same database. [`Projections::of`] takes another database.
    fn projections(&self) -> ProjectionsBuilder;
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl<S: annals_eventstore::TransactionalStore<Database: ReadModelDatabase>> ProjectionsExt for S {
    fn projections(&self) -> ProjectionsBuilder {
        Projections::of(self, self.database())
    }
}

/// The projections that are to run: which, over which store, into which database.
///
/// ```
/// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
/// # use till::*;
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("till.db");
/// use annals_eventstore::EventStore;
/// use annals_projections::ProjectionsExt;
///
/// let store = annals_eventstore::sqlite(&path).await?;
/// let views = store.projections().with(PerTill).start().await?;
/// assert_eq!(&*views.status()[0].name, "takings");
///
/// // At the end of the program.
/// views.close().await;
/// store.close().await;
/// # Ok(()) }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[must_use = "nothing runs before `start`"]
pub struct ProjectionsBuilder {
    store: Arc<dyn EventStore>,
    database: Arc<dyn ReadModels>,
    clock: Arc<dyn Clock>,
    projections: Vec<Box<dyn AnyProjection>>,
    reactors: Vec<Box<dyn AnyReactor>>,
    tenant: Option<Tenant>,
    most_rows_as_of: usize,
    lease: Duration,
    runner_name: Option<String>,
    may_leave: BTreeMap<&'static str, MayLeave>,
}

impl ProjectionsBuilder {
    pub(crate) fn new(store: Arc<dyn EventStore>, database: Arc<dyn ReadModels>) -> Self {
        let clock = Arc::new(SystemClock);
        Self {
            store,
            database,
            clock,
            projections: Vec::new(),
            reactors: Vec::new(),
            tenant: None,
            most_rows_as_of: MOST_ROWS,
            lease: LEASE,
            runner_name: None,
            may_leave: BTreeMap::new(),
        }
    }

    /// One more projection. Its read model is its own: no two projections write one table.
    pub fn with<P: Projection>(mut self, projection: P) -> Self {
        self.projections.push(Box::new(Typed::new(projection)));
        self
    }

    /// One more projection that writes by SQL of its own, in tables of its own: see [`TransactionProjection`].
    pub fn with_transaction<T: TransactionProjection>(mut self, projection: T) -> Self {
        self.projections.push(Box::new(TypedTransaction::new(projection)));
        self
    }

    /// One more reactor, with its options if it has some: `.react(mailer)` or `.react(mailer.streams_at_once(2))`. [`Reactor`] says
    /// what it gets, and from where on.
    pub fn react<R: Reactor>(mut self, reactor: impl Into<Reacting<R>>) -> Self {
        self.reactors.push(Box::new(TypedReactor::new(reactor.into())));
        self
    }

    /// All of these projections and reactors read the events of `tenant` alone: for a database per tenant, with a runner each. Read models of
    /// many tenants in one database are declared `#[read_model(.., per_tenant)]` instead, and need one runner.
    ///
    /// ```
    /// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
    /// # use till::*;
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path();
    /// use annals_eventstore::{SqliteDatabase, Tenant};
    /// use annals_projections::Projections;
    ///
    /// let store = annals_eventstore::sqlite(path.join("till.db")).await?;
    /// let mut running = Vec::new();
    /// for tenant in [Tenant::new("north")?, Tenant::new("south")?] {
    ///     let reports = SqliteDatabase::open(path.join(format!("{tenant}.db"))).await?;
    ///     running.push(Projections::of(&store, &reports).with(PerTill).for_tenant(tenant).start().await?);
    /// }
    /// # for views in running { views.close().await; }
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// One database keeps the rows of one of them: another tenant for the same read model is refused at the start
    /// ([`StartError::TenantChanged`]).
    pub fn for_tenant(mut self, tenant: Tenant) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// The clock that stored checkpoints are stamped with, for people to see; the machine's by default.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// How many rows [`Projections::as_of`] may hold in memory; 100,000 by default.
    pub fn most_rows_as_of(mut self, rows: usize) -> Self {
        self.most_rows_as_of = rows;
        self
    }

    /// How long this process may be silent before others take over what it runs; 5 seconds by default, from 100 milliseconds to
    /// an hour. A third of it is how often it says that it is alive, by a small write, and looks for work. When it is closed,
    /// others need not wait that long.
    ///
    /// A process that was silent for longer, because it was stopped or cut off, and continues, writes nothing that others have
    /// done meanwhile: each new owner has a higher number, which is compared in the transaction of every commit. The time is that
    /// of the database's clock.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// What other processes call this one, in [`ProjectionState::Standby`](crate::ProjectionState::Standby) say; by default its
    /// process id and the name of its machine. 1 to 200 printable characters.
    pub fn runner_name(mut self, name: impl Into<String>) -> Self {
        self.runner_name = Some(name.into());
        self
    }

    /// Asks `may_leave` before a slot of `P` is given to another process: see [`MayLeave`]. For runners that work on the streams of
    /// the slots that this process has; no promise is made about it.
    #[doc(hidden)]
    pub fn __may_leave<P: Projection>(mut self, may_leave: MayLeave) -> Self {
        self.may_leave.insert(P::NAME, may_leave);
        self
    }

    /// Prepares the tables and starts to read, each projection from where it is. Returns as soon as they run; what they
    /// have missed they catch up with in the background.
    ///
    /// A projection that is started for the first time, or with a raised [`Projection::VERSION`], builds a table of its own,
    /// `name_v2` say, from the beginning of the log. Queries use the stable name, which is a view. It shows a raised version
    /// once that has caught up, and never a lower one again: see
    /// [deploying a changed projection](crate#deploying-a-changed-projection).
    /// Tables of old versions are kept; drop them, and their rows in the table of checkpoints
    /// (`annals_checkpoints` on SQLite, `annals.checkpoints` on PostgreSQL), when nobody needs them. A version whose table is
    /// gone is built anew.
    ///
    /// Several processes may run the same projections; they share the work. Each projection is run by one of them at a time, which
    /// holds a lease ([`ProjectionsBuilder::lease`]); another takes over when that is closed, or was silent for too long.
    ///
    /// Must be called within a tokio runtime with timers, in which the projections live.
    ///
    /// # Errors
    /// [`StartError::Invalid`] or [`StartError::Table`] if a declaration breaks a rule; [`StartError::ShapeChanged`],
    /// [`StartError::EventsChanged`] or [`StartError::TenantChanged`] if that changed and `VERSION` did not;
    /// [`StartError::ColumnsLost`] if a raised version lacks what queries find today; [`StartError::Rewound`] if the store is not the one that was
    /// read; see [`StartError`] for others. Nothing runs then.
    ///
    /// # Cancel safety
    /// Dropping the future starts nothing. Tables that were made by then are used when it is started again.
    pub async fn start(mut self) -> Result<Projections, StartError> {
        if let Some(tenant) = self.tenant.take() {
            give_tenant(&mut self.projections, &tenant)?;
            give_tenant_to_reactors(&mut self.reactors, &tenant)?;
        }
        if self.reactors.is_empty() {
            check_any(&self.projections)?;
        }
        check(&self.projections)?;
        reactor::check(&self.reactors)?;
        check_lease(self.lease)?;
        let Self { store, database, clock, projections, reactors, most_rows_as_of, lease, may_leave, .. } = self;
        let runner_name: Arc<str> = self.runner_name.unwrap_or_else(name_of_process).into();
        check_text("runner_name", &runner_name)?;
        database.migrate().await?;
        let (mut members, mut fed, mut status_senders) = (Vec::new(), Vec::new(), Vec::new());
        for projection in projections {
            let model = projection.model();
            let (shape, incarnation, now) = (projection.shape(), store.incarnation(), clock.now());
            let prepared = match projection.in_transaction() {
                Some(own) => database.prepare_transaction(&model, &shape, own, incarnation, now).await?,
                None => database.prepare(&model, &shape, incarnation, now).await?,
            };
            for place in &prepared.places {
                check_log(store.as_ref(), &place.checkpoint).await.map_err(|e| refused(&model, e))?;
            }
            let projection: Arc<dyn AnyProjection> = Arc::from(projection);
            let slots = Member::of(&projection, &prepared, &runner_name, &clock);
            let status = slots.first().map(Member::status_sender).ok_or_else(|| {
                Invalid::new("slots", format!("of projection `{}` are none", model.projection), "give it one at least")
            })?;
            fed.push(Fed { model, status: status.subscribe(), projection });
            status_senders.push(Arc::clone(status));
            members.extend(slots);
        }
        let (returns, given) = Returns::new();
        let shared = Shared { store, database, clock, cancel: CancellationToken::new(), returns };
        let reactors = reactor::prepare(&shared, reactors).await?;
        let known: Vec<_> = reactors.iter().map(reactor::Member::known).collect();
        let tracker = TaskTracker::new();
        let passes = Passes::follow(shared.clone(), tracker.clone(), status_senders);
        let projections = fed.iter().map(|fed| (fed.model.projection, fed.model.version));
        let runs = projections.chain(reactors.iter().map(|reactor| (reactor.unit.projection, reactor.unit.version)));
        let runs = runs.collect();
        let runner = Runner { id: TimeOrderedIds.next_id(), name: runner_name.to_string(), runs, stopped: Vec::new() };
        let (order, orders) = mpsc::unbounded_channel();
        let mut keeper =
            Keeper::new(passes, runner, lease, members, Reactors::of(reactors, runner_name), given, orders)
                .asking(may_leave);
        keeper.survey().await;
        tracker.spawn(keeper.run());
        let monitor = Arc::new(Monitor {
            projections: fed.iter().map(|fed| fed.status.clone()).collect(),
            reactors: known.iter().map(|reactor| reactor.status.clone()).collect(),
            store: Arc::clone(&shared.store),
            clock: Arc::clone(&shared.clock),
            lease,
            seen: Mutex::default(),
        });
        tracker.spawn(Arc::clone(&monitor).observe(shared.cancel.clone()));
        tracker.close();
        let names = Names::new(shared.clone(), fed);
        Ok(Projections::new(names, known, most_rows_as_of, monitor, tracker, shared.cancel, order))
    }
}

/// What people know a process by: its number and its machine.
fn name_of_process() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::env::var("HOSTNAME"));
    let host = host.unwrap_or_default();
    match host.trim() {
        "" => format!("process {}", std::process::id()),
        host => format!("process {} on {host}", std::process::id()),
    }
}

/// Lets all projections read one tenant alone.
fn give_tenant(projections: &mut [Box<dyn AnyProjection>], tenant: &Tenant) -> Result<(), StartError> {
    for projection in projections {
        if let Some(own) = projection.tenant().filter(|own| *own != tenant) {
            let name = projection.model().projection;
            let problem = format!("is `{tenant}`, but projection `{name}` is of tenant `{own}`");
            return Err(Invalid::new("for_tenant", problem, "leave one of them out").into());
        }
        projection.set_tenant(tenant.clone());
    }
    Ok(())
}

fn check_lease(lease: Duration) -> Result<(), StartError> {
    if LEASES.contains(&lease) {
        return Ok(());
    }
    Err(Invalid::new("lease", format!("is {lease:?}"), "give it 100 milliseconds to an hour").into())
}

/// The same for reactors.
fn give_tenant_to_reactors(reactors: &mut [Box<dyn AnyReactor>], tenant: &Tenant) -> Result<(), StartError> {
    for reactor in reactors {
        if let Some(own) = reactor.tenant().filter(|own| *own != tenant) {
            let problem = format!("is `{tenant}`, but reactor `{}` is of tenant `{own}`", reactor.name());
            return Err(Invalid::new("for_tenant", problem, "leave one of them out").into());
        }
        reactor.set_tenant(tenant.clone());
    }
    Ok(())
}

/// Why a stored checkpoint cannot be gone on from.
fn refused(model: &Model, error: ReadError) -> StartError {
    if is_rewind(&error) {
        return StartError::Rewound { projection: model.projection, version: model.version, source: error };
    }
    StartError::Store(error)
}

/// Refuses to start nothing.
fn check_any(projections: &[Box<dyn AnyProjection>]) -> Result<(), StartError> {
    match projections.is_empty() {
        true => Err(Invalid::new("projections", "are none", "add one by `with`").into()),
        false => Ok(()),
    }
}

/// Checks everything that can be checked without a database.
fn check(projections: &[Box<dyn AnyProjection>]) -> Result<(), StartError> {
    let invalid = |field: &str, problem: String, fix: &str| Err(Invalid::new(field, problem, fix).into());
    for (at, projection) in projections.iter().enumerate() {
        let Model { projection: name, version, table } = projection.model();
        if !is_identifier(name) {
            let problem = format!("of a projection is `{}`, which cannot be used in SQL", name.escape_debug());
            return invalid("NAME", problem, NAME_RULE);
        }
        if version == 0 {
            return invalid("VERSION", format!("of projection `{name}` is 0"), "count versions from 1");
        }
        if projection.in_transaction().is_none() {
            table.check()?;
        }
        projection.kind().check(name)?;
        if projection.names().is_empty() {
            return invalid(
                "Event",
                format!("of projection `{name}` has no event"),
                "give the type at least one event",
            );
        }
        wanted(std::iter::once(projection.as_ref())).map_err(|why| {
            Invalid::new("Event", format!("of projection `{name}` names an event that {}", why.problem), why.fix)
        })?;
        for earlier in &projections[..at] {
            let earlier = earlier.model();
            if earlier.projection == name {
                return invalid("NAME", format!("`{name}` is that of two projections"), "give each a name of its own");
            }
            if earlier.table.name == table.name && projection.in_transaction().is_none() {
                let problem = format!("`{}` is that of projections `{}` and `{name}`", table.name, earlier.projection);
                return invalid("table", problem, "give each projection a read model of its own");
            }
        }
    }
    Ok(())
}
