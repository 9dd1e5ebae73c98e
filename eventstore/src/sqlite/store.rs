//! The store: a handle on one file, its writer task and the task that watches other processes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use annals_migrations::SQLITE_EVENTS;
use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinError, JoinHandle};
use uuid::Uuid;

use crate::append::{Append, Appended, CheckedAppend};
use crate::as_of::AsOf;
use crate::clock::IdSource;
use crate::database_error::DatabaseError;
use crate::error::{AppendError, BackendError, OpenError, ReadError};
use crate::filter::{Filter, StreamFilter};
use crate::limits::Limits;
use crate::position::{After, Checkpoint, Incarnation, Position};
use crate::queue::{Bounds, Queue};
use crate::request::RequestKey;
use crate::snapshot::{SnapshotQueue, SnapshotStore};
use crate::spawned::Spawned;
use crate::sqlite::append::direct::DirectWriter;
use crate::sqlite::append::requests;
use crate::sqlite::append::writer::GroupCommit;
use crate::sqlite::connection::database::SqliteDatabase;
use crate::sqlite::options::{SqliteOptions, Synchronous};
use crate::store::{EventStore, Page, StreamInfo, StreamPage};
use crate::stream::{StreamId, StreamVersion, Tenant};
use crate::time_marks::TimeMarks;

const INCARNATION_AND_LAST_TIME: &str = "
    SELECT incarnation,
           (SELECT recorded_at
            FROM events
            ORDER BY position DESC
            LIMIT 1) AS last_recorded_at
    FROM annals_store
    ORDER BY only_row
";

const LAST_POSITION_IS_USED: &str = "
    SELECT 1
    FROM sqlite_sequence
    WHERE name = 'events' AND seq = ?1
    ORDER BY 1
";

const DATA_VERSION: &str = "PRAGMA data_version";

/// An event store in one SQLite file. Cloning is cheap; all clones share the connections and the writer.
///
/// Several processes may open the same file, on one machine: a network file system is refused. Each commit is on disk
/// before it is acknowledged, unless [`Synchronous::Normal`] was asked for. Appends that arrive together are committed
/// together; [`Limits`] says how many may wait.
///
/// The file must stay where it is while it is open, with its journal beside it: see [`SqliteDatabase`].
///
/// **Backups.** `VACUUM INTO 'copy.db'` by the program `sqlite3`, or SQLite's backup API, copies a store that is open, as of one moment.
/// Once all handles are closed, the file alone is everything and may be copied. Never copy only the file of a store that is open: the
/// latest events are in its journal (`-wal`). A copy without any table is refused when it is opened; one that lacks only some events
/// looks like an older store. A copy of a store whose projections run has their leases too: in the copy they begin when those end, after 5 s
/// by default.
///
/// Its writer, and its watch of other processes, are tasks of the tokio runtime in which it is opened, which needs
/// timers and must run as long as the store is used. Close it with [`EventStore::close`] when you are done.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("orders.db");
/// use annals_eventstore::{AggregateStore, EventStore, SqliteStore};
///
/// let id = OrderId::new("o-17")?;
/// let store = SqliteStore::open(&path).await?;
/// store.aggregate::<Order>().execute(&id, |order| order.place(12_00)).await?;
/// store.close().await;
///
/// let store = SqliteStore::open(&path).await?;
/// assert_eq!(store.aggregate::<Order>().load(&id).await?.state.due, Some(12_00));
/// # store.close().await;
/// # Ok(()) }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone)]
pub struct SqliteStore(Arc<Handle>);

struct Handle {
    group: Arc<GroupCommit>,
    incarnation: Incarnation,
    synchronous: Synchronous,
    closed: AtomicBool,
    marks: TimeMarks,
    snapshots: SnapshotQueue,
    tasks: Mutex<Tasks>,
}

/// What runs beside the callers; nothing is left once it has ended.
struct Tasks {
    writer: Option<JoinHandle<()>>,
    watcher: Option<JoinHandle<()>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.group.queue.close();
        // The writer ends by itself once the queue is empty; the watch of other processes does not.
        if let Some(watcher) = &self.tasks.get_mut().watcher {
            watcher.abort();
        }
    }
}

