//! Which sagas are to run, over which store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_eventstore::{AggregateStore, Clock, EventStore, Invalid, Repository, SystemClock};
use annals_projections::{Projections, ProjectionsBuilder, ReadModelDatabase, StartError, StreamProjection};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::any_saga::AnySaga;
use super::check::{self, CheckError, Unfit};
use super::handle::Sagas;
use super::in_flight::InFlight;
use super::instances::{SLOTS, SagaInstances};
use super::look::look;
use super::shared::Shared;
use crate::definition::{Definition, SagaData};
use crate::engine::Engine;
use crate::flow::{Flow, Tracker};
use crate::instance::Instance;

/// How long a process may be silent, if nobody says otherwise.
const LEASE: Duration = Duration::from_secs(5);
/// How many instances are in flight at most, if nobody says otherwise.
const IN_FLIGHT: usize = 256;
/// How often the table is looked at anyway, if nobody says otherwise.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LONGEST_LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
/// How long a call may take when the sagas are closed, if nobody says otherwise.
const GRACE: Duration = Duration::from_secs(10);

/// Sagas whose instances are in a store, and their table in its database: `store.sagas().with(checkout).start()`.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub trait SagasExt {
    /// Sagas of this store. [`Sagas::of`] takes another database for the table.
    fn sagas(&self) -> SagasBuilder;
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl<S: annals_eventstore::TransactionalStore<Database: ReadModelDatabase>> SagasExt for S {
    fn sagas(&self) -> SagasBuilder {
        Sagas::of(self, self.database())
    }
}

type Tracked = Box<dyn FnOnce(ProjectionsBuilder, &Repository<Instance>, &Arc<dyn Clock>) -> ProjectionsBuilder + Send>;
type Declared = Box<dyn FnOnce(&Arc<dyn EventStore>, &Repository<Instance>, &Arc<dyn Clock>) -> Arc<dyn AnySaga>>;

/// Sagas that are to run. [`Sagas`] has an example.
#[must_use = "nothing runs before `start`"]
pub struct SagasBuilder {
    store: Arc<dyn EventStore>,
    projections: ProjectionsBuilder,
    declared: Vec<Declared>,
    tracked: Vec<Tracked>,
    /// The flows that are followed, by the event that each begins with.
    begins: BTreeMap<String, &'static str>,
    clock: Arc<dyn Clock>,
    lease: Duration,
    in_flight: usize,
    look_every: Duration,
    grace: Duration,
}

impl Sagas {
    /// Sagas whose instances are in `store`, and their table in `database`, which may be another than that of the store. Neither is
    /// closed with them.
    pub fn of(store: &(impl EventStore + Clone), database: &impl ReadModelDatabase) -> SagasBuilder {
        SagasBuilder {
            store: Arc::new(store.clone()),
            projections: Projections::of(store, database),
            declared: Vec::new(),
            tracked: Vec::new(),
            begins: BTreeMap::new(),
            clock: Arc::new(SystemClock),
            lease: LEASE,
            in_flight: IN_FLIGHT,
            look_every: LOOK_EVERY,
            grace: GRACE,
        }
    }
}

impl SagasBuilder {
    /// One more saga.
    pub fn with<C: SagaData>(mut self, definition: Definition<C>) -> Self {
        self.declared.push(Box::new(|store, instances, clock| {
            Arc::new(Engine::over(Arc::clone(store), instances.clone(), definition, Arc::clone(clock)))
        }));
        self
    }

    /// Follows the flows of a kind: see [`Flow`]. The events are those that are recorded after this was started for the first time.
    ///
    /// # Errors
    /// [`Invalid`] with the field `event` if an event is not one of the flow's type, is declared twice, or begins another flow too; others as of
    /// [`Saga::build`](crate::Saga::build).
    pub fn track<F: Flow>(mut self, _flow: F) -> Result<Self, Invalid> {
        let (definition, marks) = F::steps().build::<F>()?;
        let begins = definition.steps().first().map(|step| step.name.clone()).unwrap_or_default();
        if let Some(other) = self.begins.insert(begins.clone(), F::NAME) {
            let problem = format!("`{begins}` begins the flows `{other}` and `{}`", F::NAME);
            return Err(Invalid::new(
                "event",
                problem,
                "a correlation is one flow: declare one with the steps of both",
            ));
        }
        let (store, tracked) = (Arc::clone(&self.store), definition.clone());
        self.tracked.push(Box::new(|projections, instances, clock| {
            let engine = Engine::over(store, instances.clone(), tracked, Arc::clone(clock));
            projections.react(Tracker::<F>::new(engine, marks))
        }));
        Ok(self.with(definition))
    }

