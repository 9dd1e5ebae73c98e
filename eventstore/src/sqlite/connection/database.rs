//! One SQLite file: one connection for writing behind a fair lock, and a pool of connections for reading.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use crate::clock::{Clock, IdSource};
use crate::database_error::DatabaseError;
use crate::error::{BackendError, Holder, OpenError};
use crate::position::{Incarnation, Position};
use crate::queue::{Permit, Permits};
use crate::sqlite::connection::file::OpenedFile;
use crate::sqlite::connection::interrupt::Interrupt;
use crate::sqlite::connection::open::{Opened, connect};
use crate::sqlite::connection::session::{self, COMMIT, COMMIT_AT_HEAD, Session};
use crate::sqlite::fault::{is_refused_commit, may_pass, result_code};
use crate::sqlite::options::SqliteOptions;
use crate::stream::Tenant;

const BEGIN: &str = "BEGIN IMMEDIATE";
const ROLLBACK: &str = "ROLLBACK";
const REFUSE_TO_WRITE: &str = "PRAGMA query_only = ON";

const INCARNATION: &str = "
    SELECT incarnation
    FROM annals_store
    ORDER BY only_row
";

/// How long another transaction of this process is waited for at least: those of projections are only this short.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// Reads of which none has come to an end for so long have futures that nobody polls, most likely: who waits, and so is polled, gets a
/// connection beside those of the limit.
const STALLED: Duration = Duration::from_millis(500);

/// After so long a read that waits beside stalled ones has shown that its own future is polled.
const IS_POLLED: Duration = Duration::from_millis(10);

/// How long reads are waited for of which none comes to an end, where there is no other connection either.
const LONGEST_READ: Duration = Duration::from_secs(10);

/// The result code of ROLLBACK outside of a transaction (`SQLITE_ERROR`).
pub(crate) const NO_TRANSACTION: i32 = 1;

/// A SQLite file: the lock for the writers of this process, and the connections.
///
/// Cloning is cheap; all clones share the connections. The events live in such a file, and read models may live in
/// the same one or in another. Open a file once per process: two handles wait for each other's writes as two processes
/// do.
///
/// The file must stay where it is while it is open, with its journal (`-wal`, `-shm`) beside it and under one name. Once
/// its name means another file, or none, nothing is read or written any more ([`DatabaseError::FileReplaced`]). So close
/// all handles before you restore a backup over it, and remove journal and index together with the old file.
///
/// ```
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("reports.db");
/// use annals_eventstore::SqliteDatabase;
///
/// let database = SqliteDatabase::open(&path).await?;
///
/// let mut transaction = database.begin().await?;
/// sqlx::query("CREATE TABLE labels (order_id TEXT PRIMARY KEY) STRICT").execute(&mut *transaction).await?;
/// sqlx::query("INSERT INTO labels VALUES (?1)").bind("o-17").execute(&mut *transaction).await?;
/// transaction.commit().await?;
///
/// let mut reader = database.read().await?;
/// let labels: i64 = sqlx::query_scalar("SELECT count(*) FROM labels").fetch_one(&mut *reader).await?;
/// assert_eq!(labels, 1);
/// assert!(sqlx::query("DELETE FROM labels").execute(&mut *reader).await.is_err(), "it only reads");
///
/// drop(reader);
/// database.close().await;
/// # Ok(()) }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone)]
pub struct SqliteDatabase(Arc<Inner>);

struct Inner {
    connect: SqliteConnectOptions,
    path: std::path::PathBuf,
    file: Arc<OpenedFile>,
    /// That of the store in the file, once a store has read it.
    incarnation: OnceLock<Incarnation>,
    /// Where the file was opened.
    runtime: Handle,
    clock: Arc<dyn Clock>,
    is_system_clock: bool,
    ids: Arc<dyn IdSource>,
    busy_timeout: Duration,
    read_only: bool,
    closed: AtomicBool,
    writer: Arc<tokio::sync::Mutex<Writer>>,
    /// Whether the lock was last taken for a [`SqliteTransaction`], which may be kept for any time.
    held_by_user: AtomicBool,
    permits: Permits,
    /// As many again, for those who wait for reads that are stalled.
    extra_permits: Permits,
    /// How many permits of the limit had come back when it was found that none does. Reads are stalled until one does.
    stalled_at: AtomicU64,
    /// How many reads there are at once, but for those.
    readers_at_once: usize,
    /// How many connections for reading code that is not ours has.
    borrowed_readers: AtomicUsize,
    readers: Mutex<VecDeque<ReadConnection>>,
    /// That of a new connection for reading.
    reader_session: OnceLock<Session>,
}

