//! The repository as its users see it.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use serde::Serialize;

use super::answer::{Executed, Loaded};
use super::cache::Cache;
use super::decision::{Circumstances, Subject, execute};
use super::error::ExecuteError;
use super::scope::Direct;
use super::settle::{SettleToken, ask};
use super::subject::{One, Two};
use super::turns::Turns;
use crate::aggregate::{Decide, Evolve, IntoEvents};
use crate::append::Appended;
use crate::context::Context;
use crate::error::{AppendError, Invalid, ReadError};
use crate::metadata::Metadata;
use crate::name::check_name;
use crate::request::{Fingerprint, RequestKey};
use crate::snapshot::{SnapshotStats, SnapshotStore, Snapshots};
use crate::store::EventStore;
use crate::stream::StreamId;

/// How many states a repository keeps by default.
const CACHED_STATES: u64 = 10_000;

/// How many bytes they have together.
const CACHED_BYTES: u64 = 256 << 20;
/// How often a command is decided by default.
const ATTEMPTS: u32 = 10;

/// What every event store can do for aggregates. Import it, and `store.aggregate::<Order>()` works.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::{AggregateStore, MemoryStore};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let orders = MemoryStore::new().aggregate::<Order>();
/// let id = OrderId::new("o-17")?;
/// orders.execute(&id, |order| order.place(12_00)).await?;
/// assert_eq!(orders.load(&id).await?.state.due, Some(12_00));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait AggregateStore: EventStore + Clone {
    /// The repository of a kind of aggregate, for commands of the default tenant; [`Repository::with`] is for others.
    ///
    /// Make it once and clone it: each call begins with an empty cache, and commands take turns on an aggregate only within one and its
    /// clones, so that those of several conflict.
    fn aggregate<A: Evolve>(&self) -> Repository<A> {
        Repository::new(Arc::new(self.clone()))
    }

    /// Decides what happens to two aggregates, of the same or of different kinds, and appends it: all events to both, or
    /// none. Each is given as its repository and its id; tenant, metadata, deadline and request key are those of `context`.
    ///
    /// As [`Repository::execute`]: if another writer appended first to either stream, the new events are read and `decide`
    /// runs again; a request that was executed before gets its first answer and is not decided; an unknown outcome is settled.
    ///
    /// `decide` returns the events of both: each is one event, several, an `Option` of one, or none (an empty `Vec`). The append
    /// compares the versions of the aggregates that get events. An aggregate that gets none is read, but not locked: another
    /// writer may change it between that read and the append. Where that matters, give it an event too.
    ///
    /// ```
    /// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
    /// # use order::*;
    /// use annals_eventstore::{AggregateStore, Context, MemoryStore};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// let store = MemoryStore::new();
    /// let orders = store.aggregate::<Order>();
    /// let (old, new) = (OrderId::new("o-17")?, OrderId::new("o-18")?);
    /// orders.execute(&old, |order| order.place(12_00)).await?;
    ///
    /// // The old order is paid and the next one placed, or neither.
    /// let context = Context::default();
    /// let (paid, placed) = store
    ///     .execute_two(&context, (&orders, &old), (&orders, &new), |old, new| {
    ///         Ok::<_, OrderError>((old.pay(12_00)?, new.place(7_50)?))
    ///     })
    ///     .await?;
    /// assert_eq!((paid.version.get(), placed.version.get()), (2, 1));
    /// assert!(paid.state.paid && placed.state.due == Some(7_50));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As of [`Repository::execute`]; [`ExecuteError::Invalid`] with the field `repository` if one is of another store, or
    /// `second` if both are the same aggregate.
    ///
    /// # Cancel safety
    /// As of [`Repository::execute`].
    fn execute_two<A, B, TA, TB, R, F>(
        &self,
        context: &Context,
        first: (&Repository<A>, &A::Id),
        second: (&Repository<B>, &B::Id),
        decide: F,
    ) -> impl Future<Output = Result<(Executed<A>, Executed<B>), ExecuteError<R>>> + Send
    where
        A: Evolve,
        B: Evolve,
        TA: IntoEvents<A::Event>,
        TB: IntoEvents<B::Event>,
        R: Send,
        F: Fn(&A, &B) -> Result<(TA, TB), R> + Send + Sync,
    {
        execute_two(self, context, first, second, decide)
    }

    /// Settles an append whose outcome was unknown: it is sent again with the same event ids. If it was not stored and its
    /// stream has not changed, it is stored now. [`SettleToken`] has an example.
    ///
    /// # Errors
    /// [`AppendError::WrongExpectedVersion`] if it was not stored and cannot be any more (see
    /// [`AppendError::settles_outcome`]); [`AppendError::OutcomeUnknown`] with the reason if the store still cannot
    /// answer: call again with the same token.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown; call again with the same token.
    fn settle(&self, token: &SettleToken) -> impl Future<Output = Result<Appended, AppendError>> + Send {
        ask(self, token.append(), token.stream())
    }
}

