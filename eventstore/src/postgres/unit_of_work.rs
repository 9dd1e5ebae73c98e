//! Events together with the user's own SQL: in one transaction.

use std::ops::{Deref, DerefMut};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{PgConnection, Postgres, Row, Transaction};
use tokio::time::{Instant, timeout};

use crate::answer;
use crate::append::{Append, Appended, CheckedAppend};
use crate::checked::of_request;
use crate::error::{AppendError, BackendError, Holder, Invalid, ReadError};
use crate::position::{Incarnation, Position};
use crate::postgres::append::in_transaction::{NotDone, failed, other_store, within};
use crate::postgres::append::replication::confirm;
use crate::postgres::append::shares::Share;
use crate::postgres::append::single;
use crate::postgres::connection::pool::Query;
use crate::postgres::database::{NotBegun, PostgresDatabase, PostgresTransaction};
use crate::postgres::fault::{append_fault, not_through_pooler, was_blocked};
use crate::postgres::micros::Micros;
use crate::postgres::store::PostgresStore;
use crate::repository::CommandScope;
use crate::request::RequestKey;
use crate::store::{EventStore, StreamPage};
use crate::stream::{StreamId, StreamVersion, Tenant};
use crate::unit_of_work::{RequestScope, TransactionalStore, UnitOfWork, broken, no_stream};

/// The settings that a caller's transaction must have. Reads nothing that could fail in another database.
const SETTINGS: &str = "
    SELECT current_setting('transaction_isolation') AS transaction_isolation,
           current_setting('transaction_read_only') AS transaction_read_only,
           current_setting('synchronous_commit') AS synchronous_commit,
           to_regprocedure('annals.be_durable()') IS NOT NULL AS has_store
    ORDER BY 1
";

const APPEND_CLAIM: &str = "
    SELECT fingerprint, result
    FROM annals.append_claim($1, $2)
    WHERE kind = 'remembered'
    ORDER BY 1
";

const APPEND_KEEP: &str = "
    SELECT fingerprint, result
    FROM annals.append_keep($1, $2, $3, $4, $5)
    WHERE kind = 'remembered'
    ORDER BY 1
";

/// Whether the transaction is still the one that was begun, and how many of the positions have an event.
const EVENTS_AT: &str = "
    SELECT coalesce(current_setting('annals.transaction', true), '') = 'open',
           (SELECT coalesce(sum((SELECT count(*) FROM annals.events AS e WHERE e.position = p.position)), 0)::bigint
            FROM unnest($1::bigint[]) AS p (position))
    ORDER BY 1
";

const NOW: &str = "
    SELECT clock_timestamp()
    ORDER BY 1
";

/// A unit of work on PostgreSQL: a transaction that takes appends and the user's own SQL ([`UnitOfWork`]). It dereferences to
/// the connection; dropping it rolls back.
///
/// It is READ COMMITTED and durable: each statement sees what was committed when it begins, by others too. From its first
/// append until it ends, readers of the whole log wait for it, as do appends to the same streams; so keep it short. If it
/// is idle for longer than [`PostgresOptions::idle_timeout`](crate::postgres::PostgresOptions::idle_timeout), the server
/// ends it. An append that meets an event of another open transaction in its stream waits until that one ends, for up to
/// 5 s; then it is refused as [`AppendError::Busy`].
///
/// Two units of work that append to the same streams in a different order may deadlock: the server ends one of them, with
/// a transient error. Append to several streams at once ([`Append::and`]), or always in the same order.
pub struct PostgresUnitOfWork {
    transaction: PostgresTransaction,
    store: PostgresStore,
    last: Position,
    /// The stream of the first append, for errors.
    stream: Option<StreamId>,
    /// Whether an append was cancelled or has failed with its transaction. Then nothing may be committed.
    broken: bool,
    /// That of its tenant in the connections; nothing where it is not known whose it is.
    share: Option<Share>,
}

#[async_trait]
impl CommandScope for PostgresUnitOfWork {
    const IS_TRANSACTION: bool = true;

