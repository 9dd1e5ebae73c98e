//! Events together with the user's own SQL in one transaction.

use std::ops::{Deref, DerefMut};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{Row, Sqlite, SqliteConnection, Transaction};

use crate::append::{Append, Appended, CheckedAppend};
use crate::checked::of_request;
use crate::database_error::DatabaseError;
use crate::error::{AppendError, BackendError, Invalid, ReadError};
use crate::position::{Incarnation, Position};
use crate::repository::CommandScope;
use crate::request::RequestKey;
use crate::sqlite::append::requests;
use crate::sqlite::append::round::{Round, RoundError, run};
use crate::sqlite::append::writer::GroupCommit;
use crate::sqlite::connection::database::{NO_TRANSACTION, SqliteDatabase, SqliteTransaction};
use crate::sqlite::connection::session;
use crate::sqlite::fault::result_code;
use crate::sqlite::options::Synchronous;
use crate::sqlite::store::SqliteStore;
use crate::store::{EventStore, StreamPage};
use crate::stream::{StreamId, StreamVersion, Tenant};
use crate::unit_of_work::{RequestScope, TransactionalStore, UnitOfWork, broken, no_stream};

/// ?1 is a list of positions as JSON.
const EVENTS_AT: &str = "
    SELECT count(*)
    FROM json_each(?1) AS p
    CROSS JOIN events AS e ON e.position = p.value
    ORDER BY 1
";

/// Also takes the write lock, which a transaction that began without `IMMEDIATE` may not have yet.
const SAVEPOINT: &str = "
    SAVEPOINT annals_append;
    DELETE FROM annals_request_keys
    WHERE false
";
const KEEP: &str = "RELEASE annals_append";
const UNDO: &str = "ROLLBACK TO annals_append; RELEASE annals_append";

/// A unit of work on SQLite: a transaction that takes appends and the user's own SQL ([`UnitOfWork`]). It dereferences to the
/// connection; dropping it rolls back. [`SqliteStore::begin`] begins it and has an example.
///
/// While it is open no other append of any process can commit, this handle's included, so keep it short: after
/// [`SqliteOptions::busy_timeout`](crate::SqliteOptions::busy_timeout) they fail as [`AppendError::Busy`]. A command in it
/// is decided once. If a
/// statement of the user's own has committed it, what follows fails with [`AppendError::OutcomeUnknown`], as what came
/// before may be stored.
///
/// A temporary table or view with the name of a table of annals, or a temporary trigger on one, would take the events; so a
/// unit of work with appends that has one is refused when it commits. Settings, attached databases and temporary objects
/// end with the unit of work.
pub struct SqliteUnitOfWork {
    transaction: SqliteTransaction,
    store: SqliteStore,
    /// The stream of the first append, for errors.
    stream: Option<StreamId>,
    /// Whether an append was cancelled, so that some of its rows may be there. Then nothing may be committed.
    broken: bool,
}

#[async_trait]
impl CommandScope for SqliteUnitOfWork {
    const IS_TRANSACTION: bool = true;