/// A count, and since when it is what it is.
struct Unchanged {
    count: u64,
    since: Instant,
}

impl Unchanged {
    /// For how long it has been `count`, as far as was seen.
    fn for_how_long(&mut self, count: u64) -> Duration {
        if count != self.count {
            *self = Self { count, since: Instant::now() };
        }
        self.since.elapsed()
    }
}

/// A connection for reading.
struct ReadConnection {
    connection: SqliteConnection,
    interrupt: Interrupt,
}

/// The connection for writing.
#[derive(Default)]
pub(crate) struct Writer {
    connection: Option<SqliteConnection>,
    interrupt: Interrupt,
    /// Whether a transaction may be open, so that the next owner of the lock rolls it back first.
    unclean: bool,
    /// Whether code that is not ours had the connection and may have left something on it.
    borrowed: bool,
    /// That of the connection when it was opened.
    session: Option<Session>,
    ends: Arc<Ends>,
}

/// What SQLite reports about the transaction of a [`SqliteTransaction`], by whatever statement it ends.
#[derive(Default)]
struct Ends {
    open: AtomicBool,
    committed: AtomicBool,
    rolled_back: AtomicBool,
    /// Whether only its owner may commit it, and no SQL of the user's own.
    owner_only: AtomicBool,
}

impl Ends {
    /// Lets SQLite report the ends of a connection's transactions, and refuse commits that must not be: SQLite asks right
    /// before it writes to the journal, whatever statement commits, and rolls back what is refused.
    async fn of(connection: &mut SqliteConnection, file: &Arc<OpenedFile>) -> Result<Arc<Self>, sqlx::Error> {
        let ends = Arc::new(Self::default());
        let mut handle = connection.lock_handle().await?;
        let (file, reported) = (Arc::clone(file), Arc::clone(&ends));
        handle.set_commit_hook(move || file.check().is_ok() && reported.may_commit());
        let reported = Arc::clone(&ends);
        handle.set_rollback_hook(move || {
            if reported.open.load(Ordering::Acquire) {
                reported.rolled_back.store(true, Ordering::Release);
            }
        });
        drop(handle);
        Ok(ends)
    }

    fn may_commit(&self) -> bool {
        if !self.open.load(Ordering::Acquire) {
            return true;
        }
        if self.owner_only.load(Ordering::Acquire) {
            return false;
        }
        // Once the transaction is lost, what its user writes afterwards would be committed statement by statement.
        let lost = self.rolled_back.load(Ordering::Acquire) && !self.committed.load(Ordering::Acquire);
        if !lost {
            self.committed.store(true, Ordering::Release);
        }
        !lost
    }

    /// A transaction begins.
    fn begin(&self) {
        self.committed.store(false, Ordering::Release);
        self.rolled_back.store(false, Ordering::Release);
        self.owner_only.store(false, Ordering::Release);
        self.open.store(true, Ordering::Release);
    }

    /// It is about to be ended by its owner.
    fn end(&self) {
        self.open.store(false, Ordering::Release);
    }
}