    async fn load_page(
        &mut self,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<StreamPage, ReadError> {
        self.store.reader().load_stream_on(&mut self.transaction, stream, after, limit).await
    }

    async fn find_request(&mut self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError> {
        let rows = single::request_by_key(tenant, request).fetch_all(&mut *self.transaction).await;
        let rows = rows.map_err(|e| failed(e, no_stream))?;
        single::first_answer(tenant, request, &rows)
    }

    /// One round trip.
    async fn append_once(&mut self, append: Append) -> Result<Appended, AppendError> {
        let append = append.check(self.store.limits())?;
        if self.broken {
            return Err(broken());
        }
        if let Some(request) = append.request.as_ref().filter(|_| !append.about.is_empty()) {
            let answer = Appended::new(append.about.clone(), self.now().await?, false);
            let first = self.keep(&append.tenant, request, &answer).await?;
            return Ok(first.unwrap_or(answer));
        }
        self.broken = true;
        let appended = in_time(&append, within(&mut self.transaction, None, &append)).await;
        self.broken = matches!(appended, Err(NotDone::Failed(_)));
        let appended = appended?;
        self.stream.get_or_insert_with(|| append.first_stream());
        if !appended.repeated {
            self.last = self.last.max(appended.position);
        }
        Ok(appended)
    }
}

#[async_trait]
impl RequestScope for PostgresUnitOfWork {
    async fn claim(&mut self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError> {
        let claim = sqlx::query(APPEND_CLAIM).bind(tenant.as_str()).bind(request.key());
        self.first_answer(tenant, request, claim).await
    }

    async fn has(&mut self, positions: Vec<Position>) -> Result<bool, AppendError> {
        if self.broken {
            return Err(broken());
        }
        let asked: Vec<_> = positions.iter().map(|position| position.get()).collect();
        let query = sqlx::query(EVENTS_AT).bind(asked).fetch_one(&mut *self.transaction);
        let row = query.await.map_err(|e| failed(e, no_stream))?;
        let (is_open, found): (bool, i64) = (single::get(&row, 0)?, single::get(&row, 1)?);
        let has = usize::try_from(found) == Ok(positions.len());
        // What a COMMIT of the user's own has stored gets its key, if late.
        if is_open || has && !positions.is_empty() {
            return Ok(has);
        }
        let why = "one of the caller's own statements has ended the transaction already";
        let stream = self.stream.clone().unwrap_or_else(no_stream);
        Err(AppendError::OutcomeUnknown { stream, source: BackendError::new(why) })
    }

    async fn keep(
        &mut self,
        tenant: &Tenant,
        request: &RequestKey,
        answer: &Appended,
    ) -> Result<Option<Appended>, AppendError> {
        let keep = sqlx::query(APPEND_KEEP)
            .bind(tenant.as_str())
            .bind(request.key())
            .bind(request.fingerprint().get())
            .bind(single::lifetime(request))
            .bind(answer::to_json(answer));
        let first = self.first_answer(tenant, request, keep).await?;
        self.stream.get_or_insert_with(|| of_request(tenant, request.key()));
        Ok(first)
    }

    async fn now(&mut self) -> Result<Timestamp, AppendError> {
        let row = sqlx::query(NOW).fetch_one(&mut *self.transaction).await.map_err(|e| failed(e, no_stream))?;
        let now: Micros = single::get(&row, 0)?;
        Timestamp::from_microsecond(now.0).map_err(|e| single::broken(format!("the time: {e}")))
    }
}

impl PostgresUnitOfWork {
    /// Runs a statement that gives the stored answer to a request, if there is one.
    async fn first_answer(
        &mut self,
        tenant: &Tenant,
        request: &RequestKey,
        query: Query<'_>,
    ) -> Result<Option<Appended>, AppendError> {
        if self.broken {
            return Err(broken());
        }
        self.broken = true;
        let begun = Instant::now();
        let rows = query.fetch_all(&mut *self.transaction).await.map_err(|e| match was_blocked(&e) {
            true => AppendError::Busy { waited: begun.elapsed(), holder: Holder::Transaction },
            false => failed(e, || of_request(tenant, request.key())),
        })?;
        self.broken = false;
        single::first_answer(tenant, request, &rows)
    }
}

impl UnitOfWork for PostgresUnitOfWork {
    fn incarnation(&self) -> Incarnation {
        self.store.incarnation()
    }

    async fn commit(self) -> Result<(), AppendError> {
        if self.broken {
            self.rollback().await?;
            return Err(broken());
        }
        let stream = || self.stream.clone().unwrap_or_else(no_stream);
        let standbys = self.transaction.commit_and_report().await.map_err(|e| append_fault(e, stream))?;
        self.store.announce(self.last);
        if standbys {
            let unknown = |source| AppendError::OutcomeUnknown { stream: stream(), source };
            let connection = self.store.pool().take().await;
            let mut connection = connection.map_err(|e| unknown(BackendError::new(e.into_database())))?;
            confirm(&mut connection).await.map_err(unknown)?;
        }
        Ok(())
    }

    async fn rollback(self) -> Result<(), AppendError> {
        self.transaction.rollback().await.map_err(|e| append_fault(e, no_stream))
    }
}

impl TransactionalStore for PostgresStore {
    type UnitOfWork = PostgresUnitOfWork;
    type Database = PostgresDatabase;

    fn database(&self) -> &PostgresDatabase {
        Self::database(self)
    }

    async fn begin(&self) -> Result<PostgresUnitOfWork, AppendError> {
        Self::begin(self).await
    }

    async fn begin_for(&self, tenant: &Tenant) -> Result<PostgresUnitOfWork, AppendError> {
        let shared = self.shared();
        let share = timeout(shared.pool.timeout(), shared.shares.take(tenant, false)).await.map_err(|_| {
            let why = format!(
                "other units of work and appends of tenant `{tenant}` used its share of the connections for {:?}",
                shared.pool.timeout()
            );
            AppendError::Unavailable { source: BackendError::new(why) }
        })?;
        let mut unit = Self::begin(self).await?;
        unit.share = Some(share);
        Ok(unit)
    }
}

impl Deref for PostgresUnitOfWork {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.transaction
    }
}

impl DerefMut for PostgresUnitOfWork {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }
}

impl PostgresStore {
    /// Begins a unit of work: events together with the user's own SQL.
    ///
    /// Load and decide before it begins, so that it is short. The append expects the version that was loaded; if the stream
    /// has changed since, it is refused, and you decide again. [`UnitOfWork::execute`] does all of that.
    ///
    /// ```no_run
    /// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
    /// # use order::*;
    /// use annals_eventstore::{AggregateStore, Append, EventStoreExt, UnitOfWork};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = annals_eventstore::postgres("postgres://app@localhost/shop").await?;
    /// let orders = store.aggregate::<Order>();
    /// let order = orders.load(&OrderId::new("o-17")?).await?;
    /// let mut events = Vec::new();
    /// for event in order.state.place(12_00)? {
    ///     events.push(store.new_event(&event)?);
    /// }
    ///
    /// let mut unit = store.begin().await?;
    /// sqlx::query("INSERT INTO labels (order_id) VALUES ($1)").bind("o-17").execute(&mut *unit).await?;
    /// let done = unit.append(Append::to(order.stream.clone(), order.expected(), events)).await?;
    /// unit.commit().await?; // the events and the label, or neither
    /// assert_eq!(done.version().get(), 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`AppendError::Unavailable`], which is transient, if no connection was free in time or could be opened;
    /// [`AppendError::Invalid`] with the field `pooled` through a pooler; [`AppendError::Broken`] if the database holds
    /// another incarnation of the store; [`AppendError::Closed`].
    ///
    /// # Cancel safety
    /// Dropping the future, or the unit of work, rolls back.
    pub async fn begin(&self) -> Result<PostgresUnitOfWork, AppendError> {
        if self.database().is_pooled() {
            return Err(not_through_pooler().into());
        }
        let transaction = self.database().begin_unit_of_work().await.map_err(|e| match e {
            NotBegun::NoConnection(e) => e.into_append(),
            NotBegun::Refused(e) => failed(e, no_stream),
        })?;
        let store = self.clone();
        Ok(PostgresUnitOfWork { transaction, store, last: Position::START, stream: None, broken: false, share: None })
    }

