//! The store: a handle on one database, and its tasks.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::append::{Append, Appended};
use crate::as_of::AsOf;
use crate::clock::IdSource;
use crate::error::{AppendError, OpenError, ReadError};
use crate::filter::{Filter, StreamFilter};
use crate::limits::Limits;
use crate::position::{After, Checkpoint, Incarnation, Position};
use crate::postgres::append::blocked_streams::BlockedStreams;
use crate::postgres::append::group::is_small;
use crate::postgres::append::shares::Shares;
use crate::postgres::append::single;
use crate::postgres::append::writer::{Shared, Writers, append_outside_groups};
use crate::postgres::connection::pool::Pool;
use crate::postgres::database::PostgresDatabase;
use crate::postgres::fault::NoConnection;
use crate::postgres::notify::{listen, notify};
use crate::postgres::options::PostgresOptions;
use crate::postgres::read::pages::Reader;
use crate::postgres::read::streams::streams_after;
use crate::queue::Bounds;
use crate::request::RequestKey;
use crate::snapshot::{SnapshotQueue, SnapshotStore};
use crate::store::{EventStore, Page, StreamInfo, StreamPage};
use crate::stream::{StreamId, StreamVersion, Tenant};

/// An event store in a PostgreSQL database. Cloning is cheap; all clones share the connections.
///
/// Any number of processes may have the store open. Each append is one round trip and on disk before it is acknowledged.
/// Reads of the whole log wait at a gap that an open transaction may still fill; loads of a stream never wait.
#[derive(Clone)]
pub struct PostgresStore(Arc<Handle>);

struct Handle {
    database: PostgresDatabase,
    reader: Arc<Reader>,
    ids: Arc<dyn IdSource>,
    shared: Shared,
    writers: Writers,
    snapshots: SnapshotQueue,
    /// The tasks that run until the handle is closed.
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

impl PostgresStore {
    /// Opens the store in the database at `url` with the defaults of [`PostgresOptions`].
    ///
    /// # Errors
    /// As of [`PostgresOptions::open`]; [`OpenError::PendingMigrations`] if the schema is missing or old.
    ///
    /// # Cancel safety
    /// Dropping the future opens nothing.
    pub async fn open(url: impl Into<String>) -> Result<Self, OpenError> {
        PostgresOptions::new(url).open().await
    }

    pub(crate) async fn open_with(options: PostgresOptions) -> Result<Self, OpenError> {
        let listen_at = crate::postgres::open::listen_to(&options)?;
        let (pool, name, incarnation) = crate::postgres::open::open(&options).await?;
        let database = PostgresDatabase::over(pool.clone(), name, &options);
        let reader = Arc::new(Reader::new(database.reads().clone(), incarnation));
        let shared = Shared {
            shares: Shares::of(&pool),
            pool,
            limits: options.limits,
            bounds: Bounds::default(),
            blocked_streams: BlockedStreams::default(),
            head: watch::Sender::new(Position::START),
            own: watch::Sender::new(Position::START),
        };
        let writers = Writers::start(options.writers, &shared);
        let horizon = Arc::clone(&reader.horizon);
        let tasks = vec![
            tokio::spawn(horizon.serve(shared.head.clone(), options.horizon_alarm)),
            tokio::spawn(notify(shared.pool.clone(), shared.own.subscribe())),
            tokio::spawn(listen(Arc::clone(&reader), shared.head.clone(), listen_at, options.poll_interval)),
        ];
        Ok(Self(Arc::new(Handle {
            database,
            reader,
            ids: options.ids,
            shared,
            writers,
            snapshots: SnapshotQueue::new(),
            tasks: Mutex::new(tasks),
        })))
    }

    /// The store's database, for read models beside the events.
    ///
    /// Its connections are those of the store: large appends and units of work cannot use one that is borrowed or in a transaction;
    /// reads and small appends have others. Where many are borrowed for long, open the database separately ([`PostgresDatabase::open`]).
    #[must_use]
    pub fn database(&self) -> &PostgresDatabase {
        &self.0.database
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.0.reader
    }