impl SqliteDatabase {
    /// Opens the file at `path` with the defaults of [`SqliteOptions`], creating it if it is not there. It is marked as
    /// a file of annals; one that holds something else is refused.
    ///
    /// # Errors
    /// See [`OpenError`]; a file that is refused is left as it was.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a file that may have been created, and that opening it again completes.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(&SqliteOptions::new(path)).await
    }

    /// Opens a file as `options` say; those about appends and subscriptions have no meaning here.
    ///
    /// # Errors
    /// See [`OpenError`]; a file that is refused is left as it was.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a file that may have been created, and that opening it again completes.
    pub async fn open_with(options: &SqliteOptions) -> Result<Self, OpenError> {
        let Opened { connect, mut first, file } = connect(options).await?;
        let file = Arc::new(file);
        let mut readers = VecDeque::with_capacity(options.readers);
        let fault = |e| DatabaseError::of(e, options.busy_timeout).into_open(options.path.display().to_string());
        let reader_session = OnceLock::new();
        let writer = if options.read_only {
            // While a connection is open, no other file can get the same inode.
            let session = refuse_to_write(&mut first).await.map_err(fault)?;
            reader_session.get_or_init(|| session);
            let interrupt = Interrupt::of(&mut first).await.map_err(fault)?;
            readers.push_back(ReadConnection { connection: first, interrupt });
            Writer::default()
        } else {
            Writer::of(first, &file).await.map_err(fault)?
        };
        Ok(Self(Arc::new(Inner {
            connect,
            path: options.path.clone(),
            file,
            incarnation: OnceLock::new(),
            runtime: Handle::current(),
            clock: Arc::clone(&options.clock),
            is_system_clock: options.is_system_clock,
            ids: Arc::clone(&options.ids),
            busy_timeout: options.busy_timeout,
            read_only: options.read_only,
            closed: AtomicBool::new(false),
            writer: Arc::new(tokio::sync::Mutex::new(writer)),
            held_by_user: AtomicBool::new(false),
            permits: Permits::new(options.readers),
            extra_permits: Permits::new(options.readers),
            stalled_at: AtomicU64::new(u64::MAX),
            readers_at_once: options.readers,
            borrowed_readers: AtomicUsize::new(0),
            readers: Mutex::new(readers),
            reader_session,
        })))
    }

    /// Takes a connection for reading; it goes back when it is dropped. Waits while all are in use, as long as
    /// [`SqliteOptions::busy_timeout`] says, at least 100 ms.
    ///
    /// It refuses to write (`PRAGMA query_only`); [`SqliteDatabase::begin`] gives a transaction for that.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`], which is transient, if other readers were kept for so long; [`DatabaseError::Closed`], or
    /// what kept a connection from being opened.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing.
    pub async fn read(&self) -> Result<SqliteReader, DatabaseError> {
        let mut reader = self.take_reader(None, true).await?;
        (reader.borrowed, reader.is_counted) = (true, true);
        self.0.borrowed_readers.fetch_add(1, Ordering::AcqRel);
        Ok(reader)
    }

    /// The same for a query of annals itself about a tenant, or about all: no user keeps it.
    #[doc(hidden)]
    pub async fn read_for(&self, tenant: Option<&Tenant>) -> Result<SqliteReader, DatabaseError> {
        let mut reader = self.held_reader(tenant).await?;
        reader.borrowed = true;
        Ok(reader)
    }

    /// Waits until a connection for reading may be taken: as long as reads come to an end, and while readers of users are kept as
    /// long as the busy timeout says without an end of any; a user waits no longer than that in all.
    async fn reader_permit(&self, tenant: Option<&Tenant>, for_user: bool) -> Result<Permit, DatabaseError> {
        let Inner { permits, extra_permits, stalled_at, .. } = &*self.0;
        let max_wait = self.0.busy_timeout.max(SHORTEST_WAIT);
        let mut permit = pin!(permits.take(tenant));
        // A permit that is there needs no timer.
        if let Some(permit) = (&mut permit).now_or_never() {
            return permit.ok_or(DatabaseError::Closed);
        }
        let is_stalled = || stalled_at.load(Ordering::Acquire) == permits.given_back();
        let all_given_back = || permits.given_back() + extra_permits.given_back();
        let begun = Instant::now();
        let mut of_limit = Unchanged { count: permits.given_back(), since: begun };
        let mut of_all = Unchanged { count: all_given_back(), since: begun };
        let mut extra = pin!(extra_permits.take(tenant));
        let mut takes_extra = false;
        loop {
            let pause = if is_stalled() && !takes_extra { IS_POLLED } else { max_wait.min(STALLED) };
            let due = Instant::now() + pause;
            tokio::select! {
                biased;
                permit = &mut permit => return permit.ok_or(DatabaseError::Closed),
                permit = &mut extra, if takes_extra => return permit.ok_or(DatabaseError::Closed),
                () = tokio::time::sleep_until(due) => {}
            }
            let borrowed = self.0.borrowed_readers.load(Ordering::Acquire);
            let unavailable = |why| Err(DatabaseError::Unavailable { source: BackendError::new(why) });
            let without_end = of_all.for_how_long(all_given_back());
            let waited = if for_user { begun.elapsed() } else { without_end };
            if borrowed > 0 && waited >= max_wait {
                return unavailable(format!(
                    "no connection for reading became free within {max_wait:?}: {borrowed} are held by readers that \
                     `SqliteDatabase::read` gave; drop them sooner, or allow more by `SqliteOptions::readers`"
                ));
            }
            if of_limit.for_how_long(permits.given_back()) >= STALLED && borrowed < self.0.readers_at_once {
                stalled_at.store(of_limit.count, Ordering::Release);
            }
            // Who is polled so late would keep a connection while it is not, and others need them.
            if is_stalled() && !takes_extra && due.elapsed() < STALLED {
                takes_extra = true;
            } else if without_end >= LONGEST_READ {
                return unavailable(format!(
                    "no connection for reading became free within {LONGEST_READ:?}: reads have them whose futures are not polled, or \
                     which take that long; poll them, or allow more by `SqliteOptions::readers`"
                ));
            }
        }
    }

    /// The same for reads that begin no transaction: those of a tenant, or of all.
    pub(crate) async fn held_reader(&self, tenant: Option<&Tenant>) -> Result<SqliteReader, DatabaseError> {
        self.take_reader(tenant, false).await
    }

    async fn take_reader(&self, tenant: Option<&Tenant>, for_user: bool) -> Result<SqliteReader, DatabaseError> {
        if self.0.closed.load(Ordering::Acquire) {
            return Err(DatabaseError::Closed);
        }
        let permit = self.reader_permit(tenant, for_user).await?;
        self.0.file.check_name()?;
        let held = self.0.readers.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let connection = match held {
            Some(connection) => connection,
            None => self.connect_for_reading().await?,
        };
        Ok(SqliteReader {
            connection: Some(connection),
            database: Arc::clone(&self.0),
            permit: Some(permit),
            borrowed: false,
            is_counted: false,
            idle: false,
        })
    }

    /// Begins a transaction for writing, with the file's write lock. It waits for the transactions before it, of this process
    /// and of others, as long as [`SqliteOptions::busy_timeout`] says. While it is open, no other writer of this handle
    /// gets the lock either.
    ///
    /// # Errors
    /// [`DatabaseError::Busy`] if another process, or another transaction or unit of work of this handle, kept the lock,
    /// which is transient; [`DatabaseError::ReadOnly`];
    /// [`DatabaseError::Closed`]; others as they come.
    ///
    /// # Cancel safety
    /// Dropping the future, or the transaction, rolls back.
    pub async fn begin(&self) -> Result<SqliteTransaction, DatabaseError> {
        let mut writer = self.writer().await?;
        self.0.held_by_user.store(true, Ordering::Release);
        writer.unclean = true;
        writer.borrowed = true;
        writer.ends.begin();
        // If this call is cancelled or fails from here on, it drops a transaction, which is rolled back at once.
        let mut transaction = SqliteTransaction { writer: Some(writer), database: self.clone() };
        sqlx::query(BEGIN).execute(&mut *transaction).await.map_err(|e| self.fault(e))?;
        Ok(transaction)
    }

    /// Whether the file was opened for reading only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.0.read_only
    }

    /// Waits for the transaction or unit of work that is open, as long as [`SqliteOptions::busy_timeout`] says, at least 100 ms;
    /// then closes all connections. That of a transaction that is still open is named by an error in the log and closed when it
    /// ends. Readers that are borrowed are closed when they come back.
    /// Later calls fail with [`DatabaseError::Closed`]. Closing twice is harmless.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the handle closed; connections that were not reached yet are closed when the last clone is
    /// dropped.
    pub async fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        let waited = self.0.busy_timeout.max(SHORTEST_WAIT);
        let mut lock = pin!(Arc::clone(&self.0.writer).lock_owned());
        loop {
            match tokio::time::timeout(waited, &mut lock).await {
                Ok(writer) => break close_writer(writer).await,
                Err(_) if self.0.held_by_user.load(Ordering::Acquire) => {
                    let path = self.0.path.display();
                    tracing::error!(
                        %path,
                        ?waited,
                        "closed while a transaction or unit of work is open; its connection is closed when it ends"
                    );
                    let lock = Arc::clone(&self.0.writer).lock_owned();
                    tokio::spawn(async move { close_writer(lock.await).await });
                    break;
                }
                Err(_) => {}
            }
        }
        self.0.permits.close();
        let readers = std::mem::take(&mut *self.0.readers.lock().unwrap_or_else(PoisonError::into_inner));
        for ReadConnection { connection, .. } in readers {
            close(connection).await;
        }
    }

    /// The path of the file, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.clock
    }

    /// Whether the clock is the machine's, which SQLite reads too.
    pub(crate) fn has_system_clock(&self) -> bool {
        self.0.is_system_clock
    }

    pub(crate) fn ids(&self) -> &Arc<dyn IdSource> {
        &self.0.ids
    }

    /// Waits for the lock of this process's writers and leaves the connection outside of any transaction. The handle's own
    /// commits are waited for however long they take, transactions of users as long as the busy timeout says.
    pub(crate) async fn writer(&self) -> Result<OwnedMutexGuard<Writer>, DatabaseError> {
        let max_wait = self.0.busy_timeout;
        let mut lock = pin!(Arc::clone(&self.0.writer).lock_owned());
        let mut writer = loop {
            match tokio::time::timeout(max_wait.max(SHORTEST_WAIT), &mut lock).await {
                Ok(writer) => break writer,
                Err(_) if self.0.held_by_user.load(Ordering::Acquire) => {
                    return Err(DatabaseError::Busy { waited: max_wait, holder: Holder::SameHandle });
                }
                Err(_) => {}
            }
        };
        self.0.held_by_user.store(false, Ordering::Release);
        self.clean(&mut writer).await?;
        Ok(writer)
    }

    /// The same, if nobody holds the lock and the connection is clean.
    pub(crate) fn try_writer(&self) -> Option<OwnedMutexGuard<Writer>> {
        let writer = Arc::clone(&self.0.writer).try_lock_owned().ok()?;
        self.0.held_by_user.store(false, Ordering::Release);
        let clean = !writer.unclean && !writer.borrowed && writer.connection.is_some();
        (clean && !self.0.closed.load(Ordering::Acquire)).then_some(writer)
    }

    /// Ends what runs on the connection of a future that was dropped, and rolls back, so that other processes need not wait for
    /// the next writer of this one. Without a runtime the next owner of the lock does it.
    pub(crate) fn roll_back_soon(&self, mut writer: OwnedMutexGuard<Writer>) {
        writer.interrupt.raise();
        let database = self.clone();
        if let Some(runtime) = self.0.runtime() {
            runtime.spawn(async move {
                if let Err(error) = database.clean(&mut writer).await {
                    tracing::debug!(%error, "a dropped transaction is rolled back by the next writer");
                }
            });
        }
    }

    pub(crate) async fn clean(&self, writer: &mut Writer) -> Result<(), DatabaseError> {
        if self.0.closed.load(Ordering::Acquire) {
            return Err(DatabaseError::Closed);
        }
        if self.0.read_only {
            return Err(DatabaseError::ReadOnly { source: BackendError::new("the store was opened with `read_only`") });
        }
        if writer.connection.is_none() {
            self.replace(writer).await?;
        }
        if writer.interrupt.is_raised() {
            let Writer { connection, interrupt, .. } = &mut *writer;
            let connection = connection.as_mut().expect("it was opened just above");
            interrupt.lower(connection).await.map_err(|e| self.fault(e))?;
        }
        if writer.unclean {
            // The owner before was cancelled between BEGIN and COMMIT. If it had not begun, or had ended, ROLLBACK
            // fails with this code, which is as good; after any other error the connection is replaced.
            let connection = writer.connection.as_mut().expect("it was opened just above");
            if let Err(error) = sqlx::query(ROLLBACK).execute(connection).await
                && result_code(&error) != Some(NO_TRANSACTION)
            {
                self.replace(writer).await?;
            }
            writer.unclean = false;
        }
        if writer.borrowed {
            let connection = writer.connection.as_mut().expect("it was opened above");
            if Session::of(connection).await.ok() != writer.session {
                self.replace(writer).await?;
            }
            writer.borrowed = false;
        }
        Ok(())
    }

    /// Opens a new connection for writing, then closes the one before: the file's journal goes with its last connection.
    async fn replace(&self, writer: &mut Writer) -> Result<(), DatabaseError> {
        let (old, opened) = match self.connect_for_writing().await {
            Ok(new) => (std::mem::replace(writer, new).connection, Ok(())),
            // Perhaps because of what was left on the old one.
            Err(error) => (writer.connection.take(), Err(error)),
        };
        if let Some(old) = old {
            close(old).await;
        }
        opened
    }

    async fn run(&self, writer: &mut Writer, statement: &'static str) -> Result<Vec<SqliteRow>, DatabaseError> {
        let connection = writer.connection.as_mut().ok_or(DatabaseError::Closed)?;
        sqlx::query(statement).fetch_all(connection).await.map_err(|e| self.fault(e))
    }

    async fn connect(&self) -> Result<SqliteConnection, DatabaseError> {
        self.0.file.check()?;
        let mut connection = self.0.connect.connect().await.map_err(|e| self.fault(e))?;
        if let Some(incarnation) = self.0.incarnation.get() {
            let rows = sqlx::query(INCARNATION).fetch_all(&mut connection).await.map_err(|e| self.fault(e))?;
            if rows.first().is_none_or(|row| row.get::<&[u8], _>(0) != incarnation.0.as_bytes()) {
                return Err(DatabaseError::FileReplaced {
                    what: format!("`{}` holds another incarnation of the store now", self.0.path.display()),
                    remedy: "close this handle and open the store again".to_owned(),
                });
            }
        }
        // The name may have been given to another file meanwhile.
        self.0.file.check()?;
        Ok(connection)
    }

    async fn connect_for_writing(&self) -> Result<Writer, DatabaseError> {
        let connection = self.connect().await?;
        Writer::of(connection, &self.0.file).await.map_err(|e| self.fault(e))
    }

    /// Says which incarnation of a store the file holds, for connections that are opened later.
    pub(crate) fn set_incarnation(&self, incarnation: Incarnation) {
        self.0.incarnation.get_or_init(|| incarnation);
    }

    /// Whether the file's name still means the file, with its journal.
    pub(crate) fn check_file(&self) -> Result<(), DatabaseError> {
        Ok(self.0.file.check()?)
    }

    /// A connection that refuses to write: a write on it would not take the lock of this process's writers,
    /// who would then wait for it as for another process.
    async fn connect_for_reading(&self) -> Result<ReadConnection, DatabaseError> {
        let mut connection = self.connect().await?;
        let session = refuse_to_write(&mut connection).await.map_err(|e| self.fault(e))?;
        self.0.reader_session.get_or_init(|| session);
        let interrupt = Interrupt::of(&mut connection).await.map_err(|e| self.fault(e))?;
        Ok(ReadConnection { connection, interrupt })
    }

    /// A connection for one use alone, which is watching the file.
    pub(crate) async fn own_connection(&self) -> Result<SqliteConnection, DatabaseError> {
        self.connect().await
    }

    /// What an error of a statement on one of this database's connections means: whether it may pass, and whether the
    /// outcome is known.
    #[must_use]
    pub fn fault(&self, error: sqlx::Error) -> DatabaseError {
        if is_refused_commit(&error) {
            return match self.0.file.check() {
                Err(replaced) => replaced.into(),
                Ok(()) => DatabaseError::Unavailable { source: BackendError::new(error) },
            };
        }
        DatabaseError::of(error, self.0.busy_timeout)
    }
}

