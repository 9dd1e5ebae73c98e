//! The handle on sagas that run.

use std::any::{TypeId, type_name};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use annals_eventstore::{Actor, Context, Invalid, Tenant, TraceParent};
use annals_projections::{Projections, QueryError};
use serde::Serialize;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::any_saga::{AnySaga, Key, Origin};
use super::instances::{SagaInstance, SagaInstances};
use super::shared::{Seen, Shared};
use crate::definition::SagaData;
use crate::engine::{InstanceAtVersion, SagaStatus};
use crate::error::SagaError;
use crate::event::{Intervention, SagaEvent};
use crate::instance::{SagaId, Status};
use crate::person::By;

/// The instances that are stuck, those that are it longest first.
const STUCK: &str = "
    status = 'stuck'
    ORDER BY updated_at
    LIMIT $1
";

/// Those of one tenant.
const STUCK_OF_TENANT: &str = "
    tenant = $1 AND status = 'stuck'
    ORDER BY updated_at
    LIMIT $2
";

/// The instances that ask for approval, those that do so longest first.
pub(crate) const APPROVALS: &str = "
    asked_at IS NOT NULL
    ORDER BY asked_at NULLS LAST
    LIMIT $1
";

/// Those of one tenant.
const APPROVALS_OF_TENANT: &str = "
    tenant = $1 AND asked_at IS NOT NULL
    ORDER BY asked_at NULLS LAST
    LIMIT $2
";

/// Sagas that run in this process, beside others that run the same. Cloning is cheap; when the last clone is dropped they are closed,
/// without anybody waiting for it.
///
/// Each instance is in one of 16 slots, by a hash of its name, and each slot is run by one process at a time, by a lease. An
/// instance runs in the process that has its slot: if that is the one in which it was started, at once, else as soon as its row
/// is there. When a process has died, the others share its slots as soon as its lease has ended
/// ([`SagasBuilder::lease`](crate::SagasBuilder::lease)), and continue its instances from their streams. Whatever two
/// processes take for true, an append to the stream of an instance decides.
///
/// ```
/// use annals_resilience::Policy;
/// use annals_sagas::{Saga, SagaId, SagasExt, Status};
/// use serde::{Deserialize, Serialize};
/// use std::time::Duration;
///
/// #[derive(Serialize, Deserialize, Clone)]
/// struct Checkout { order: String }
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let checkout = Saga::<Checkout>::new("checkout")
///     .remote("charge", &Policy::medium("payments").build()?, |_checkout, _call| async { Ok(()) })
///     .undo(|_checkout, _call| async { Ok(()) })
///     .signal::<u32>("confirmed")
///     .build()?;
///
/// let store = annals_eventstore::sqlite(folder.path().join("shop.db")).await?;
/// let sagas = store.sagas().with(checkout).start().await?;
/// let id = SagaId::new("c-17")?;
/// sagas.start(&id, Checkout { order: "o-17".into() }).await?;
/// sagas.signal(&id, "confirmed", 1).await?;
/// assert_eq!(sagas.wait_for(&id, Duration::from_secs(5)).await?.status, Status::Completed);
/// sagas.close().await;
/// # Ok(()) }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone)]
#[must_use = "the sagas are closed when the last handle is dropped; keep it, and `close` it in the end"]
pub struct Sagas {
    inner: Arc<Inner>,
    /// Whose instances it is for, if that was said.
    of: Option<Tenant>,
    /// The request that it is used for.
    from: Origin,
}

struct Inner {
    shared: Arc<Shared>,
    cancel: CancellationToken,
    grace: Duration,
    _cancel_on_drop: DropGuard,
}

/// What a process does for its sagas.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunnerStatus {
    /// How many instances run.
    pub in_flight: usize,
    /// How many may.
    pub most_in_flight: usize,
    /// Which slots it has.
    pub slots: Vec<u32>,
    /// Sagas of which instances have something to do, and which this process does not have. Looked for once a minute.
    pub missing: Vec<String>,
    /// Why the table could not be read, if that is so.
    pub error: Option<String>,
}