    /// Wakes readers when events up to `position` were committed.
    pub(crate) fn announce(&self, position: Position) {
        self.0.shared.committed(position);
    }

    pub(crate) fn snapshot_queue(&self) -> &SnapshotQueue {
        &self.0.snapshots
    }

    /// The connections for reads.
    pub(crate) fn pool(&self) -> &Pool {
        &self.0.reader.pool
    }

    fn check_open(&self) -> Result<(), ReadError> {
        if self.pool().is_closed() { Err(ReadError::Closed) } else { Ok(()) }
    }
}

/// Opens the store in the database at `url`: [`PostgresStore::open`] under a short name.
///
/// ```no_run
/// # async fn run() -> Result<(), annals_eventstore::OpenError> {
/// let store = annals_eventstore::postgres("postgres://app@localhost/shop").await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// As of [`PostgresOptions::open`]; [`OpenError::PendingMigrations`] if the schema is missing or old.
///
/// # Cancel safety
/// Dropping the future opens nothing.
pub async fn postgres(url: impl Into<String>) -> Result<PostgresStore, OpenError> {
    PostgresStore::open(url).await
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").field("incarnation", &self.0.reader.incarnation).finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStore for PostgresStore {
    fn incarnation(&self) -> Incarnation {
        self.0.reader.incarnation
    }

    fn limits(&self) -> &Limits {
        &self.0.shared.limits
    }

    fn ids(&self) -> &dyn IdSource {
        &*self.0.ids
    }

    async fn append_many(&self, append: Append) -> Result<Appended, AppendError> {
        if self.pool().is_closed() {
            return Err(AppendError::Closed);
        }
        let shared = &self.0.shared;
        let append = append.check(&shared.limits)?;
        let turn_in_stream = match append.parts.as_slice() {
            [part] => shared.blocked_streams.find(&part.stream),
            _ => None,
        };
        if turn_in_stream.is_none() && is_small(&append) {
            return self.0.writers.append(append, &shared.limits).await;
        }
        let _place = shared.bounds.enter(&append, &shared.limits)?;
        append_outside_groups(shared, &append, turn_in_stream).await
    }

    async fn find_request(&self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError> {
        let mut connection = self.pool().take_for(Some(tenant)).await.map_err(NoConnection::into_append)?;
        single::find_request(&mut connection, tenant, request).await
    }

    async fn load_page(&self, stream: &StreamId, after: StreamVersion, limit: usize) -> Result<StreamPage, ReadError> {
        self.check_open()?;
        self.0.reader.load_stream(stream, after, limit).await
    }

    async fn read_page(&self, after: After, filter: &Filter, limit: usize) -> Result<Page, ReadError> {
        self.check_open()?;
        self.0.reader.read_log(after, filter, limit).await
    }

    async fn streams_page(
        &self,
        filter: &StreamFilter,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<StreamInfo>, ReadError> {
        self.check_open()?;
        streams_after(self.pool(), filter, after, limit).await
    }

    async fn head(&self) -> Result<Checkpoint, ReadError> {
        self.check_open()?;
        self.0.reader.head().await
    }

    async fn log_as_of(&self, as_of: AsOf) -> Result<Checkpoint, ReadError> {
        self.check_open()?;
        self.0.reader.read_as_of(as_of).await
    }

    async fn check_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), ReadError> {
        self.check_open()?;
        let found = match checkpoint.event_id {
            Some(_) => self.0.reader.event_id_at(checkpoint.position).await?,
            None => None,
        };
        checkpoint.check(self.incarnation(), found)
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.0.shared.head.subscribe()
    }

    async fn close(&self) {
        self.0.writers.close().await;
        self.0.snapshots.close().await;
        tokio::join!(self.pool().close(), self.0.shared.pool.close());
        let tasks = std::mem::take(&mut *self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            task.abort();
            if let Err(error) = task.await
                && error.is_panic()
            {
                tracing::error!(%error, "a task of the store panicked");
            }
        }
        // Wake waiting readers, so that they see that the handle is closed.
        self.0.shared.head.send_modify(|_| {});
    }

    fn snapshots(&self) -> Option<&dyn SnapshotStore> {
        Some(self)
    }
}