impl SqliteDatabase {
    /// Whether a statement that failed so may work in another transaction.
    #[doc(hidden)]
    #[must_use]
    pub fn may_pass(&self, error: &sqlx::Error) -> bool {
        may_pass(error)
    }
}

/// Makes a connection one for reading; what it then has is what it should have whenever it is taken.
async fn refuse_to_write(connection: &mut SqliteConnection) -> Result<Session, sqlx::Error> {
    sqlx::query(REFUSE_TO_WRITE).execute(&mut *connection).await?;
    Session::of(connection).await
}

/// Closes the connection for writing, after a rollback of what is open.
async fn close_writer(mut writer: OwnedMutexGuard<Writer>) {
    if let Some(mut connection) = writer.connection.take() {
        if writer.unclean
            && let Err(error) = sqlx::query(ROLLBACK).execute(&mut connection).await
        {
            tracing::debug!(%error, "nothing to roll back while closing");
        }
        close(connection).await;
    }
}

async fn close(connection: SqliteConnection) {
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "closing a SQLite connection failed");
    }
}

impl Writer {
    /// A new connection for writing.
    async fn of(mut connection: SqliteConnection, file: &Arc<OpenedFile>) -> Result<Self, sqlx::Error> {
        let ends = Ends::of(&mut connection, file).await?;
        let interrupt = Interrupt::of(&mut connection).await?;
        let session = Some(Session::of(&mut connection).await?);
        Ok(Self { connection: Some(connection), interrupt, unclean: false, borrowed: false, session, ends })
    }