impl SqliteOptions {
    /// Opens the store. Must be called in the tokio runtime that the store shall live in, see [`SqliteStore`].
    ///
    /// # Errors
    /// As of [`SqliteStore::open`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves a file that may have been created, and that opening it again completes.
    pub async fn open(self) -> Result<SqliteStore, OpenError> {
        SqliteStore::open_with(self).await
    }
}

impl SqliteStore {
    /// Opens the store in the file at `path` with the defaults of [`SqliteOptions`], creating it if it is not there.
    /// `path` is a plain path, not a URL, in a folder that exists.
    ///
    /// # Errors
    /// [`OpenError::Invalid`] with the field `path`; [`OpenError::NotAStore`]; [`OpenError::NewerStore`];
    /// [`OpenError::ReadOnly`]; [`OpenError::Damaged`]; [`OpenError::Unsound`] if a table or guard is gone or the file has
    /// several names; others: see [`OpenError`]. A file that is refused is left
    /// as it was.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a file that may have been created, and that opening it again completes.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        SqliteOptions::new(path).open().await
    }

    async fn open_with(options: SqliteOptions) -> Result<Self, OpenError> {
        let database = SqliteDatabase::open_with(&options).await?;
        if let Err(error) = Self::prepare(&database, &options).await {
            database.close().await;
            return Err(error);
        }
        let (incarnation, last_time) = read_store(&database, &options.path).await?;
        database.set_incarnation(incarnation);
        let head = database.head(incarnation).await.map_err(|e| {
            let path = options.path.display().to_string();
            match e {
                ReadError::Damaged { what, .. } => OpenError::Damaged { path, what },
                other => OpenError::Unavailable { path, source: BackendError::new(other) },
            }
        })?;
        let group = Arc::new(GroupCommit {
            database,
            queue: Arc::new(Queue::new(Bounds::default())),
            limits: options.limits.clone(),
            head: watch::Sender::new(head.position),
            last_batch: AtomicUsize::new(1),
            latest: AtomicI64::new(last_time),
        });
        let writer = tokio::spawn(GroupCommit::write(Arc::clone(&group)));
        let watcher = tokio::spawn(watch_others(Arc::clone(&group), incarnation, options.poll_interval));
        Ok(Self(Arc::new(Handle {
            group,
            incarnation,
            synchronous: options.synchronous,
            closed: AtomicBool::new(false),
            marks: TimeMarks::default(),
            snapshots: SnapshotQueue::new(),
            tasks: Mutex::new(Tasks { writer: Some(writer), watcher: Some(watcher) }),
        })))
    }

    async fn prepare(database: &SqliteDatabase, options: &SqliteOptions) -> Result<(), OpenError> {
        database.migrate(SQLITE_EVENTS).await?;
        if options.synchronous == Synchronous::Normal {
            tracing::warn!(path = %options.path.display(), "synchronous = NORMAL: a power cut may lose acknowledged appends");
        }
        Ok(())
    }

    /// The file that the store lives in: for queries, and for read models beside the events. It is closed with the
    /// store.
    #[must_use]
    pub fn database(&self) -> &SqliteDatabase {
        &self.0.group.database
    }

    pub(crate) fn group(&self) -> &GroupCommit {
        &self.0.group
    }

    pub(crate) fn marks(&self) -> &TimeMarks {
        &self.0.marks
    }

    pub(crate) fn snapshot_queue(&self) -> &SnapshotQueue {
        &self.0.snapshots
    }

    pub(crate) fn limits_ref(&self) -> &Limits {
        &self.0.group.limits
    }

    pub(crate) fn synchronous(&self) -> Synchronous {
        self.0.synchronous
    }

    /// The connection for writing, if no other append uses it or waits for it.
    fn direct_writer(&self) -> Option<DirectWriter> {
        let group = &self.0.group;
        let alone = group.last_batch.load(Ordering::Relaxed) <= 1 && group.queue.is_empty();
        alone.then(|| DirectWriter::of(&group.database)).flatten()
    }

    /// Commits an append without the queue. It has a task of its own, as a caller that polls its future no more, for a while or for
    /// ever, must not keep the connection from others.
    async fn append_directly(&self, mut writer: DirectWriter, append: CheckedAppend) -> Result<Appended, AppendError> {
        let (group, stream, deadline) = (Arc::clone(&self.0.group), append.first_stream(), append.deadline);
        let commit = Spawned::begin(async move {
            let mut answers = group.commit(&mut writer, std::slice::from_ref(&append)).await;
            answers.pop().expect("one append has one answer")
        });
        let committed = match deadline {
            None => Ok(commit.await),
            Some(deadline) => tokio::time::timeout_at(deadline, commit).await,
        };
        match committed {
            Ok(Ok(answer)) => answer,
            Ok(Err(source)) => Err(AppendError::OutcomeUnknown { stream, source }),
            Err(_) => Err(AppendError::unanswered(stream)),
        }
    }

    /// SQLite gives the same code for a full disk and for a log that has used its last position, so it is looked up.
    pub(crate) async fn unless_no_position_left(
        &self,
        answer: Result<Appended, AppendError>,
    ) -> Result<Appended, AppendError> {
        if !matches!(answer, Err(AppendError::StorageFull { .. })) {
            return answer;
        }
        let Ok(mut reader) = self.database().held_reader(None).await else { return answer };
        match sqlx::query(LAST_POSITION_IS_USED).bind(i64::MAX).fetch_optional(&mut *reader).await {
            Ok(Some(_)) => Err(AppendError::no_position_left()),
            _ => answer,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    fn check_open(&self) -> Result<(), ReadError> {
        if self.0.closed.load(Ordering::Acquire) { Err(ReadError::Closed) } else { Ok(()) }
    }
}

/// Opens the store in the file at `path`, creating it if it is not there: [`SqliteStore::open`] under a short name.
///
/// # Errors
/// As of [`SqliteStore::open`].
///
/// # Cancel safety
/// As of [`SqliteStore::open`].
pub async fn sqlite(path: impl AsRef<Path>) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(path).await
}

