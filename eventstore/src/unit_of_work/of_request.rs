//! A unit of work for one request: it owns the circumstances, and its key is stored once for all that it does.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{RequestScope, TransactionalStore, UnitOfWork, check_store, no_stream};
use crate::aggregate::{Decide, Evolve, IntoEvents};
use crate::append::{Append, Appended, AppendedStream};
use crate::checked::of_request;
use crate::context::Context;
use crate::error::{AppendError, Invalid, ReadError};
use crate::position::Position;
use crate::repository::{CommandScope, ExecuteError, Executed, One, Repository};
use crate::request::RequestKey;
use crate::store::StreamPage;
use crate::stream::{StreamId, StreamVersion, Tenant};

/// How long a commit that comes after its deadline waits for its rollback.
const LATE_ROLLBACK: Duration = Duration::from_millis(30);

/// How a unit of work for a request begins. [`RequestUnitOfWork`] has an example.
#[expect(clippy::large_enum_variant, reason = "there is one per transaction, and most are new")]
pub enum Begun<S: TransactionalStore> {
    /// The request was executed before: its first answer. There is nothing to do.
    Repeated(Appended),
    /// It is new: run it, and commit.
    New(RequestUnitOfWork<S>),
}

/// A unit of work for one request, begun by [`TransactionalStore::begin_with`].
///
/// Its commands and appends have tenant, metadata and deadline of the context that it was begun with; if that has no causation
/// id, the request is the cause. On the connection that it dereferences to, it takes the user's own SQL. The request key is
/// stored when it commits, with an answer about all of its appends. Dropping it rolls back.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::{AggregateStore, Appended, Begun, Context, Fingerprint, RequestKey, SqliteStore, TransactionalStore};
///
/// /// Two orders and a label, or nothing; and nothing again if the request is a repeat.
/// async fn place_both(store: &SqliteStore, context: &Context) -> Result<Appended, Box<dyn std::error::Error>> {
///     let orders = store.aggregate::<Order>();
///     let mut work = match store.begin_with(context).await? {
///         Begun::Repeated(first) => return Ok(first),
///         Begun::New(work) => work,
///     };
///     work.execute(&orders, &OrderId::new("o-17")?, |order| order.place(12_00)).await?;
///     work.execute(&orders, &OrderId::new("o-18")?, |order| order.place(7_50)).await?;
///     sqlx::query("INSERT INTO labels (order_id) VALUES (?1)").bind("o-17").execute(&mut *work).await?;
///     Ok(work.commit().await?)
/// }
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let store = annals_eventstore::sqlite(folder.path().join("orders.db")).await?;
/// # let mut schema = store.database().begin().await?;
/// # sqlx::query("CREATE TABLE labels (order_id TEXT PRIMARY KEY) STRICT").execute(&mut *schema).await?;
/// # schema.commit().await?;
/// let request = RequestKey::new("form-4711", Fingerprint::of(&("place both", "o-17", "o-18"))?)?;
/// let context = Context::default().with_request(request);
/// let first = place_both(&store, &context).await?;
/// let again = place_both(&store, &context).await?;
/// assert!(!first.repeated && again.repeated);
/// assert_eq!(first.streams, again.streams);
/// # Ok(()) }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
pub struct RequestUnitOfWork<S: TransactionalStore> {
    store: S,
    unit: S::UnitOfWork,
    /// The circumstances of the request.
    context: Context,
    /// Those of each of its commands: without the key, which is not theirs.
    of_command: Context,
    /// What was appended, for the answer.
    streams: Vec<AppendedStream>,
    recorded_at: Option<Timestamp>,
    /// The last position of what was appended. They only rise, unless an append was undone.
    last: Position,
    undone: bool,
}

/// Begins a unit of work, unless the request was executed before.
pub(super) async fn begin<S: TransactionalStore>(store: &S, context: &Context) -> Result<Begun<S>, AppendError> {
    if is_late(context) {
        return Err(exceeded(context));
    }
    let begin = async {
        let mut unit = store.begin_for(context.tenant()).await?;
        let first = match context.request() {
            Some(request) => unit.claim(context.tenant(), request).await?,
            None => None,
        };
        match first {
            Some(first) => Ok(Begun::Repeated(roll_back_to(first, store, unit, context).await?)),
            None => Ok(Begun::New(RequestUnitOfWork {
                store: store.clone(),
                unit,
                of_command: context.of_one_command(),
                context: context.clone(),
                streams: Vec::new(),
                recorded_at: None,
                last: Position::START,
                undone: false,
            })),
        }
    };
    match context.deadline() {
        Some(deadline) => tokio::time::timeout_at(deadline, begin).await.map_err(|_| exceeded(context))?,
        None => begin.await,
    }
}