    pub(crate) fn connection(&mut self) -> Result<&mut SqliteConnection, DatabaseError> {
        self.connection.as_mut().ok_or(DatabaseError::Closed)
    }

    /// Says that a transaction is open, so that a cancelled owner is cleaned up after.
    pub(crate) fn set_unclean(&mut self, unclean: bool) {
        self.unclean = unclean;
    }

    /// Whether a transaction may be open.
    pub(crate) fn is_unclean(&self) -> bool {
        self.unclean
    }
}

/// A connection for reading, outside of any transaction. It dereferences to the connection, for the user's own SQL, and
/// refuses to write. It goes back when it is dropped; a statement that still runs then is ended within some milliseconds.
/// [`SqliteDatabase`] has an example.
///
/// Queries see the rows as they are when each begins; for several that must agree, run `BEGIN` before and `COMMIT` after
/// them. While that transaction is open the file's journal cannot shrink, so keep it short.
pub struct SqliteReader {
    connection: Option<ReadConnection>,
    database: Arc<Inner>,
    permit: Option<Permit>,
    /// Whether code that is not ours had it, and so may have begun a transaction.
    borrowed: bool,
    /// Whether a user has it, who may keep it for any time.
    is_counted: bool,
    /// Whether no statement runs on it; otherwise that of a cancelled read may.
    idle: bool,
}

