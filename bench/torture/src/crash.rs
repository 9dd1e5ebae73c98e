//! The server of a run, its crashes and its promotions.

use std::sync::Arc;
use std::time::Duration;

use annals::{Append, Checkpoint, EventStore, ExpectedVersion, PostgresStore, ReadError};
use annals_scratch::{Server, Stop};
use serde::Serialize;
use sqlx::{Connection, PgConnection, Row};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::Fault;
use crate::fact::{COORDINATORS_STREAM, ROLLED_BACK_STREAM, UNCOMMITTED_STREAM, new_event, new_id, stream_id};
use crate::run_folder::{DATABASE, RunFolder, TIMEOUT, run};

const SEQUENCE_AND_HEAD: &str = "
    SELECT CASE WHEN is_called THEN last_value ELSE 0 END, (SELECT coalesce(max(position), 0) FROM annals.events)
    FROM annals.events_position
    ORDER BY 1
";

const SYNCHRONOUS: &str = "
    SELECT count(*)
    FROM pg_stat_replication
    WHERE sync_state = 'sync'
    ORDER BY 1
";

/// Events that are never committed.
const INSERT: &str = "
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                               event_data, metadata)
    SELECT gen_random_uuid(), 'default', 'even', 's' || $1, n, 'torture.undone', 1, '{}', '{}'
    FROM generate_series(1, 5) AS n
    ORDER BY n
";

/// Positions without events. Their WAL is not flushed until a commit waits for it, so a crash resets the sequence to a
/// value before them.
const ALLOCATE: &str = "
    SELECT nextval('annals.events_position')
    FROM generate_series(1, 60) AS n
    ORDER BY n
";

/// The server flushes unneeded WAL late, so that a crash loses the allocations of rolled-back transactions.
const SETTINGS: &[(&str, &str)] = &[("wal_writer_delay", "10s"), ("shared_buffers", "256MB")];

/// How long readers have to ask for the last position: longer than one of their waits.
const READERS_ASK: Duration = Duration::from_millis(300);

/// What the crashes of a run were.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Crashes {
    /// All of them.
    pub(crate) crashes: u64,
    /// Crashes in which a backend was killed and the server recovered by itself; the others were immediate stops.
    pub(crate) recoveries: u64,
    /// Crashes after which a standby was promoted.
    pub(crate) promotions: u64,
    /// Positions that were allocated without an event before a crash, and that an event has got after it.
    pub(crate) positions_reused: u64,
    /// How far the sequence was ahead of the last event after a promotion, at least and at most.
    pub(crate) sequence_ahead: Option<(i64, i64)>,
    /// The longest time from a crash until the server, or the one after it, accepted writes.
    pub(crate) longest_outage_ms: u64,
}

impl Crashes {
    /// How many were without a promotion.
    pub(crate) fn without_promotion(&self) -> usize {
        usize::try_from(self.crashes - self.promotions).unwrap_or_default()
    }
}

/// How a server crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrashKind {
    /// An immediate stop, then a start.
    Stop,
    /// A backend is killed; the server recovers by itself.
    KilledBackend,
}

/// What is set up before a crash to make it harder: positions that will be allocated again, and a gap that readers wait
/// at, so that they go through the crash with what they knew before it.
pub(crate) struct CrashSetup {
    /// The checkpoint of the last final event before the crash.
    head: Checkpoint,
    /// The positions without events, which are not flushed.
    allocated: Vec<u64>,
    /// The session that has allocated them.
    allocating: PgConnection,
    /// The session whose uncommitted events readers wait for.
    uncommitted: PgConnection,
}

impl CrashSetup {
    /// Allocates positions: some are rolled back now, the others by the crash. An event with a later position is
    /// committed.
    pub(crate) async fn make(folder: &RunFolder, store: &PostgresStore) -> Result<Self, Fault> {
        let head = until_reachable(async || store.head().await).await?;
        let mut uncommitted = folder.connect().await?;
        run(&mut uncommitted, "BEGIN").await?;
        insert(&mut uncommitted, UNCOMMITTED_STREAM).await?;
        append(store, COORDINATORS_STREAM, new_id()).await?;
        let mut allocating = folder.connect().await?;
        run(&mut allocating, "BEGIN").await?;
        insert(&mut allocating, ROLLED_BACK_STREAM).await?;
        run(&mut allocating, "ROLLBACK; BEGIN").await?;
        let rows = sqlx::query(ALLOCATE).fetch_all(&mut allocating).await?;
        sleep(READERS_ASK).await;
        let allocated = rows.iter().map(|row| row.get::<i64, _>(0).unsigned_abs()).collect();
        Ok(Self { head, allocated, allocating, uncommitted })
    }
}

async fn insert(connection: &mut PgConnection, stream: u32) -> Result<(), sqlx::Error> {
    sqlx::query(INSERT).bind(stream.to_string()).execute(connection).await.map(drop)
}