impl<S: EventStore + Clone> AggregateStore for S {}

async fn execute_two<A, B, TA, TB, R, F>(
    store: &dyn EventStore,
    context: &Context,
    (first, first_id): (&Repository<A>, &A::Id),
    (second, second_id): (&Repository<B>, &B::Id),
    decide: F,
) -> Result<(Executed<A>, Executed<B>), ExecuteError<R>>
where
    A: Evolve,
    B: Evolve,
    TA: IntoEvents<A::Event>,
    TB: IntoEvents<B::Event>,
    F: Fn(&A, &B) -> Result<(TA, TB), R>,
{
    if [first.store().incarnation(), second.store().incarnation()] != [store.incarnation(); 2] {
        return Err(Invalid::new("repository", "is one of another store", "use one of this store").into());
    }
    let (first, second) = (first.with(context.clone()), second.with(context.clone()));
    let two = Two::new(One::new(&first, first_id)?, One::new(&second, second_id)?)?;
    execute(&mut Direct(store), &two, first.circumstances(), move |(first, second)| {
        let (first, second) = decide(&first.state, &second.state)?;
        Ok((first.into_events(), second.into_events()))
    })
    .await
}

/// Loads aggregates of one kind and executes commands on them. Cloning it is cheap, and clones share one cache.
///
/// Commands of a repository and its clones on one aggregate run one after the other; those on other aggregates do not wait for
/// them. So only other repositories, appends of your own, units of work and other processes can append in between. How many
/// commands of a tenant may wait is [`Limits::queued_appends`](crate::Limits::queued_appends). A command that has not ended 10
/// seconds after another began to wait for it, because its future is not polled or its store does not answer, loses its turn.
///
/// A command is decided on the aggregate's state, and its events are appended with the loaded version as the expected one.
/// If another writer appended first, only the new events are read, and the command is decided again: up to 10 times, then
/// the conflict is returned.
///
/// States are cached (10,000 and 256 MiB of events by default), so that the usual command is one round trip to the store. The store checks a
/// cached state: the append expects the last event of the state it was decided on, so that
/// nothing is stored if a failover or a restore has lost that event; a rejection, or a decision without events, that was
/// made on a cached state is repeated after new events were read; and [`Repository::load`] always reads new events.
///
/// # Snapshots
/// Where no state is cached, a load begins with the latest snapshot, if the aggregate has a
/// [`SnapshotPolicy`](crate::SnapshotPolicy), and reads only the events after it. A snapshot is a cache too:
/// - It is taken of a state that is stored: after an append, and after a load of many events. A task of the store's handle
///   saves it beside the commands, in a tokio runtime with timers; [`EventStore::close`] ends it. If too many wait, it is
///   skipped. A unit of work takes and uses none.
/// - It is used only if its stream still has its event, its digest is that of its content, and it was saved by the same
///   fold ([`Repository::snapshot_key`]). Any other is a miss with a line in the log, and an older one or the whole stream is
///   read.
/// - The first one that a handle of the store loads is compared with its events, which are read in full for that. If they
///   give another state, `evolve` has changed without a new `fold` number: an error is logged and no snapshot of the type is
///   used by that handle.
/// - Of each stream up to 16 are kept, the older ones further apart. All of them may be deleted at any time: loads take longer
///   then, and give the same.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::{AggregateStore, Context, ExecuteError, Fingerprint, MemoryStore, RequestKey, Tenant};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let store = MemoryStore::new();
/// let orders = store.aggregate::<Order>();
/// let id = OrderId::new("o-17")?;
///
/// let done = orders.execute(&id, |order| order.place(12_00)).await?;
/// assert_eq!((done.version.get(), done.events, done.state.due), (1, 1, Some(12_00)));
///
/// // The domain may reject.
/// let refused = orders.execute(&id, |order| order.pay(7_00)).await;
/// assert!(matches!(refused, Err(ExecuteError::Rejected(OrderError::WrongAmount { due: 12_00 }))));
///
/// // The same request twice has one effect.
/// let request = RequestKey::new("client-4711", Fingerprint::of(&("pay", "o-17", 12_00))?)?;
/// let keyed = orders.with(Context::of(Tenant::default()).with_request(request));
/// assert!(!keyed.send(&id, Pay { amount: 12_00 }).await?.repeated);
/// assert!(keyed.send(&id, Pay { amount: 12_00 }).await?.repeated);
///
/// assert!(orders.load(&id).await?.state.paid);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Repository<A: Evolve> {
    pub(super) store: Arc<dyn EventStore>,
    pub(super) cache: Cache<A>,
    pub(super) context: Arc<Context>,
    pub(super) turns: Turns,
    pub(super) attempts: u32,
    /// `None` if the aggregate has none, or the store has no place for them.
    pub(super) snapshots: Option<Snapshots<A>>,
    /// The aggregate type, shared by the stream ids made here.
    kind: Arc<str>,
}