impl SqliteReader {
    /// Gives it back at once: all its statements have ended.
    pub(crate) fn release(mut self) {
        self.idle = true;
    }
}

impl Deref for SqliteReader {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection.as_ref().expect("it is there until the drop").connection
    }
}

impl DerefMut for SqliteReader {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection.as_mut().expect("it is there until the drop").connection
    }
}

impl Drop for SqliteReader {
    fn drop(&mut self) {
        let Some(mut reader) = self.connection.take() else { return };
        if self.idle && !self.borrowed {
            self.database.take_back(reader);
            return;
        }
        reader.interrupt.raise();
        let borrowed = self.borrowed;
        if self.is_counted {
            self.database.borrowed_readers.fetch_sub(1, Ordering::AcqRel);
        }
        // Without a runtime the connection is closed.
        let (database, permit) = (Arc::clone(&self.database), self.permit.take());
        if let Some(runtime) = self.database.runtime() {
            runtime.spawn(async move {
                if database.clean_reader(&mut reader, borrowed).await {
                    database.take_back(reader);
                } else {
                    close(reader.connection).await;
                }
                drop(permit);
            });
        }
    }
}

impl Inner {
    /// Where what was dropped is cleaned. A runtime without threads of its own may be driven no more, and others would wait for it.
    fn runtime(&self) -> Option<Handle> {
        let here = Handle::try_current().ok()?;
        let is_driven = |runtime: &Handle| runtime.runtime_flavor() == RuntimeFlavor::MultiThread;
        Some(if !is_driven(&here) && is_driven(&self.runtime) { self.runtime.clone() } else { here })
    }