/// The store's incarnation, and when its last event was recorded.
async fn read_store(database: &SqliteDatabase, path: &Path) -> Result<(Incarnation, i64), OpenError> {
    let path = path.display().to_string();
    let failed = |e: DatabaseError| e.into_open(&path);
    let mut reader = database.held_reader(None).await.map_err(failed)?;
    let rows = sqlx::query(INCARNATION_AND_LAST_TIME).fetch_all(&mut *reader).await;
    let rows = rows.map_err(|e| failed(database.fault(e)))?;
    reader.release();
    rows.first()
        .and_then(|row| {
            let incarnation = Uuid::from_slice(row.get::<&[u8], _>(0)).ok()?;
            Some((Incarnation(incarnation), row.get::<Option<i64>, _>(1).unwrap_or(i64::MIN)))
        })
        .ok_or_else(|| OpenError::Damaged { path, what: "table `annals_store` has no row".to_owned() })
}

fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a task of the store panicked");
    }
}

/// Looks for commits of other processes, and of other connections of this one, while a reader waits.
async fn watch_others(group: Arc<GroupCommit>, incarnation: Incarnation, every: Duration) {
    let mut watched: Option<Watched> = None;
    let mut in_place = true;
    loop {
        tokio::time::sleep(every).await;
        if group.head.receiver_count() == 0 {
            continue;
        }
        // Readers of a file that was replaced would wait for ever: they are woken, read, and get the error.
        let found = group.database.check_file();
        if let Err(error) = &found
            && in_place
        {
            tracing::error!(error = error as &dyn std::error::Error, "the store's file was replaced");
            group.announce(Position::START);
        }
        in_place = found.is_ok();
        if !in_place {
            watched = None;
            continue;
        }
        match Watched::look(&group, incarnation, watched.take()).await {
            Ok(looked) => watched = Some(looked),
            // The next look has another connection, and wakes readers in any case.
            Err(error) => tracing::warn!(%error, "commits of other processes cannot be watched; trying again"),
        }
    }
}

/// A connection for this use alone, and SQLite's count of commits on it. The counts of two connections cannot be compared.
struct Watched {
    connection: SqliteConnection,
    data_version: i64,
}