impl<A: Evolve> Repository<A> {
    /// A repository over `store`, for the default tenant. Usually created by [`AggregateStore::aggregate`].
    #[must_use]
    pub fn new(store: Arc<dyn EventStore>) -> Self {
        let queue = store.snapshots().map(SnapshotStore::queue);
        let snapshots = queue.zip(A::snapshot_codec()).map(|(queue, codec)| Snapshots::new(codec, queue));
        Self {
            store,
            cache: Cache::new(CACHED_STATES, CACHED_BYTES),
            context: Arc::default(),
            turns: Turns::default(),
            attempts: ATTEMPTS,
            snapshots,
            kind: A::TYPE.into(),
        }
    }

    /// The same repository for commands in other circumstances: of another tenant, with a deadline, a request key, ..
    ///
    /// Events get the context's metadata. If it has no causation id but a request key, the request is the cause. The cache is
    /// shared; states of different tenants are kept apart.
    ///
    /// ```
    /// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
    /// # use order::*;
    /// use annals_eventstore::{Actor, AggregateStore, Context, MemoryStore, Tenant};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// let orders = MemoryStore::new().aggregate::<Order>();
    /// let north = orders.with(Context::of(Tenant::new("north")?).with_actor(Actor::new("alice")?));
    ///
    /// let id = OrderId::new("o-17")?;
    /// north.execute(&id, |order| order.place(12_00)).await?;
    /// assert_eq!(north.load(&id).await?.version.get(), 1);
    /// assert_eq!(orders.load(&id).await?.version.get(), 0); // the default tenant has no such order
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with(&self, context: Context) -> Self {
        Self { context: Arc::new(context), ..self.clone() }
    }

    /// The same repository with a new, empty cache of up to `states` states; 10,000 by default. The most recently used are kept.
    /// They have 256 MiB together, see [`Repository::cache_bytes`].
    #[must_use]
    pub fn cache(self, states: u64) -> Self {
        self.cache_bytes(states, CACHED_BYTES)
    }

    /// The same repository with a new, empty cache of up to `states` states and up to `bytes`, at most 4 GiB. A state counts as many
    /// bytes as the payloads of the events that it was folded from, or the snapshot and the events after it: its own size
    /// is not known.
    #[must_use]
    pub fn cache_bytes(self, states: u64, bytes: u64) -> Self {
        Self { cache: Cache::new(states, bytes), ..self }
    }

    /// The same repository without a cache: it reads the whole stream before every command.
    #[must_use]
    pub fn without_cache(self) -> Self {
        self.cache(0)
    }

    /// The same repository, which neither uses nor takes snapshots.
    #[must_use]
    pub fn without_snapshots(self) -> Self {
        Self { snapshots: None, ..self }
    }

    /// The key under which this build saves its snapshots and looks for them; `None` if there are none. It changes with the
    /// fold number, the fields of the state, and the names and schema versions of the events.
    #[must_use]
    pub fn snapshot_key(&self) -> Option<&str> {
        self.snapshots.as_ref().map(|snapshots| &*snapshots.key)
    }