    /// Whether a reader that was dropped may be used again, once what ran on it has ended.
    async fn clean_reader(&self, reader: &mut ReadConnection, borrowed: bool) -> bool {
        let ReadConnection { connection, interrupt } = reader;
        if let Err(error) = interrupt.lower(connection).await {
            tracing::debug!(%error, "a reader whose statement does not end is closed");
            return false;
        }
        if !borrowed {
            return true;
        }
        // A connection inside a transaction would keep the journal and show its next user an old state. sqlx knows only of
        // transactions that were begun through it, so a rollback is tried.
        match sqlx::query(ROLLBACK).execute(&mut *connection).await {
            Err(error) if result_code(&error) != Some(NO_TRANSACTION) => {
                tracing::debug!(%error, "a reader that cannot roll back is closed");
                false
            }
            _ => Session::of(connection).await.ok().as_ref() == self.reader_session.get(),
        }
    }

    fn take_back(&self, reader: ReadConnection) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        // One of those beside the limit is closed, so that they are no more than before.
        if !self.closed.load(Ordering::Acquire) && readers.len() < self.readers_at_once {
            readers.push_back(reader);
        }
    }
}

/// A transaction for writing. It dereferences to the connection, for the user's own SQL; dropping it ends what runs and rolls back.
/// [`SqliteDatabase`] has an example.
///
/// The connection is inside a transaction already: `begin()` on it fails, savepoints are plain SQL. End it by its own
/// methods only, not by SQL. While it is open no other writer can write to the file, so keep it short.
pub struct SqliteTransaction {
    writer: Option<OwnedMutexGuard<Writer>>,
    database: SqliteDatabase,
}

