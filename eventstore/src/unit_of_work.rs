//! Events together with the user's own SQL: in one transaction.

mod of_request;

use std::future::Future;

use async_trait::async_trait;
use jiff::Timestamp;

pub use of_request::{Begun, RequestUnitOfWork};

use crate::aggregate::{Evolve, IntoEvents};
use crate::append::{Append, Appended};
use crate::context::Context;
use crate::error::{AppendError, BackendError, Invalid, NO_STREAM};
use crate::position::{Incarnation, Position};
use crate::repository::{CommandScope, ExecuteError, Executed, One, Repository};
use crate::request::RequestKey;
use crate::store::EventStore;
use crate::stream::{StreamId, Tenant};

/// A store whose events can be committed together with the user's own rows: [`SqliteStore`](crate::SqliteStore),
/// [`PostgresStore`](crate::PostgresStore). An app that is generic over it runs on both.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::{AggregateStore, TransactionalStore, UnitOfWork};
///
/// /// Two orders are placed, or none, on whichever engine.
/// async fn place_both<S: TransactionalStore>(store: &S, ids: [&OrderId; 2]) -> Result<(), Box<dyn std::error::Error>> {
///     let orders = store.aggregate::<Order>();
///     let mut work = store.begin().await?;
///     for id in ids {
///         work.execute(&orders, id, |order| order.place(12_00)).await?;
///     }
///     work.commit().await?;
///     Ok(())
/// }
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("orders.db");
/// let store = annals_eventstore::sqlite(&path).await?;
/// place_both(&store, [&OrderId::new("o-17")?, &OrderId::new("o-18")?]).await?;
/// # Ok(()) }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
pub trait TransactionalStore: EventStore + Clone {
    /// The transaction.
    type UnitOfWork: UnitOfWork;
    /// The database of the events, for queries and for read models beside them: [`SqliteDatabase`](crate::SqliteDatabase) or
    /// [`PostgresDatabase`](crate::PostgresDatabase). An app that is generic over the engines implements a trait of its own
    /// for both, with a method per query, and asks for `S: TransactionalStore<Database: Queries>`.
    type Database: Clone + Send + Sync + 'static;

    /// The database. It is closed with the store.
    fn database(&self) -> &Self::Database;

    /// Begins a unit of work.
    ///
    /// # Errors
    /// [`AppendError`]; nothing is stored.
    ///
    /// # Cancel safety
    /// Dropping the future, or the unit of work, rolls back.
    fn begin(&self) -> impl Future<Output = Result<Self::UnitOfWork, AppendError>> + Send;

    /// The same for a tenant, so that its units of work leave room for those of others.
    #[doc(hidden)]
    fn begin_for(&self, tenant: &Tenant) -> impl Future<Output = Result<Self::UnitOfWork, AppendError>> + Send {
        let _ = tenant;
        self.begin()
    }

    /// Begins a unit of work for one request, or gives its first answer if it was executed before: then nothing of it runs
    /// again. [`RequestUnitOfWork`] has an example.
    ///
    /// The request key of `context` is looked up before anything is decided, and stored once, when the unit of work commits,
    /// with an answer about all that it appended. Two that begin with the same key run one after the other, so that the second
    /// finds the answer of the first. Without a request key it always begins.
    ///
    /// It is ended by its own methods, never by SQL. SQLite refuses a COMMIT of the user's own while a request key is not stored
    /// yet, and rolls back. PostgreSQL cannot refuse it: what was executed before it is committed without the key, and a repeat
    /// may run again.
    ///
    /// # Errors
    /// As of [`TransactionalStore::begin`]; [`AppendError::RequestKeyReused`] if the key was used for another request;
    /// [`AppendError::DeadlineExceeded`] if the deadline of the context passes first; [`AppendError::Busy`] if a unit of work
    /// with the same key runs for too long. Nothing is stored.
    ///
    /// # Cancel safety
    /// Dropping the future, or the unit of work, rolls back.
    fn begin_with(&self, context: &Context) -> impl Future<Output = Result<Begun<Self>, AppendError>> + Send {
        of_request::begin(self, context)
    }
}