    /// How the snapshots of this type of aggregate have served, through all repositories of the store's handle; all zero if
    /// there are none. The same numbers are the metric `annals_snapshots_total`, with the labels `aggregate` and `result`.
    #[must_use]
    pub fn snapshot_stats(&self) -> SnapshotStats {
        self.snapshots.as_ref().map(|snapshots| snapshots.health.stats()).unwrap_or_default()
    }

    /// The same repository, which decides a command up to `attempts` times (at least once; 10 by default)
    /// when other writers append first.
    #[must_use]
    pub fn attempts(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    /// The stream of the aggregate called `id`, in the tenant of the context.
    ///
    /// # Errors
    /// [`Invalid`] with the field `aggregate_type` or `aggregate_id` if a store could not hold it.
    pub fn stream(&self, id: &A::Id) -> Result<StreamId, Invalid> {
        let id = id.to_string();
        check_name("aggregate_type", &self.kind)?;
        check_name("aggregate_id", &id)?;
        Ok(StreamId::stored(self.context.tenant().clone(), self.kind.clone(), id.into()))
    }

    /// The aggregate's state after its last event, with its version; the default state and version 0 if it has no
    /// events.
    ///
    /// Always reads new events. At the deadline of the context it fails as unavailable.
    ///
    /// # Errors
    /// [`ReadError::Undecodable`] naming an event that this build cannot read; [`ReadError::Invalid`] if no stream
    /// could be called so; [`ReadError::Unavailable`], which is transient; see [`ReadError`] for others.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn load(&self, id: &A::Id) -> Result<Loaded<A>, ReadError> {
        let one = One::new(self, id)?;
        self.read_in_time(one.load(&mut Direct(&*self.store))).await
    }

    /// Decides with `decide` what happens to the aggregate called `id`, and appends it: all of its events or none.
    ///
    /// `decide` gives an event, several, perhaps one, or none. It must be pure, as it may run several times, each time
    /// on a newer state. What it rejects is returned as [`ExecuteError::Rejected`] and leaves no trace.
    ///
    /// Each event is read back before it is stored, so that what could never be read again is refused.
    ///
    /// With a request key in the context, a request that was executed before is not decided again: its first answer is
    /// returned, with `repeated` and the state that it led to, which is read for it. A command without events is stored too; a rejection or a conflict is not.
    ///
    /// If the outcome of the append is unknown, it is repeated with the same event ids, a few times within the deadline of the
    /// context, until it is known. This, a deadline, and waiting for another command need a runtime with tokio's timers.
    ///
    /// # Errors
    /// [`ExecuteError::Rejected`] if the domain rejects; [`ExecuteError::Append`] with
    /// [`AppendError::WrongExpectedVersion`] if other writers appended first in every attempt, or with any other error of the
    /// store; [`ExecuteError::OutcomeUnknown`] with a token, see [`SettleToken`]; see [`ExecuteError`] for others.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown. With a request key, executing the command again is safe; without
    /// one it may have its effect twice.
    ///
    /// # Panics
    /// Only if `decide` or `evolve` panics. Then nothing of the command is stored, and the repository stays usable.
    pub async fn execute<T, R, F>(&self, id: &A::Id, decide: F) -> Result<Executed<A>, ExecuteError<R>>
    where
        T: IntoEvents<A::Event>,
        F: Fn(&A) -> Result<T, R>,
    {
        One::new(self, id)?.execute(&mut Direct(&*self.store), decide).await
    }

    /// Executes a command that the aggregate knows how to [`Decide`].
    ///
    /// # Errors
    /// As of [`Repository::execute`].
    ///
    /// # Cancel safety
    /// As of [`Repository::execute`].
    pub async fn send<C>(
        &self,
        id: &A::Id,
        command: C,
    ) -> Result<Executed<A>, ExecuteError<<A as Decide<C>>::Rejection>>
    where
        A: Decide<C>,
    {
        self.execute(id, |state: &A| state.decide(&command)).await
    }