/// Appends one event with this id, and retries until the append succeeds.
pub(crate) async fn append(store: &PostgresStore, stream: u32, id: uuid::Uuid) -> Result<(), Fault> {
    let append = Append::to(stream_id(stream)?, ExpectedVersion::Any, vec![new_event(stream, id)?]);
    let begun = Instant::now();
    while let Err(error) = store.append_many(append.clone()).await {
        if begun.elapsed() > TIMEOUT {
            return Err(error.into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Repeats a read while its error is transient.
async fn until_reachable<T>(read: impl AsyncFn() -> Result<T, ReadError>) -> Result<T, Fault> {
    loop {
        match read().await {
            Err(error) if error.is_transient() => sleep(Duration::from_millis(20)).await,
            answer => return Ok(answer?),
        }
    }
}

/// The primary, and what its crashes were.
pub(crate) struct Cluster {
    folder: RunFolder,
    primary: Arc<Server>,
    pub(crate) crashes: Crashes,
    /// Every position that was allocated without an event before a crash.
    pub(crate) allocated: Vec<u64>,
}

impl Cluster {
    /// A new server with an empty database.
    pub(crate) async fn start(folder: &RunFolder) -> Result<Self, Fault> {
        let primary = Arc::new(spawn_blocking(|| Server::start(SETTINGS)).await?);
        folder.set_primary(&primary)?;
        let mut connection = PgConnection::connect(&primary.url("postgres")).await?;
        run(&mut connection, format!("CREATE DATABASE {DATABASE}")).await?;
        Ok(Self { folder: folder.clone(), primary, crashes: Crashes::default(), allocated: Vec::new() })
    }

    /// Crashes the server. [`Cluster::recover`] must follow.
    pub(crate) async fn crash(&mut self, kind: CrashKind, setup: &mut CrashSetup) -> Result<Instant, Fault> {
        let begun = Instant::now();
        let server = Arc::clone(&self.primary);
        match kind {
            CrashKind::Stop => spawn_blocking(move || server.stop(Stop::Immediate)).await?,
            CrashKind::KilledBackend => {
                let pid = sqlx::query("SELECT pg_backend_pid()").fetch_one(&mut setup.allocating).await?.get(0);
                spawn_blocking(move || server.kill_backend(pid)).await?;
                // The server has noticed when it has ended the other sessions.
                while run(&mut setup.uncommitted, "SELECT 1").await.is_ok() {}
                self.crashes.recoveries += 1;
            }
        }
        Ok(begun)
    }

    /// Waits until the server accepts writes again. What was final for `store` before must still exist.
    pub(crate) async fn recover(
        &mut self,
        kind: CrashKind,
        setup: CrashSetup,
        begun: Instant,
        store: &PostgresStore,
    ) -> Result<(), Fault> {
        if kind == CrashKind::Stop {
            let server = Arc::clone(&self.primary);
            spawn_blocking(move || server.start_again()).await?;
        }
        self.after_crash(setup, begun, store).await.map(drop)
    }

    /// Attaches a standby that has every acknowledged commit. Readers may use it.
    pub(crate) async fn attach_standby(&mut self) -> Result<Arc<Server>, Fault> {
        let primary = Arc::clone(&self.primary);
        let standby = Arc::new(spawn_blocking(move || primary.standby()).await?);
        let mut connection = self.folder.connect().await?;
        run(&mut connection, "ALTER SYSTEM SET synchronous_standby_names = 'standby'").await?;
        run(&mut connection, "SELECT pg_reload_conf()").await?;
        let begun = Instant::now();
        loop {
            let synchronous: i64 = sqlx::query(SYNCHRONOUS).fetch_one(&mut connection).await?.get(0);
            if synchronous > 0 {
                break;
            }
            if begun.elapsed() > TIMEOUT {
                return Err("the standby does not follow".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        self.folder.set_standby(Some(&standby))?;
        Ok(standby)
    }

    /// Stops the primary immediately and promotes the standby.
    ///
    /// No backend may be killed meanwhile: PostgreSQL shows the commit of a backend that was killed while it waited for
    /// the standby, though the standby may not have it.
    pub(crate) async fn promote(&mut self, standby: Arc<Server>, store: &PostgresStore) -> Result<(), Fault> {
        // This commit waits for the standby, and so for everything that became visible before it.
        run(&mut self.folder.connect().await?, "INSERT INTO unrelated VALUES (2)").await?;
        let setup = CrashSetup::make(&self.folder, store).await?;
        let begun = Instant::now();
        let (old, new) = (Arc::clone(&self.primary), Arc::clone(&standby));
        spawn_blocking(move || {
            old.stop(Stop::Immediate);
            new.promote();
        })
        .await?;
        self.folder.set_standby(None)?;
        self.folder.set_primary(&standby)?;
        let old = std::mem::replace(&mut self.primary, standby);
        let ahead = self.after_crash(setup, begun, store).await?;
        self.crashes.promotions += 1;
        let (least, most) = self.crashes.sequence_ahead.unwrap_or((ahead, ahead));
        self.crashes.sequence_ahead = Some((least.min(ahead), most.max(ahead)));
        spawn_blocking(move || drop(old)).await?;
        Ok(())
    }

    /// Checks the server after a crash. Returns how far its sequence is ahead of the log.
    async fn after_crash(&mut self, setup: CrashSetup, begun: Instant, store: &PostgresStore) -> Result<i64, Fault> {
        let mut connection = self.folder.connect().await?;
        let row = sqlx::query(SEQUENCE_AND_HEAD).fetch_one(&mut connection).await?;
        let (last, head): (i64, i64) = (row.get(0), row.get(1));
        if last < head {
            return Err(format!("after a crash the sequence is at {last}, but the log ends at {head}").into());
        }
        let outage = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let crashes = &mut self.crashes;
        crashes.crashes += 1;
        crashes.longest_outage_ms = crashes.longest_outage_ms.max(outage);
        self.allocated.extend(setup.allocated);
        // The handle of `store` was open all the time.
        until_reachable(async || store.check_checkpoint(&setup.head).await).await?;
        Ok(last - head)
    }
}