impl RunnerStatus {
    /// Whether it takes no further instance before one of those that run waits or ends.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.in_flight >= self.most_in_flight
    }
}

impl Sagas {
    pub(super) fn new(shared: Arc<Shared>, cancel: CancellationToken, grace: Duration) -> Self {
        let _cancel_on_drop = cancel.clone().drop_guard();
        Self { inner: Arc::new(Inner { shared, cancel, grace, _cancel_on_drop }), of: None, from: Origin::default() }
    }

    /// The same sagas for the instances of this tenant alone, also where instances are listed. Without it the handle starts, changes
    /// and shows those of the default tenant, and lists those of all tenants.
    pub fn tenant(&self, tenant: Tenant) -> Self {
        Self { of: Some(tenant), ..self.clone() }
    }

    /// The same sagas for a request of this trace (W3C trace context), which is kept with what the request records. All that an instance
    /// does, its calls and what its commands record, is part of the trace in which it was started; also in another process, and after
    /// a restart. `None` is a request without a trace.
    ///
    /// ```
    /// use annals_eventstore::{Filter, Position, TraceParent, EventStoreExt, EventStore};
    /// use annals_sagas::{Saga, SagaId, SagasExt};
    /// use futures::TryStreamExt;
    /// use std::time::Duration;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let store = annals_eventstore::sqlite(folder.path().join("bank.db")).await?;
    /// let sagas = store.sagas().with(Saga::<u64>::new("nap").timer("wait", Duration::from_millis(1)).build()?).start().await?;
    /// let request = TraceParent::new("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")?;
    /// let id = SagaId::new("n-17")?;
    /// sagas.in_trace(request.clone()).start(&id, 1_u64).await?;
    /// sagas.wait_for(&id, Duration::from_secs(5)).await?;
    ///
    /// let recorded: Vec<_> = store.read_all(Position::START, Filter::all()).try_collect().await?;
    /// assert!(recorded.iter().all(|event| event.metadata.trace_parent.as_ref() == Some(&request)));
    /// # sagas.close().await;
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn in_trace(&self, trace_parent: impl Into<Option<TraceParent>>) -> Self {
        let from = Origin { trace: trace_parent.into(), ..self.from.clone() };
        Self { from, ..self.clone() }
    }

    /// The same sagas for a request of this person or program, which is kept with what the request records. The events of the commands
    /// of an instance have the actor who has started it, and its first event as their cause; also in another process, and after a
    /// restart. What undoes them has no actor. `None` is a request of nobody.
    ///
    /// ```
    /// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/../eventstore/docs/order.rs")); }
    /// # use order::*;
    /// use annals_eventstore::{Actor, AggregateStore, EventStoreExt};
    /// use annals_sagas::{Saga, SagaId, SagasExt, command};
    /// use futures::TryStreamExt;
    /// use std::time::Duration;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let store = annals_eventstore::sqlite(folder.path().join("shop.db")).await?;
    /// let (orders, id) = (store.aggregate::<Order>(), OrderId::new("o-17")?);
    /// orders.execute(&id, |order| order.place(12_00)).await?;
    /// let (all, order) = (orders.clone(), id.clone());
    /// let pay = move |amount: &u64| command(&all, order.clone(), Pay { amount: *amount });
    /// let payment = Saga::<u64>::new("payment").local("pay", pay).no_undo("it is paid").build()?;
    /// let sagas = store.sagas().with(payment).start().await?;
    /// sagas.with_actor(Actor::new("alice")?).start(&SagaId::new("p-17")?, 12_00_u64).await?;
    /// sagas.wait_for(&SagaId::new("p-17")?, Duration::from_secs(5)).await?;
    ///
    /// let events: Vec<_> = store.load(&orders.stream(&id)?).try_collect().await?;
    /// assert_eq!(events[1].metadata.actor.as_ref().map(|actor| actor.as_str()), Some("alice"));
    /// # sagas.close().await;
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn with_actor(&self, actor: impl Into<Option<Actor>>) -> Self {
        let from = Origin { actor: actor.into(), ..self.from.clone() };
        Self { from, ..self.clone() }
    }