/// Rolls back, and gives the first answer.
async fn roll_back_to<S: TransactionalStore>(
    first: Appended,
    store: &S,
    unit: S::UnitOfWork,
    context: &Context,
) -> Result<Appended, AppendError> {
    unit.rollback().await?;
    // The store itself also waits until standbys have it.
    let again = match context.request() {
        Some(request) => store.find_request(context.tenant(), request).await?,
        None => None,
    };
    Ok(again.unwrap_or(first))
}

fn is_late(context: &Context) -> bool {
    context.deadline().is_some_and(|deadline| deadline <= Instant::now())
}

fn exceeded(context: &Context) -> AppendError {
    let stream = context.request().map_or_else(no_stream, |request| of_request(context.tenant(), request.key()));
    AppendError::DeadlineExceeded { stream }
}

/// Waits until the deadline at most. What is given up then leaves a unit of work that cannot be committed, as late ones cannot.
async fn in_time<T, E: From<AppendError>>(
    deadline: Option<Instant>,
    stream: StreamId,
    run: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match deadline {
        None => run.await,
        Some(deadline) => tokio::time::timeout_at(deadline, run)
            .await
            .unwrap_or_else(|_| Err(AppendError::DeadlineExceeded { stream }.into())),
    }
}

/// Why a unit of work does not commit whose answer would name events that it does not have.
fn undone() -> Invalid {
    Invalid::new(
        "transaction",
        "has lost appended events: a statement of the caller's own, such as ROLLBACK TO, has undone them",
        "begin another, and use savepoints only around rows of your own",
    )
}

impl<S: TransactionalStore> RequestUnitOfWork<S> {
    /// Executes a command as [`UnitOfWork::execute`] does, in the circumstances of this unit of work: those of `repository` do
    /// not apply.
    ///
    /// # Errors
    /// As of [`UnitOfWork::execute`]; [`AppendError::DeadlineExceeded`] at the deadline of the context, after which the unit of
    /// work cannot be committed. After a rejection or a refused append it stays usable.
    ///
    /// # Cancel safety
    /// After the future was dropped the unit of work may not be committable any more.
    pub async fn execute<A, T, R, F>(
        &mut self,
        repository: &Repository<A>,
        id: &A::Id,
        decide: F,
    ) -> Result<Executed<A>, ExecuteError<R>>
    where
        A: Evolve,
        T: IntoEvents<A::Event>,
        F: Fn(&A) -> Result<T, R>,
    {
        check_store(repository, self.unit.incarnation())?;
        let repository = repository.with(self.of_command.clone());
        let (stream, deadline) = (repository.stream(id)?, self.context.deadline());
        in_time(deadline, stream, One::new(&repository, id)?.execute(self, decide)).await
    }

    /// Executes a command that the aggregate knows how to [`Decide`].
    ///
    /// # Errors
    /// As of [`RequestUnitOfWork::execute`].
    ///
    /// # Cancel safety
    /// As of [`RequestUnitOfWork::execute`].
    pub async fn send<A, C>(
        &mut self,
        repository: &Repository<A>,
        id: &A::Id,
        command: C,
    ) -> Result<Executed<A>, ExecuteError<<A as Decide<C>>::Rejection>>
    where
        A: Decide<C>,
    {
        self.execute(repository, id, |state: &A| state.decide(&command)).await
    }

    /// Appends as [`UnitOfWork::append`] does. Events take from the context what their own metadata lack.
    ///
    /// # Errors
    /// As of [`UnitOfWork::append`]; [`AppendError::Invalid`] with the field `tenant` if the append is of another tenant than
    /// the context, or `request_key` if it has a key of its own.
    ///
    /// # Cancel safety
    /// After the future was dropped the unit of work cannot be committed any more.
    pub async fn append(&mut self, append: Append) -> Result<Appended, AppendError> {
        let append = append.within(&self.context)?;
        let stream = append.parts().first().map_or_else(no_stream, |part| part.stream.clone());
        in_time(self.context.deadline(), stream, self.append_once(append)).await
    }

    /// The circumstances that it was begun with.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Commits events, the user's own rows and the request key, and gives the answer: the streams that got events, with their
    /// versions and positions. It is the answer of every repeat.
    ///
    /// If an append without a unit of work came first with the same key, this unit of work is rolled back and the answer is that
    /// of the append, with `repeated`.
    ///
    /// # Errors
    /// As of [`UnitOfWork::commit`]; [`AppendError::DeadlineExceeded`] if the deadline passes before the commit is sent, and
    /// [`AppendError::Invalid`] with the field `transaction` if a savepoint of the user's own has undone events; nothing is stored
    /// then. [`AppendError::OutcomeUnknown`] if it passes after that: begin with the same request again, which tells.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown; begin with the same context again.
    pub async fn commit(self) -> Result<Appended, AppendError> {
        let Some(deadline) = self.context.deadline() else { return self.commit_all(&AtomicBool::new(false)).await };
        let (late, stream) = (exceeded(&self.context), self.of_commit());
        if deadline <= Instant::now() {
            return match tokio::time::timeout(LATE_ROLLBACK, self.unit.rollback()).await {
                Ok(Err(unknown @ AppendError::OutcomeUnknown { .. })) => Err(unknown),
                // A rollback that is given up goes on without anybody waiting for it.
                _ => Err(late),
            };
        }
        let is_sent = AtomicBool::new(false);
        match tokio::time::timeout_at(deadline, self.commit_all(&is_sent)).await {
            Ok(answer) => answer,
            Err(_) if is_sent.into_inner() => Err(AppendError::unanswered(stream)),
            Err(_) => Err(late),
        }
    }