    /// Executes a command once: [`Repository::send`] under the request key `key`, which belongs to the tenant of the context.
    /// As long as the key is remembered, 24 hours, sending the same again has no second effect and gets the first answer.
    ///
    /// The fingerprint of the request is that of the aggregate, of the command as JSON, and of the name of its type without
    /// path and parameters. So the same key with another command or for another aggregate is refused.
    ///
    /// ```
    /// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
    /// # use order::*;
    /// use annals_eventstore::{AggregateStore, MemoryStore};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// let orders = MemoryStore::new().aggregate::<Order>();
    /// let id = OrderId::new("o-17")?;
    /// orders.execute(&id, |order| order.place(12_00)).await?;
    /// let first = orders.send_once(&id, "client-4711", Pay { amount: 12_00 }).await?;
    /// let again = orders.send_once(&id, "client-4711", Pay { amount: 12_00 }).await?;
    /// assert_eq!((first.version, first.repeated), (again.version, !again.repeated));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As of [`Repository::execute`]; [`ExecuteError::Invalid`] with the field `request_key`, or `body` if the command cannot
    /// be written as JSON; [`AppendError::RequestKeyReused`] if the key was used for another request.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown; send it again with the same key.
    pub async fn send_once<C>(
        &self,
        id: &A::Id,
        key: impl AsRef<str>,
        command: C,
    ) -> Result<Executed<A>, ExecuteError<<A as Decide<C>>::Rejection>>
    where
        A: Decide<C>,
        C: Serialize,
    {
        let asked = (A::TYPE, id.to_string(), type_name_of::<C>(), &command);
        let request = RequestKey::new(key, Fingerprint::of(&asked)?)?;
        self.with(Context::clone(&self.context).with_request(request)).send(id, command).await
    }

    /// Finds out what became of a command whose outcome was unknown; see [`AggregateStore::settle`].
    ///
    /// # Errors
    /// [`ExecuteError::Append`] as of [`AggregateStore::settle`]: after a conflict the command had no effect, and may be executed
    /// again. [`ExecuteError::Read`] if the state cannot be read; [`ExecuteError::Invalid`] with the field `token` if it is one of
    /// another kind of aggregate.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown; call again with the same token.
    pub async fn settle(&self, token: &SettleToken) -> Result<Executed<A>, ExecuteError<Infallible>> {
        let stream = token.stream();
        if stream.aggregate_type() != &*self.kind {
            let fix = "pass it to the repository that executed the command";
            return Err(Invalid::new("token", format!("is one of `{stream}`, not of a `{}`", self.kind), fix).into());
        }
        let appended = ask(&*self.store, token.append(), stream).await?;
        let one = One::of_stream(self, stream.clone());
        one.check_request(&appended, token.append().request())?;
        let known = one.read_at(&mut Direct(&*self.store), &appended).await?;
        Ok(one.answer(&appended, known))
    }

    /// Waits for `read`, not beyond the deadline of the context.
    pub(super) async fn read_in_time<T>(
        &self,
        read: impl Future<Output = Result<T, ReadError>>,
    ) -> Result<T, ReadError> {
        match self.context.deadline() {
            None => read.await,
            Some(deadline) => tokio::time::timeout_at(deadline, read).await.unwrap_or_else(|_| Err(ReadError::late())),
        }
    }

    /// The store that it appends to.
    pub(crate) fn store(&self) -> &dyn EventStore {
        &*self.store
    }

    /// The circumstances of its commands.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// In which circumstances its commands are executed.
    pub(crate) fn circumstances(&self) -> Circumstances<'_> {
        Circumstances { store: &*self.store, context: &self.context, attempts: self.attempts }
    }

    /// What lands in the metadata of events.
    pub(super) fn metadata(&self) -> Metadata {
        self.context.event_metadata()
    }
}

impl<A: Evolve> Clone for Repository<A> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            cache: self.cache.clone(),
            context: self.context.clone(),
            turns: self.turns.clone(),
            attempts: self.attempts,
            snapshots: self.snapshots.clone(),
            kind: self.kind.clone(),
        }
    }
}

impl<A: Evolve> fmt::Debug for Repository<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository")
            .field("aggregate_type", &self.kind)
            .field("context", &self.context)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

/// The name of a type without its path and its parameters: moving it to another module changes no fingerprint.
fn type_name_of<C>() -> &'static str {
    let whole = std::any::type_name::<C>();
    let name = whole.split('<').next().unwrap_or(whole);
    name.rsplit("::").next().unwrap_or(name)
}