/// A transaction that takes appends, commands and, on the connection that it dereferences to, the user's own SQL. Dropping
/// it rolls back. [`SqliteStore::begin`](crate::SqliteStore::begin) and
/// [`PostgresStore::begin`](crate::PostgresStore::begin) have an example.
///
/// Implemented by the units of work of the stores and sealed.
pub trait UnitOfWork: RequestScope + Sized {
    /// Appends inside the transaction. The answer holds once the unit of work is committed.
    ///
    /// A refused append, that is a conflict, taken event ids, a full stream or a used request key, leaves the transaction
    /// usable and unchanged.
    ///
    /// # Errors
    /// As of [`EventStore::append_many`]. After another failure, such as a deadlock, a timeout, a full disk or a lost
    /// connection, the engine may have rolled the transaction back: then this and what follows fails with
    /// [`AppendError::Unavailable`].
    ///
    /// # Cancel safety
    /// After the future was dropped the unit of work cannot be committed any more.
    fn append(&mut self, append: Append) -> impl Future<Output = Result<Appended, AppendError>> + Send {
        self.append_once(append)
    }

    /// Executes a command of the aggregate called `id` inside the transaction: its events are stored together with
    /// the user's own rows, or not at all.
    ///
    /// The aggregate is read inside the transaction, so it includes earlier appends of the transaction. If another writer
    /// appends after the read (on SQLite none can), it is read and decided again, as often as `repository` allows.
    /// Context, metadata and request key are those of `repository`; for one key for all commands of the unit of work, begin it
    /// by [`TransactionalStore::begin_with`]. After a rejection or a refused append the unit of work stays usable.
    ///
    /// # Errors
    /// See [`ExecuteError`]; nothing of the command is in the transaction then. [`ExecuteError::Invalid`] with the field
    /// `repository` if it is one of another store.
    ///
    /// # Cancel safety
    /// After the future was dropped the unit of work may not be committable any more.
    fn execute<A, T, R, F>(
        &mut self,
        repository: &Repository<A>,
        id: &A::Id,
        decide: F,
    ) -> impl Future<Output = Result<Executed<A>, ExecuteError<R>>> + Send
    where
        A: Evolve,
        T: IntoEvents<A::Event> + Send,
        R: Send,
        F: Fn(&A) -> Result<T, R> + Send,
    {
        async move {
            check_store(repository, self.incarnation())?;
            One::new(repository, id)?.execute(self, decide).await
        }
    }

    /// The incarnation of the store that the transaction is one of.
    fn incarnation(&self) -> Incarnation;

    /// Commits the events and the user's own rows. Readers are woken.
    ///
    /// # Errors
    /// [`AppendError`]; unless its family is *outcome unknown*, nothing is stored. [`AppendError::Unavailable`] if an append
    /// was cancelled, or the engine has rolled the transaction back before; [`AppendError::Invalid`] with the field
    /// `transaction` if a constraint that is checked at the end refuses the user's rows; on SQLite
    /// [`AppendError::OutcomeUnknown`] also if a statement of the user's own has committed before.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    fn commit(self) -> impl Future<Output = Result<(), AppendError>> + Send;

    /// Rolls back, and waits until that is done.
    ///
    /// # Errors
    /// [`AppendError`]; unless its family is *outcome unknown*, nothing is stored.
    ///
    /// # Cancel safety
    /// Dropping the future rolls back as well.
    fn rollback(self) -> impl Future<Output = Result<(), AppendError>> + Send;
}

/// What a unit of work for one request needs of its transaction.
#[async_trait]
pub trait RequestScope: CommandScope {
    /// Waits for units of work with the same key, until the end of the transaction keeps others waiting, and gives the stored
    /// answer, if there is one.
    async fn claim(&mut self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError>;

    /// Whether the transaction still has the events at these positions: a savepoint of the user's own may have undone them.
    async fn has(&mut self, positions: Vec<Position>) -> Result<bool, AppendError>;

    /// Stores the answer. If one append came first with the key, nothing is stored, and the first answer is returned.
    async fn keep(
        &mut self,
        tenant: &Tenant,
        request: &RequestKey,
        answer: &Appended,
    ) -> Result<Option<Appended>, AppendError>;

    /// The time, for an answer about no events.
    async fn now(&mut self) -> Result<Timestamp, AppendError>;
}

/// A command in a unit of work is one of its store.
fn check_store<A: Evolve>(repository: &Repository<A>, incarnation: Incarnation) -> Result<(), Invalid> {
    if repository.store().incarnation() == incarnation {
        return Ok(());
    }
    Err(Invalid::new("repository", "is one of another store", "use one of this store"))
}

/// What an error names when it is about no append at all.
pub(crate) fn no_stream() -> StreamId {
    StreamId::stored(Tenant::default(), NO_STREAM.0.into(), NO_STREAM.1.into())
}

/// Why a unit of work with a cancelled append cannot continue.
pub(crate) fn broken() -> AppendError {
    AppendError::Unavailable {
        source: BackendError::new(
            "an append of the unit of work was cancelled, or has failed with its transaction; begin another",
        ),
    }
}