impl Watched {
    /// Wakes readers if anything was committed since the last look, also a restored backup, with a head
    /// that is lower, or another event at the same position.
    async fn look(group: &GroupCommit, incarnation: Incarnation, last: Option<Self>) -> Result<Self, ReadError> {
        let database = &group.database;
        let failed = DatabaseError::into_read;
        let (mut connection, seen) = match last {
            Some(Self { connection, data_version }) => (connection, Some(data_version)),
            None => (database.own_connection().await.map_err(failed)?, None),
        };
        let rows = sqlx::query(DATA_VERSION).fetch_all(&mut connection).await;
        let rows = rows.map_err(|e| failed(database.fault(e)))?;
        let data_version = rows.first().map_or(0, |row| row.get(0));
        if seen != Some(data_version) {
            let head = database.head_of(&mut connection, incarnation).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the head of the log cannot be read; readers are given the reason");
                Checkpoint::start(incarnation)
            });
            group.announce(head.position);
        }
        Ok(Self { connection, data_version })
    }
}

#[async_trait]
impl EventStore for SqliteStore {
    fn incarnation(&self) -> Incarnation {
        self.0.incarnation
    }

    fn limits(&self) -> &Limits {
        &self.0.group.limits
    }

    fn ids(&self) -> &dyn IdSource {
        &**self.0.group.database.ids()
    }

    async fn append_many(&self, append: Append) -> Result<Appended, AppendError> {
        if self.0.closed.load(Ordering::Acquire) {
            return Err(AppendError::Closed);
        }
        let append = append.check(&self.0.group.limits)?;
        if self.database().is_read_only() {
            return Err(AppendError::ReadOnly { reason: "it was opened with `read_only`".to_owned() });
        }
        append.check_deadline()?;
        let answer = match self.direct_writer() {
            Some(writer) => self.append_directly(writer, append).await,
            None => self.0.group.queue.append(append, &self.0.group.limits).await,
        };
        self.unless_no_position_left(answer).await
    }

    async fn find_request(&self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError> {
        if self.0.closed.load(Ordering::Acquire) {
            return Err(AppendError::Closed);
        }
        let group = &self.0.group;
        let unavailable = |e: DatabaseError| AppendError::Unavailable { source: BackendError::new(e) };
        let mut reader = group.database.held_reader(Some(tenant)).await.map_err(unavailable)?;
        let now = group.now().as_microsecond();
        let found = requests::find(&mut reader, tenant, request, now)
            .await
            .map_err(|e| unavailable(group.database.fault(e)))?;
        reader.release();
        found.map(|found| found.answer(tenant, request)).transpose()
    }

    async fn load_page(&self, stream: &StreamId, after: StreamVersion, limit: usize) -> Result<StreamPage, ReadError> {
        self.check_open()?;
        self.database().load_stream(stream, after, limit).await
    }

    async fn read_page(&self, after: After, filter: &Filter, limit: usize) -> Result<Page, ReadError> {
        self.check_open()?;
        self.database().read_log(self.0.incarnation, after, filter, limit).await
    }

    async fn streams_page(
        &self,
        filter: &StreamFilter,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<StreamInfo>, ReadError> {
        self.check_open()?;
        self.database().streams_after(filter, after, limit).await
    }

    async fn head(&self) -> Result<Checkpoint, ReadError> {
        self.check_open()?;
        self.database().head(self.0.incarnation).await
    }

    async fn log_as_of(&self, as_of: AsOf) -> Result<Checkpoint, ReadError> {
        self.check_open()?;
        self.read_as_of(as_of).await
    }

    async fn check_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), ReadError> {
        self.check_open()?;
        let found = self.database().event_id_at(self.0.incarnation, checkpoint.position).await?;
        checkpoint.check(self.0.incarnation, found)
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.0.group.head.subscribe()
    }

    async fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.group.queue.close();
        // Readers that wait for events are woken, and find the store closed.
        self.0.group.head.send_modify(|_| {});
        self.0.snapshots.close().await;
        // Another caller that closes waits here, and continues after one that was cancelled.
        let mut tasks = self.0.tasks.lock().await;
        if let Some(writer) = &mut tasks.writer {
            report_panic(writer.await);
            tasks.writer = None;
        }
        if let Some(watcher) = &mut tasks.watcher {
            watcher.abort();
            report_panic(watcher.await);
            tasks.watcher = None;
        }
        self.0.group.database.close().await;
        // Readers that wait are woken once more, as all connections are closed now.
        self.0.group.head.send_modify(|_| {});
    }

    fn snapshots(&self) -> Option<&dyn SnapshotStore> {
        Some(self)
    }
}