    fn tenant_of_one(&self) -> Tenant {
        self.of.clone().unwrap_or_default()
    }

    /// Starts an instance of the saga whose data is `C`. To start the same again changes nothing.
    ///
    /// # Errors
    /// [`SagaError::StartedBefore`] if the id is in use for another saga or another input; [`SagaError::Invalid`] with the field
    /// `data` if not exactly one saga has this type of data, or `saga_id` if the id makes no idempotency keys;
    /// [`SagaError::Record`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown; start it again with the same input.
    pub async fn start<C: SagaData>(&self, id: &SagaId, data: C) -> Result<(), SagaError> {
        let mut of_type = self.shared().sagas.values().filter(|saga| saga.data_type().0 == TypeId::of::<C>());
        match (of_type.next(), of_type.next()) {
            (Some(saga), None) => self.start_one(&**saga, id, data).await,
            (None, _) => Err(self.unfit(type_name::<C>(), "no saga has").into()),
            (Some(_), Some(_)) => Err(self.unfit(type_name::<C>(), "several sagas have").into()),
        }
    }

    /// The same of the saga that is called `saga`.
    ///
    /// # Errors
    /// As of [`Sagas::start`]; [`SagaError::Invalid`] with the field `saga` if there is none of that name.
    ///
    /// # Cancel safety
    /// As of [`Sagas::start`].
    pub async fn start_named<C: SagaData>(&self, saga: &str, id: &SagaId, data: C) -> Result<(), SagaError> {
        let Some(saga) = self.shared().sagas.get(saga) else {
            let problem = format!("`{saga}` is none of this process: {}", self.names());
            return Err(Invalid::new("saga", problem, "give it to the builder by `with`").into());
        };
        if saga.data_type().0 != TypeId::of::<C>() {
            return Err(self.unfit(type_name::<C>(), &format!("saga `{}` does not have", saga.name())).into());
        }
        self.start_one(&**saga, id, data).await
    }

    async fn start_one<C: SagaData>(&self, saga: &dyn AnySaga, id: &SagaId, data: C) -> Result<(), SagaError> {
        let data = serde_json::to_value(&data).map_err(|source| SagaError::Data { id: id.clone(), source })?;
        let key = self.key(id);
        saga.start(&key, data, self.from.clone()).await?;
        self.shared().run(key, saga.name(), None);
        Ok(())
    }

    fn unfit(&self, data: &str, who: &str) -> Invalid {
        let problem = format!("is `{data}`, which {who}; there are {}", self.names());
        Invalid::new("data", problem, "give the data of one of them, and name it by `start_named` if several have it")
    }

    fn names(&self) -> String {
        self.shared().sagas.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    pub(super) fn key(&self, id: &SagaId) -> Key {
        Key { tenant: self.tenant_of_one(), id: id.clone() }
    }

    /// Hands an instance what its step `step` waits for, now or later.
    ///
    /// # Errors
    /// As of [`Engine::signal`](crate::Engine::signal); [`SagaError::NoDefinition`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn signal<T: Serialize>(&self, id: &SagaId, step: &str, payload: T) -> Result<(), SagaError> {
        let payload = serde_json::to_value(payload)
            .map_err(|e| Invalid::new("payload", format!("does not fit: {e}"), "send what the step waits for"))?;
        let saga = self.saga_of(id).await?;
        saga.signal(&self.key(id), step, payload, self.from.clone()).await?;
        self.shared().run(self.key(id), saga.name(), None);
        Ok(())
    }