    /// Appends inside a transaction that the caller has begun on their own connection to this store's database.
    ///
    /// A refused append leaves the transaction usable and unchanged. Readers find the commit by polling. From the append until
    /// the transaction ends, readers of the whole log wait for it. It must be READ COMMITTED, as a transaction with one
    /// snapshot does not see the append that it conflicts with.
    ///
    /// ```no_run
    /// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
    /// # use order::*;
    /// use annals_eventstore::{Append, EventStoreExt, ExpectedVersion, StreamId, Tenant};
    /// use sqlx::{Connection, PgConnection};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = annals_eventstore::postgres("postgres://app@localhost/shop").await?;
    /// let mut connection = PgConnection::connect("postgres://app@localhost/shop").await?;
    ///
    /// let stream = StreamId::new(Tenant::default(), "order", "o-17")?;
    /// let placed = store.new_event(&OrderEvent::Placed { total: 12_00 })?;
    /// let mut transaction = connection.begin().await?;
    /// store.append_in(&mut transaction, Append::to(stream, ExpectedVersion::NoStream, vec![placed])).await?;
    /// transaction.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`AppendError::Invalid`] with the field `transaction` if it is not on this store's database or has failed already. If
    /// `transaction_isolation`, `transaction_read_only` or `synchronous_commit` does not fit, the field names the setting. The
    /// transaction is unchanged then. Others as of [`UnitOfWork::append`].
    ///
    /// # Cancel safety
    /// After the future was dropped the transaction must be rolled back, as it may contain the events.
    pub async fn append_in(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        append: Append,
    ) -> Result<Appended, AppendError> {
        if self.reader().pool.is_closed() {
            return Err(AppendError::Closed);
        }
        let append = append.check(self.limits())?;
        append.check_deadline()?;
        let check = async { check_foreign(transaction).await.map_err(NotDone::Refused) };
        in_time(&append, check).await?;
        Ok(in_time(&append, within(transaction, Some(self.incarnation()), &append)).await?)
    }
}

/// Waits for a statement of an append, not beyond its deadline. After that the transaction cannot go on.
async fn in_time<T>(append: &CheckedAppend, run: impl Future<Output = Result<T, NotDone>>) -> Result<T, NotDone> {
    let late = || NotDone::Failed(AppendError::DeadlineExceeded { stream: append.first_stream() });
    match append.deadline {
        None => run.await,
        Some(deadline) => tokio::time::timeout_at(deadline, run).await.unwrap_or_else(|_| Err(late())),
    }
}

async fn check_foreign(connection: &mut PgConnection) -> Result<(), AppendError> {
    let rows = sqlx::query(SETTINGS).fetch_all(connection).await.map_err(|e| failed(e, no_stream))?;
    let setting = |name| rows.first().and_then(|row| row.try_get::<&str, _>(name).ok()).unwrap_or_default();
    let refused = |name, fix| Err(Invalid::new(name, format!("is `{}`", setting(name)), fix).into());
    if !matches!(setting("transaction_isolation"), "read committed" | "read uncommitted") {
        let fix = "begin the transaction with `ISOLATION LEVEL READ COMMITTED`";
        return refused("transaction_isolation", fix);
    }
    if setting("transaction_read_only") != "off" {
        return refused("transaction_read_only", "begin the transaction on the primary, with `READ WRITE`");
    }
    if !matches!(setting("synchronous_commit"), "on" | "remote_apply") {
        return refused("synchronous_commit", "run `SET LOCAL synchronous_commit = on` in the transaction first");
    }
    if !rows.first().is_some_and(|row| row.try_get("has_store").unwrap_or(false)) {
        return Err(other_store().into());
    }
    Ok(())
}