impl SqliteTransaction {
    /// Commits: what was written is on disk when this returns, unless
    /// [`Synchronous::Normal`](crate::Synchronous::Normal) was asked for.
    ///
    /// # Errors
    /// [`DatabaseError`]; unless it is [`DatabaseError::OutcomeUnknown`], nothing is stored.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn commit(mut self) -> Result<(), DatabaseError> {
        self.commit_by(COMMIT).await.map(drop)
    }

    /// The same in a file that holds events; gives the last position of the log as it was committed.
    pub(crate) async fn commit_events(&mut self) -> Result<Position, DatabaseError> {
        let rows = self.commit_by(COMMIT_AT_HEAD).await?;
        Ok(rows.last().map_or(Position::START, |row| Position::stored(row.get(0))))
    }

    /// A temporary object of the user that intercepts appends in this transaction, if there is one.
    #[doc(hidden)]
    pub async fn intercepting(&mut self) -> Result<Option<String>, DatabaseError> {
        let database = self.database.clone();
        session::intercepting(self).await.map_err(|e| database.fault(e))
    }

    async fn commit_by(&mut self, statement: &'static str) -> Result<Vec<SqliteRow>, DatabaseError> {
        let ended = self.ended();
        let mut writer = self.take_writer();
        let committed = match ended {
            Some(error) => Err(error),
            None => self.database.run(&mut writer, statement).await,
        };
        if let Ok(rows) = &committed {
            writer.unclean = false;
            writer.borrowed = Session::in_rows(rows) != writer.session;
        }
        // A failed COMMIT may leave the transaction open, and a connection on which something is left is replaced. The
        // next owner of the lock does both; now they free the file for other processes.
        if let Err(later) = self.database.clean(&mut writer).await {
            tracing::debug!(error = %later, "the connection of a transaction is cleaned by the next writer");
        }
        committed
    }

    /// Rolls back, and waits until that is done.
    ///
    /// # Errors
    /// [`DatabaseError`]; unless it is [`DatabaseError::OutcomeUnknown`], because a statement of the caller's own has
    /// committed before, nothing is stored.
    ///
    /// # Cancel safety
    /// Dropping the future rolls back as well.
    pub async fn rollback(mut self) -> Result<(), DatabaseError> {
        let committed = self.ended().filter(|error| matches!(error, DatabaseError::OutcomeUnknown { .. }));
        let mut writer = self.take_writer();
        self.database.clean(&mut writer).await?;
        committed.map_or(Ok(()), Err)
    }

    /// Lets no COMMIT by SQL commit it from here on: SQLite rolls back instead.
    #[doc(hidden)]
    pub fn refuse_commit_by_sql(&self) {
        if let Some(writer) = &self.writer {
            writer.ends.owner_only.store(true, Ordering::Release);
        }
    }

    /// Whether SQLite, or a statement of the user's own, has ended it.
    #[doc(hidden)]
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended().is_some()
    }

    fn take_writer(&mut self) -> OwnedMutexGuard<Writer> {
        let writer = self.writer.take().expect("it is there until commit or rollback");
        writer.ends.end();
        writer
    }

    /// What it means for the transaction that it has ended already, if it has.
    pub(crate) fn ended(&self) -> Option<DatabaseError> {
        let ends = &self.writer.as_ref()?.ends;
        if ends.committed.load(Ordering::Acquire) {
            let why = "a statement of the caller's own has ended the transaction before";
            return Some(DatabaseError::OutcomeUnknown { source: BackendError::new(why) });
        }
        ends.rolled_back.load(Ordering::Acquire).then(|| {
            let why = "SQLite, or a statement of the caller's own, has rolled the transaction back; begin another";
            DatabaseError::Unavailable { source: BackendError::new(why) }
        })
    }
}

impl Deref for SqliteTransaction {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        let writer = self.writer.as_ref().expect("it is there until commit or rollback");
        writer.connection.as_ref().expect("a transaction has a connection")
    }
}

impl DerefMut for SqliteTransaction {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        let writer = self.writer.as_mut().expect("it is there until commit or rollback");
        writer.connection.as_mut().expect("a transaction has a connection")
    }
}

impl Drop for SqliteTransaction {
    fn drop(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        writer.ends.end();
        self.database.roll_back_soon(writer);
    }
}