    /// A person decides about an instance that is stuck, answers one that asks, or cancels one that runs: [`Engine::intervene`](crate::Engine::intervene)
    /// has the table.
    ///
    /// # Errors
    /// As of [`Engine::intervene`](crate::Engine::intervene); [`SagaError::NoDefinition`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown; [`Sagas::status`] shows it.
    pub async fn intervene(&self, id: &SagaId, what: Intervention, by: &By) -> Result<(), SagaError> {
        let saga = self.saga_of(id).await?;
        saga.intervene(&self.key(id), what, by, self.from.clone()).await?;
        self.shared().run(self.key(id), saga.name(), None);
        Ok(())
    }

    /// A person approves a step that was declared by [`approval`](crate::Saga::approval) and asks.
    ///
    /// ```
    /// use annals_sagas::{By, Saga, SagaId, SagasExt, Status};
    /// use std::time::Duration;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let store = annals_eventstore::sqlite(folder.path().join("bank.db")).await?;
    /// let transfer = Saga::<u64>::new("transfer").approval("release").build()?;
    /// let sagas = store.sagas().with(transfer).start().await?;
    /// let id = SagaId::new("t-17")?;
    /// sagas.start(&id, 5_000_00_u64).await?;
    /// while sagas.approvals(10).await?.is_empty() {
    ///     tokio::time::sleep(Duration::from_millis(10)).await;
    /// }
    /// sagas.approve(&id, "release", &By::new("ada", "I know them")?.request("click-4711")).await?;
    /// assert_eq!(sagas.wait_for(&id, Duration::from_secs(5)).await?.status, Status::Completed);
    /// # sagas.close().await;
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// As of [`Sagas::intervene`].
    ///
    /// # Cancel safety
    /// As of [`Sagas::intervene`].
    pub async fn approve(&self, id: &SagaId, step: &str, by: &By) -> Result<(), SagaError> {
        self.intervene(id, Intervention::Approve { step: step.to_owned() }, by).await
    }

    /// A person rejects such a step: before the pivot the saga is compensated, after it it is stuck.
    ///
    /// # Errors
    /// As of [`Sagas::intervene`].
    ///
    /// # Cancel safety
    /// As of [`Sagas::intervene`].
    pub async fn reject(&self, id: &SagaId, step: &str, by: &By) -> Result<(), SagaError> {
        self.intervene(id, Intervention::Reject { step: step.to_owned() }, by).await
    }