    /// The clock of timers, retries and deadlines; the machine's by default.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// How long this process may be silent before others run its instances; 5 seconds by default. See
    /// [`ProjectionsBuilder::lease`].
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// What other processes call this one. See [`ProjectionsBuilder::runner_name`].
    pub fn runner_name(mut self, name: impl Into<String>) -> Self {
        self.projections = self.projections.runner_name(name);
        self
    }

    /// How many instances run at once in this process, 1 at least; 256 by default. An instance that waits for a signal, or
    /// for a time that is more than 200 ms ahead, is none of them. When so many run, further ones are left in the store until there is room.
    pub fn in_flight(mut self, most: usize) -> Self {
        self.in_flight = most;
        self
    }

    /// How often the table is looked at although nothing in it has changed, from 1 ms to an hour; a second by default. So much later may a
    /// timer fire after the clock was set forward.
    pub fn look_every(mut self, every: Duration) -> Self {
        self.look_every = every;
        self
    }

    /// How long [`Sagas::close`] waits for the calls that are under way; 10 seconds by default.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Prepares the table and starts: from here on this process runs its share of the instances that have not ended, also those that
    /// other processes have begun and left.
    ///
    /// # Errors
    /// [`StartError::Invalid`] with the field `sagas` if there are none, `saga` if two have one name, `in_flight`, `look_every` or
    /// `lease`; others as of [`ProjectionsBuilder::start`]. Nothing runs then.
    ///
    /// # Cancel safety
    /// Dropping the future starts nothing.
    pub async fn start(self) -> Result<Sagas, StartError> {
        if self.in_flight == 0 {
            return Err(Invalid::new("in_flight", "is 0", "let one instance run at least").into());
        }
        if self.look_every < Duration::from_millis(1) || self.look_every > LONGEST_LOOK_EVERY {
            let problem = format!("is {:?}", self.look_every);
            return Err(Invalid::new("look_every", problem, "give a millisecond to an hour").into());
        }
        let Self { store, projections, declared, tracked, begins: _, clock, lease, in_flight, look_every, grace } =
            self;
        let instances = store.aggregate::<Instance>();
        let sagas = sagas(declared, &store, &instances, &clock)?;
        if sagas.is_empty() {
            return Err(Invalid::new("sagas", "are none", "add one by `with`").into());
        }
        let in_flight = Arc::new(InFlight::new(in_flight));
        let of_slot = Arc::clone(&in_flight);
        let views = tracked
            .into_iter()
            .fold(projections, |projections, tracked| tracked(projections, &instances, &clock))
            .lease(lease)
            .with(SagaInstances.slots(SLOTS).dead_letter().__own_events())
            .__may_leave::<SagaInstances>(Arc::new(move |slot| of_slot.may_leave(slot)))
            .start()
            .await?;
        let Some(state) = views.__watch::<SagaInstances>() else {
            return Err(Invalid::new("sagas", "have no table", "report this as a bug").into());
        };
        let shared = Arc::new(Shared {
            sagas,
            instances,
            views,
            state,
            in_flight,
            clock,
            lease,
            look_every,
            wake: Notify::new(),
            tracker: TaskTracker::new(),
            abort: CancellationToken::new(),
            seen: Mutex::default(),
        });
        let cancel = CancellationToken::new();
        let looking = look(Arc::clone(&shared), cancel.clone());
        let (of_closed, closed) = (Arc::clone(&shared.in_flight), cancel.clone());
        shared.tracker.spawn(async move {
            looking.await;
            // Also where the handle was only dropped.
            closed.cancelled().await;
            of_closed.close();
        });
        Ok(Sagas::new(shared, cancel, grace))
    }

    /// Which instances that have not ended cannot go on in this build, and why: before it is deployed. Reads the whole log for them, and
    /// starts nothing.
    ///
    /// # Errors
    /// [`CheckError`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn check(self) -> Result<Vec<Unfit>, CheckError> {
        let instances = self.store.aggregate::<Instance>();
        let sagas = sagas(self.declared, &self.store, &instances, &self.clock)?;
        check::check(&self.store, &instances, &sagas).await
    }
}

fn sagas(
    declared: Vec<Declared>,
    store: &Arc<dyn EventStore>,
    instances: &Repository<Instance>,
    clock: &Arc<dyn Clock>,
) -> Result<BTreeMap<String, Arc<dyn AnySaga>>, Invalid> {
    let mut sagas = BTreeMap::new();
    for declared in declared {
        let saga = declared(store, instances, clock);
        let name = saga.name().to_owned();
        if sagas.insert(name.clone(), saga).is_some() {
            return Err(Invalid::new("saga", format!("`{name}` is given twice"), "give each saga a name of its own"));
        }
    }
    Ok(sagas)
}