    async fn load_page(
        &mut self,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<StreamPage, ReadError> {
        let database = self.store.database().clone();
        database.load_stream_on(&mut self.transaction, stream, after, limit).await
    }

    async fn find_request(&mut self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError> {
        let now = self.store.group().now().as_microsecond();
        let database = self.store.database().clone();
        let found = requests::find(&mut self.transaction, tenant, request, now)
            .await
            .map_err(|e| database.fault(e).into_append(no_stream))?;
        found.map(|found| found.answer(tenant, request)).transpose()
    }

    async fn append_once(&mut self, append: Append) -> Result<Appended, AppendError> {
        let append = append.check(self.store.limits_ref())?;
        append.check_deadline()?;
        let first = || append.first_stream();
        self.check_usable(first)?;
        self.broken = true;
        let answer = within(self.store.group(), &mut self.transaction, &append).await;
        self.broken = false;
        let appended = self.store.unless_no_position_left(answer).await?;
        self.stream.get_or_insert_with(first);
        Ok(appended)
    }
}

#[async_trait]
impl RequestScope for SqliteUnitOfWork {
    /// The transaction is the only one that writes, so there is nothing to lock.
    async fn claim(&mut self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError> {
        self.transaction.refuse_commit_by_sql();
        self.find_request(tenant, request).await
    }

    async fn has(&mut self, positions: Vec<Position>) -> Result<bool, AppendError> {
        self.check_usable(no_stream)?;
        let database = self.store.database().clone();
        let asked = serde_json::json!(positions.iter().map(|position| position.get()).collect::<Vec<_>>()).to_string();
        let rows = sqlx::query(EVENTS_AT).bind(asked).fetch_all(&mut *self.transaction).await;
        let rows = rows.map_err(|e| database.fault(e).into_append(no_stream))?;
        Ok(rows.first().is_some_and(|row| usize::try_from(row.get::<i64, _>(0)) == Ok(positions.len())))
    }

    async fn keep(
        &mut self,
        tenant: &Tenant,
        request: &RequestKey,
        answer: &Appended,
    ) -> Result<Option<Appended>, AppendError> {
        let stream = || of_request(tenant, request.key());
        self.check_usable(stream)?;
        let database = self.store.database().clone();
        let fault = |e| database.fault(e).into_append(stream);
        let (now, latest) = (self.store.group().now().as_microsecond(), self.store.group().latest());
        self.broken = true;
        let asked = std::iter::once((0, tenant, request));
        let known = requests::find_all(&mut self.transaction, asked, now, latest).await.map_err(fault)?;
        if let Some(found) = known.remembered.get(&0) {
            return found.answer(tenant, request).map(Some);
        }
        let answered = std::iter::once((tenant, request, answer));
        requests::remember(&mut self.transaction, answered, known.begins, now).await.map_err(fault)?;
        self.broken = false;
        self.stream.get_or_insert_with(stream);
        Ok(None)
    }

    async fn now(&mut self) -> Result<Timestamp, AppendError> {
        Ok(self.store.group().now())
    }
}

impl SqliteUnitOfWork {
    /// Refuses what follows a cancelled append, or the end of the transaction.
    fn check_usable(&self, stream: impl FnOnce() -> StreamId) -> Result<(), AppendError> {
        if self.broken {
            return Err(broken());
        }
        let ended = self.transaction.ended();
        ended.map_or(Ok(()), |e| Err(e.into_append(|| self.stream.clone().unwrap_or_else(stream))))
    }
}

impl UnitOfWork for SqliteUnitOfWork {
    fn incarnation(&self) -> Incarnation {
        self.store.incarnation()
    }

    async fn commit(mut self) -> Result<(), AppendError> {
        if self.broken {
            self.rollback().await?;
            return Err(broken());
        }
        let appended = self.stream.is_some() && self.transaction.ended().is_none();
        if appended && let Some(object) = self.transaction.intercepting().await.map_err(|e| e.into_append(no_stream))? {
            self.rollback().await?;
            return Err(intercepting(&object).into());
        }
        let committed = self.transaction.commit_events().await;
        // What may be stored is announced too.
        self.store.group().announce(committed.as_ref().map_or(Position::START, |head| *head));
        committed.map(drop).map_err(|e| match e {
            // No rule for events waits for the commit.
            DatabaseError::Refused { source } => Invalid::new(
                "transaction",
                format!("breaks a rule of the schema that is looked at when it commits: {source}"),
                "correct your own rows and begin another",
            )
            .into(),
            other => other.into_append(|| self.stream.unwrap_or_else(no_stream)),
        })
    }

    async fn rollback(self) -> Result<(), AppendError> {
        let (transaction, stream) = (self.transaction, self.stream);
        transaction.rollback().await.map_err(|e| e.into_append(|| stream.unwrap_or_else(no_stream)))
    }
}

impl TransactionalStore for SqliteStore {
    type UnitOfWork = SqliteUnitOfWork;
    type Database = SqliteDatabase;

    fn database(&self) -> &SqliteDatabase {
        Self::database(self)
    }

    async fn begin(&self) -> Result<SqliteUnitOfWork, AppendError> {
        Self::begin(self).await
    }
}

fn intercepting(object: &str) -> Invalid {
    Invalid::new(
        "transaction",
        format!("has a temporary {object}, which intercepts appends"),
        "begin another without it",
    )
}

/// Whether SQLite has rolled the transaction back by itself. No statement reports that, so one is begun, which fails inside
/// another; afterwards there is a transaction in any case.
async fn is_lost(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    match sqlx::query("BEGIN").execute(connection).await {
        Ok(_) => Ok(true),
        Err(error) if result_code(&error) == Some(NO_TRANSACTION) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Deref for SqliteUnitOfWork {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.transaction
    }
}

impl DerefMut for SqliteUnitOfWork {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }
}

impl SqliteStore {
    /// Begins a unit of work: events together with the user's own SQL.
    ///
    /// While it is open no other append of any process can commit, so load and decide before it begins. What was
    /// loaded says what the append expects; if the stream has moved on since, the append is refused, and you decide again.
    ///
    /// ```
    /// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
    /// # use order::*;
    /// use annals_eventstore::{AggregateStore, Append, EventStoreExt, UnitOfWork};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let store = annals_eventstore::sqlite(folder.path().join("orders.db")).await?;
    /// let orders = store.aggregate::<Order>();
    /// let order = orders.load(&OrderId::new("o-17")?).await?;
    /// let mut events = Vec::new();
    /// for event in order.state.place(12_00)? {
    ///     events.push(store.new_event(&event)?);
    /// }
    ///
    /// let mut unit = store.begin().await?;
    /// sqlx::query("CREATE TABLE IF NOT EXISTS labels (order_id TEXT PRIMARY KEY) STRICT").execute(&mut *unit).await?;
    /// sqlx::query("INSERT INTO labels (order_id) VALUES (?1)").bind("o-17").execute(&mut *unit).await?;
    /// let done = unit.append(Append::to(order.stream.clone(), order.expected(), events)).await?;
    /// unit.commit().await?; // the events and the label, or neither
    /// assert_eq!(done.version().get(), 1);
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`AppendError::Busy`] if another process, or another unit of work of this handle, kept the write lock for
    /// [`SqliteOptions::busy_timeout`](crate::SqliteOptions::busy_timeout), which is transient; [`AppendError::ReadOnly`];
    /// [`AppendError::Closed`]; others as they come.
    ///
    /// # Cancel safety
    /// Dropping the future, or the unit of work, rolls back.
    pub async fn begin(&self) -> Result<SqliteUnitOfWork, AppendError> {
        let transaction = self.database().begin().await.map_err(|e| e.into_append(no_stream))?;
        Ok(SqliteUnitOfWork { transaction, store: self.clone(), stream: None, broken: false })
    }

    /// Appends inside a transaction that the user has begun on a connection of their own to this store's file.
    ///
    /// A refused append leaves the transaction usable and nothing of itself behind. Readers notice the commit by
    /// polling, see [`SqliteOptions::poll_interval`](crate::SqliteOptions::poll_interval). Begin it with `BEGIN
    /// IMMEDIATE`: one that reads first and writes later fails if another writer has committed in between.
    ///
    /// ```
    /// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
    /// # use order::*;
    /// use annals_eventstore::{Append, EventStoreExt, ExpectedVersion, StreamId, Tenant};
    /// use sqlx::Connection;
    /// use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("orders.db");
    /// let store = annals_eventstore::sqlite(&path).await?;
    /// let options = SqliteConnectOptions::new().filename(&path).synchronous(SqliteSynchronous::Full);
    /// let mut connection = SqliteConnection::connect_with(&options).await?;
    ///
    /// let stream = StreamId::new(Tenant::default(), "order", "o-17")?;
    /// let placed = store.new_event(&OrderEvent::Placed { total: 12_00 })?;
    /// let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    /// let append = Append::to(stream, ExpectedVersion::NoStream, vec![placed]);
    /// let done = store.append_in(&mut transaction, append).await?;
    /// transaction.commit().await?;
    /// assert_eq!(done.version().get(), 1);
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`AppendError::Invalid`] with the field `transaction` if it is not on this store's file, does not see its last event,
    /// SQLite has rolled it back, or it has a temporary object that intercepts appends, or with the field `synchronous` if the connection is less durable than the store; others as of
    /// [`EventStore::append_many`](crate::EventStore::append_many).
    ///
    /// # Cancel safety
    /// Dropping the future may leave a part of the append in the transaction: roll it back.
    pub async fn append_in(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        append: Append,
    ) -> Result<Appended, AppendError> {
        if self.is_closed() {
            return Err(AppendError::Closed);
        }
        let append = append.check(self.limits_ref())?;
        append.check_deadline()?;
        self.check_foreign(transaction).await?;
        let answer = within(self.group(), transaction, &append).await;
        self.unless_no_position_left(answer).await
    }

    async fn check_foreign(&self, connection: &mut SqliteConnection) -> Result<(), AppendError> {
        const SETTINGS: &str = "
            SELECT (SELECT synchronous FROM pragma_synchronous) AS synchronous,
                   (SELECT file FROM pragma_database_list WHERE name = 'main') AS file,
                   (SELECT count(*) FROM sqlite_schema WHERE name = 'annals_store') AS stores
            ORDER BY 1
        ";
        let database = self.database();
        let fault = |e| database.fault(e).into_append(no_stream);
        if is_lost(connection).await.map_err(fault)? {
            sqlx::query("ROLLBACK").execute(connection).await.map_err(fault)?;
            return Err(Invalid::new("transaction", "was rolled back by SQLite", "begin another").into());
        }
        let rows = sqlx::query(SETTINGS).fetch_all(&mut *connection).await.map_err(fault)?;
        let Some(row) = rows.first() else { return Err(AppendError::Closed) };
        let (synchronous, file, stores): (i64, String, i64) = (row.get(0), row.get(1), row.get(2));
        let same_file = match (std::fs::canonicalize(&file), std::fs::canonicalize(database.path())) {
            (Ok(theirs), Ok(ours)) => theirs == ours,
            _ => false,
        };
        if stores == 0 || !same_file {
            return Err(Invalid::new(
                "transaction",
                format!("is on `{file}`, the store is in `{}`", database.path().display()),
                "begin it on a connection to the store's file",
            )
            .into());
        }
        if let Some(object) = session::intercepting(&mut *connection).await.map_err(fault)? {
            return Err(intercepting(&object).into());
        }
        database.check_file().map_err(|e| e.into_append(no_stream))?;
        self.check_sees_head(connection).await?;
        let needed = match self.synchronous() {
            Synchronous::Full => 2,
            Synchronous::Normal => 1,
        };
        if synchronous < needed {
            return Err(Invalid::new(
                "synchronous",
                format!("of the transaction's connection is {synchronous}, the store needs {needed}"),
                "set `PRAGMA synchronous` on the connection before the transaction begins",
            )
            .into());
        }
        Ok(())
    }
}

impl SqliteStore {
    /// A connection that was opened before the file at the path was replaced is still on the old one, and a transaction that
    /// has read before others wrote can no longer write.
    async fn check_sees_head(&self, connection: &mut SqliteConnection) -> Result<(), AppendError> {
        const IS_THERE: &str = "
            SELECT count(*)
            FROM events
            WHERE position = ?1 AND event_id = ?2
            ORDER BY 1
        ";
        let head = self.head().await.map_err(|e| AppendError::Unavailable { source: BackendError::new(e) })?;
        let Some(event_id) = head.event_id else { return Ok(()) };
        let query = sqlx::query(IS_THERE).bind(head.position.get()).bind(event_id.get().as_bytes().to_vec());
        let rows = query.fetch_all(connection).await.map_err(|e| self.database().fault(e).into_append(no_stream))?;
        if rows.first().is_some_and(|row| row.get::<i64, _>(0) == 1) {
            return Ok(());
        }
        Err(Invalid::new(
            "transaction",
            format!("does not see the event at {}, the last of the store", head.position),
            "begin it with `BEGIN IMMEDIATE`, on a connection that was opened after the store's file was put there",
        )
        .into())
    }
}

/// Runs one append inside an open transaction, behind a savepoint.
async fn within(
    group: &GroupCommit,
    connection: &mut SqliteConnection,
    append: &CheckedAppend,
) -> Result<Appended, AppendError> {
    let fault = |e| group.database.fault(e).into_append(|| append.first_stream());
    let appends = std::slice::from_ref(append);
    // A unit of work is rare beside plain appends, so the ids are looked up at once.
    let round = Round { look_up_ids: true, own_transaction: false };
    sqlx::query(SAVEPOINT).execute(&mut *connection).await.map_err(fault)?;
    match run(connection, appends, group, round).await {
        Ok(mut answers) => {
            sqlx::query(KEEP).execute(connection).await.map_err(fault)?;
            answers.pop().expect("one append has one answer")
        }
        Err(RoundError::Failed(error)) => {
            if let Err(later) = sqlx::raw_sql(UNDO).execute(connection).await {
                // SQLite rolls the whole transaction back for some errors, and its savepoints with it.
                tracing::debug!(error = %later, "the transaction of a failed append is gone");
            }
            Err(fault(error))
        }
        Err(RoundError::LookUpIds) => unreachable!("the ids were looked up at once"),
    }
}