    /// What [`Sagas::intervene`], and what follows from it, would record, without recording it: a dry run.
    ///
    /// # Errors
    /// As of [`Sagas::intervene`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn preview(&self, id: &SagaId, what: Intervention, by: &By) -> Result<Vec<SagaEvent>, SagaError> {
        self.saga_of(id).await?.preview(&self.key(id), what, by).await
    }

    /// Where an instance stands, by its stream. Also of a saga that this process does not have.
    ///
    /// # Errors
    /// [`SagaError::NotStarted`]; [`SagaError::Read`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn status(&self, id: &SagaId) -> Result<SagaStatus, SagaError> {
        let instance = self.load(id).await?;
        let saga = self.shared().sagas.get(&instance.state.saga);
        Ok(saga.map_or_else(|| SagaStatus::of(&instance), |saga| saga.status(&instance)))
    }

    /// The input of an instance of the saga whose data is `C`, with what its steps have kept so far: what a saga that is completed
    /// has given.
    ///
    /// # Errors
    /// As of [`Engine::data`](crate::Engine::data); [`SagaError::NoDefinition`]; [`SagaError::Invalid`] with the field `data` if
    /// the saga of the instance has another type of data.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn data<C: SagaData>(&self, id: &SagaId) -> Result<C, SagaError> {
        let saga = self.saga_of(id).await?;
        let mut data: Option<C> = None;
        saga.data(&self.key(id), &mut data).await?;
        data.ok_or_else(|| self.unfit(type_name::<C>(), &format!("saga `{}` does not have", saga.name())).into())
    }

    /// The row of an instance; `None` if there is none, perhaps not yet.
    ///
    /// # Errors
    /// [`QueryError`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn find(&self, id: &SagaId) -> Result<Option<SagaInstance>, QueryError> {
        self.projections().find::<SagaInstances>(&(self.tenant_of_one(), id.to_string())).await
    }

    /// The rows of instances that are stuck and wait for a person, those that do so longest first: `most` of them,
    /// [`Projections::MOST_ROWS`] at most. Of all tenants, or of that of the [handle](Sagas::tenant).
    ///
    /// # Errors
    /// [`QueryError`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn stuck(&self, most: u32) -> Result<Vec<SagaInstance>, QueryError> {
        self.listed(STUCK, STUCK_OF_TENANT, most).await
    }

    /// The rows of instances that ask a person for approval, those that do so longest first: `most` of them,
    /// [`Projections::MOST_ROWS`] at most. Of all tenants, or of that of the [handle](Sagas::tenant).
    ///
    /// # Errors
    /// [`QueryError`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn approvals(&self, most: u32) -> Result<Vec<SagaInstance>, QueryError> {
        self.listed(APPROVALS, APPROVALS_OF_TENANT, most).await
    }

    async fn listed(
        &self,
        of_all: &'static str,
        of_tenant: &'static str,
        most: u32,
    ) -> Result<Vec<SagaInstance>, QueryError> {
        match &self.of {
            None => self.projections().select::<SagaInstances>(of_all, &[&most]).await,
            Some(tenant) => self.projections().select::<SagaInstances>(of_tenant, &[tenant, &most]).await,
        }
    }

    /// What this process does for its sagas.
    #[must_use]
    pub fn runner(&self) -> RunnerStatus {
        let shared = self.shared();
        let Seen { missing, error } = shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        RunnerStatus {
            in_flight: shared.in_flight.count(),
            most_in_flight: shared.in_flight.most(),
            slots: shared.slots(),
            missing,
            error,
        }
    }

    /// The projection that builds the table `saga_instances` ([`SagaInstances`]): for its health, its dead letters, waits and
    /// queries. While it is paused, no process continues an instance that another one has left.
    pub fn projections(&self) -> &Projections {
        &self.shared().views
    }

    /// Begins no further call, lets those that are under way end, at most for the grace time
    /// ([`SagasBuilder::grace`](crate::SagasBuilder::grace)), records what they gave, and leaves the instances to other processes
    /// or the next start. Closing twice is harmless.
    ///
    /// # Cancel safety
    /// Dropping the future lets the calls end by themselves; closing again waits for them.
    pub async fn close(&self) {
        let shared = self.shared();
        shared.in_flight.close();
        self.inner.cancel.cancel();
        shared.tracker.close();
        if timeout(self.inner.grace, shared.tracker.wait()).await.is_err() {
            tracing::warn!("calls of sagas were under way for longer than the grace time; their outcomes are unknown");
            shared.abort.cancel();
            shared.tracker.wait().await;
        }
        shared.views.close().await;
    }

    async fn load(&self, id: &SagaId) -> Result<InstanceAtVersion, SagaError> {
        let tenant = self.tenant_of_one();
        let instances = self.shared().instances.with(Context::of(tenant.clone()));
        let loaded = instances.load(id).await.map_err(|source| SagaError::Read { id: id.clone(), source })?;
        if loaded.state.status == Status::NotStarted {
            return Err(SagaError::NotStarted { tenant, id: id.clone() });
        }
        Ok(InstanceAtVersion { state: loaded.state, version: loaded.version })
    }

    /// The saga of an instance.
    async fn saga_of(&self, id: &SagaId) -> Result<Arc<dyn AnySaga>, SagaError> {
        let name = self.load(id).await?.state.saga.clone();
        let saga = self.shared().sagas.get(&name).cloned();
        saga.ok_or_else(|| SagaError::NoDefinition { id: id.clone(), saga: name })
    }
}