    /// What an error about the commit names.
    fn of_commit(&self) -> StreamId {
        let first = self.streams.first().map(|appended| appended.stream.clone());
        let of_request = |request: &RequestKey| of_request(self.context.tenant(), request.key());
        first.or_else(|| self.context.request().map(of_request)).unwrap_or_else(no_stream)
    }

    /// Says in `is_sent` whether it may have been committed.
    async fn commit_all(mut self, is_sent: &AtomicBool) -> Result<Appended, AppendError> {
        let positions: Vec<_> = self.streams.iter().flat_map(|appended| appended.positions.iter().copied()).collect();
        if self.undone || !self.unit.has(positions).await? {
            self.unit.rollback().await?;
            return Err(undone().into());
        }
        let recorded_at = match self.recorded_at {
            Some(recorded_at) => recorded_at,
            None => self.unit.now().await?,
        };
        let answer = Appended::new(self.streams, recorded_at, false);
        if let Some(request) = self.context.request()
            && let Some(first) = self.unit.keep(self.context.tenant(), request, &answer).await?
        {
            return roll_back_to(first, &self.store, self.unit, &self.context).await;
        }
        is_sent.store(true, Ordering::Release);
        self.unit.commit().await?;
        Ok(answer)
    }

    /// Rolls back, and waits until that is done. The request key is not stored.
    ///
    /// # Errors
    /// As of [`UnitOfWork::rollback`]; [`AppendError::DeadlineExceeded`] if it is not done at the deadline of the context: it goes
    /// on, and nothing is stored.
    ///
    /// # Cancel safety
    /// Dropping the future rolls back as well.
    pub async fn rollback(self) -> Result<(), AppendError> {
        let late = exceeded(&self.context);
        match self.context.deadline() {
            None => self.unit.rollback().await,
            Some(deadline) => {
                let until = deadline.max(Instant::now() + LATE_ROLLBACK);
                tokio::time::timeout_at(until, self.unit.rollback()).await.unwrap_or(Err(late))
            }
        }
    }

    /// Takes what was appended into the answer.
    fn take_in(&mut self, appended: &Appended) {
        self.recorded_at = self.recorded_at.max(Some(appended.recorded_at));
        if !appended.repeated {
            let first = appended.streams.iter().filter_map(|new| new.positions.first()).min();
            self.undone |= first.is_some_and(|first| *first <= self.last);
            self.last = self.last.max(appended.position);
        }
        for new in &appended.streams {
            match self.streams.iter_mut().find(|known| known.stream == new.stream) {
                Some(known) => {
                    known.version = known.version.max(new.version);
                    // In a stream positions rise, and an append may be repeated in its unit of work.
                    let last = known.positions.last().copied();
                    known.positions.extend(new.positions.iter().filter(|position| Some(**position) > last));
                }
                None => self.streams.push(new.clone()),
            }
        }
    }
}

#[async_trait]
impl<S: TransactionalStore> CommandScope for RequestUnitOfWork<S> {
    const IS_TRANSACTION: bool = true;

    async fn load_page(
        &mut self,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<StreamPage, ReadError> {
        self.unit.load_page(stream, after, limit).await
    }

    async fn find_request(&mut self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError> {
        self.unit.find_request(tenant, request).await
    }

    async fn append_once(&mut self, append: Append) -> Result<Appended, AppendError> {
        let appended = self.unit.append_once(append).await?;
        self.take_in(&appended);
        Ok(appended)
    }
}

impl<S: TransactionalStore<UnitOfWork: Deref>> Deref for RequestUnitOfWork<S> {
    type Target = <S::UnitOfWork as Deref>::Target;

    fn deref(&self) -> &Self::Target {
        &self.unit
    }
}

impl<S: TransactionalStore<UnitOfWork: DerefMut>> DerefMut for RequestUnitOfWork<S> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.unit
    }
}

impl<S: TransactionalStore> fmt::Debug for Begun<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repeated(first) => f.debug_tuple("Repeated").field(first).finish(),
            Self::New(work) => f.debug_tuple("New").field(work).finish(),
        }
    }
}

impl<S: TransactionalStore> fmt::Debug for RequestUnitOfWork<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestUnitOfWork")
            .field("context", &self.context)
            .field("streams", &self.streams)
            .finish_non_exhaustive()
    }
}
