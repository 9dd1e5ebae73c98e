//! How a SQLite file is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, IdSource, SystemClock, TimeOrderedIds};
use crate::limits::Limits;

/// When an acknowledged append is safe on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Synchronous {
    /// After every commit: survives power cuts.
    #[default]
    Full,
    /// At checkpoints: survives the crash of a process; a power cut may lose the last acknowledged appends
    /// (1,454 of 2,000 simulated power cuts did). Only for data that can be produced again.
    Normal,
}

/// SQLite counts milliseconds in 31 bits.
const LONGEST_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// How to open a store in a SQLite file.
///
/// ```
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("orders.db");
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use annals_eventstore::{AppendError, EventStore, ManualClock, SeededIds, SqliteOptions};
///
/// let store = SqliteOptions::new(&path).readers(2).busy_timeout(Duration::from_secs(1)).open().await?;
/// # store.close().await;
///
/// // For reading only.
/// let store = SqliteOptions::new(&path).read_only().open().await?;
/// assert!(matches!(store.begin().await, Err(AppendError::ReadOnly { .. })));
/// # store.close().await;
///
/// // In tests, time and ids can be set. The clock is given as a pointer, so that the test can advance it.
/// # let path = dir.path().join("test.db");
/// let clock = Arc::new(ManualClock::at("2026-03-02T09:30:00Z".parse()?));
/// let store = SqliteOptions::new(&path).clock(Arc::clone(&clock)).ids(SeededIds::new(1)).open().await?;
/// clock.advance(Duration::from_secs(60));
/// # store.close().await;
/// # Ok(()) }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone)]
pub struct SqliteOptions {
    pub(crate) path: PathBuf,
    pub(crate) synchronous: Synchronous,
    pub(crate) read_only: bool,
    pub(crate) readers: usize,
    pub(crate) busy_timeout: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) limits: Limits,
    pub(crate) clock: Arc<dyn Clock>,
    /// Whether it is the machine's, which SQLite reads too.
    pub(crate) is_system_clock: bool,
    pub(crate) ids: Arc<dyn IdSource>,
}

impl SqliteOptions {
    /// The defaults for the file at `path`, which is created if it is not there.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            synchronous: Synchronous::default(),
            read_only: false,
            readers: 4,
            busy_timeout: Duration::from_secs(5),
            poll_interval: Duration::from_millis(20),
            limits: Limits::default(),
            clock: Arc::new(SystemClock),
            is_system_clock: true,
            ids: Arc::new(TimeOrderedIds),
        }
    }

    /// When an acknowledged append is safe on disk; [`Synchronous::Full`] by default.
    #[must_use]
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Opens an existing store for reading only; appends are refused with
    /// [`AppendError::ReadOnly`](crate::AppendError::ReadOnly), and nothing is created or migrated.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// How many connections are held for reading, which is how many reads run at once; 4 by default, from 1 to 10,000:
    /// a value outside is taken for the nearest of them. Others wait. Where no read ends for half a second, because their futures are not
    /// polled, those who wait and are polled get as many connections beside them, until one of those ends.
    #[must_use]
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers.clamp(1, 10_000);
        self
    }

    /// How long a write waits for the file's write lock while another process holds it, or an open transaction or unit of
    /// work of this handle; 5 s by default. After that it fails as busy, which is transient. An append may wait twice as
    /// long, as it may come while another one waits. Transactions of this handle are waited for at least 100 ms, and the
    /// handle's own commits without bound. More than 24 days count as 24 days.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout.min(LONGEST_TIMEOUT);
        self
    }

    /// How often commits of other processes are looked for; 20 ms by default. It is the worst delay of a subscription
    /// to another process's events; those of this handle wake at once. At least 1 ms.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// How much the store accepts; what [`Limits::default`] says by default.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The clock that `recorded_at` and the expiry of request keys follow; the machine's by default.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self.is_system_clock = false;
        self
    }

    /// The source of new event ids; [`TimeOrderedIds`] by default.
    #[must_use]
    pub fn ids(mut self, ids: impl IdSource) -> Self {
        self.ids = Arc::new(ids);
        self
    }
}
