//! The server of a run, and what is done to it.

use std::sync::Arc;
use std::time::Duration;

use annals::{Checkpoint, EventStore, PostgresStore};
use annals_scratch::{Server, Stop};
use serde::Serialize;
use sqlx::{Connection, PgConnection, Row};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::torture::Fault;
use crate::torture::draws::Draws;
use crate::torture::place::{DATABASE, PATIENCE, Place, run};

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

/// Late in writing out what nobody waits for, so that a crash loses draws that were rolled back.
const SETTINGS: &[(&str, &str)] = &[("wal_writer_delay", "10s"), ("shared_buffers", "256MB")];

/// What the crashes of a run were.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Crashes {
    /// All of them.
    pub(crate) crashes: u64,
    /// Those in which a backend was killed and the server recovered by itself; the others were immediate stops.
    pub(crate) recoveries: u64,
    /// Those after which a standby took over.
    pub(crate) promotions: u64,
    /// Numbers that were drawn for nothing before a crash, and that an event has got after it.
    pub(crate) numbers_again: u64,
    /// How far the sequence stood ahead of the last event after a promotion, at least and at most.
    pub(crate) sequence_ahead: Option<(i64, i64)>,
    /// The longest time from a crash until the server, or the one after it, took writes.
    pub(crate) longest_outage_ms: u64,
}

impl Crashes {
    /// How many were without a promotion.
    pub(crate) fn plain(&self) -> usize {
        usize::try_from(self.crashes - self.promotions).unwrap_or_default()
    }
}

/// How a server crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// It is stopped at once and started again.
    Stop,
    /// A backend is killed; the server recovers by itself.
    KilledBackend,
}

/// The server in charge.
pub(crate) struct Cluster {
    place: Place,
    primary: Arc<Server>,
    pub(crate) crashes: Crashes,
    /// Every number that was drawn for nothing before a crash.
    pub(crate) drawn: Vec<u64>,
}

impl Cluster {
    /// A new server with an empty database.
    pub(crate) async fn start(place: &Place) -> Result<Self, Fault> {
        let primary = Arc::new(spawn_blocking(|| Server::start(SETTINGS)).await?);
        place.put_in_charge(&primary)?;
        let url = primary.url("postgres");
        let mut connection = PgConnection::connect(&url).await?;
        run(&mut connection, format!("CREATE DATABASE {DATABASE}")).await?;
        Ok(Self { place: place.clone(), primary, crashes: Crashes::default(), drawn: Vec::new() })
    }

    /// Takes the server down, until [`Cluster::come_up`].
    pub(crate) async fn go_down(&mut self, how: How, draws: &mut Draws) -> Result<Instant, Fault> {
        let begun = Instant::now();
        let server = Arc::clone(&self.primary);
        match how {
            How::Stop => spawn_blocking(move || server.stop(Stop::Immediate)).await?,
            How::KilledBackend => {
                let pid = sqlx::query("SELECT pg_backend_pid()").fetch_one(&mut draws.session).await?.get(0);
                spawn_blocking(move || server.kill_backend(pid)).await?;
                // The server has noticed when it has ended the others.
                while run(&mut draws.held, "SELECT 1").await.is_ok() {}
                self.crashes.recoveries += 1;
            }
        }
        Ok(begun)
    }

    /// Waits until the server is there again. What `store` knew to be final before must be there too.
    pub(crate) async fn come_up(
        &mut self,
        how: How,
        draws: Draws,
        begun: Instant,
        store: &PostgresStore,
    ) -> Result<(), Fault> {
        if how == How::Stop {
            let server = Arc::clone(&self.primary);
            spawn_blocking(move || server.start_again()).await?;
        }
        let head = draws.head;
        self.after_crash(draws.numbers, begun).await?;
        still_there(store, &head).await
    }

    /// A standby that has everything a commit is acknowledged for. Readers may use it.
    pub(crate) async fn attach_standby(&mut self) -> Result<Arc<Server>, Fault> {
        let primary = Arc::clone(&self.primary);
        let standby = Arc::new(spawn_blocking(move || primary.standby()).await?);
        let mut connection = self.place.connect("leader").await?;
        run(&mut connection, "ALTER SYSTEM SET synchronous_standby_names = 'standby'").await?;
        run(&mut connection, "SELECT pg_reload_conf()").await?;
        let begun = Instant::now();
        loop {
            let synchronous: i64 = sqlx::query(SYNCHRONOUS).fetch_one(&mut connection).await?.get(0);
            if synchronous > 0 {
                break;
            }
            if begun.elapsed() > PATIENCE {
                return Err("the standby does not follow".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        self.place.show_standby(Some(&standby))?;
        Ok(standby)
    }

    /// Stops the primary at once and puts the standby in its place.
    ///
    /// No backend may be killed meanwhile: PostgreSQL shows the commit of a backend that was killed while it waited for
    /// the standby, though the standby may not have it.
    pub(crate) async fn promote(&mut self, standby: Arc<Server>, store: &PostgresStore) -> Result<(), Fault> {
        // Waits for the standby, and so for everything that became visible before it.
        let mut connection = self.place.connect("leader").await?;
        run(&mut connection, "INSERT INTO unrelated VALUES (2)").await?;
        let draws = Draws::make(&self.place, store).await?;
        let begun = Instant::now();
        let (old, new) = (Arc::clone(&self.primary), Arc::clone(&standby));
        spawn_blocking(move || {
            old.stop(Stop::Immediate);
            new.promote();
        })
        .await?;
        self.place.show_standby(None)?;
        self.place.put_in_charge(&standby)?;
        let head = draws.head;
        let ahead = self.after_crash(draws.numbers, begun).await?;
        self.crashes.promotions += 1;
        let (least, most) = self.crashes.sequence_ahead.unwrap_or((ahead, ahead));
        self.crashes.sequence_ahead = Some((least.min(ahead), most.max(ahead)));
        let old = std::mem::replace(&mut self.primary, standby);
        spawn_blocking(move || drop(old)).await?;
        still_there(store, &head).await
    }

    /// Looks at the server that is there after a crash. Gives how far its sequence is ahead of the log.
    async fn after_crash(&mut self, drawn: Vec<u64>, begun: Instant) -> Result<i64, Fault> {
        let mut connection = self.place.connect("leader").await?;
        let row = sqlx::query(SEQUENCE_AND_HEAD).fetch_one(&mut connection).await?;
        let (last, head): (i64, i64) = (row.get(0), row.get(1));
        if last < head {
            return Err(format!("after a crash the sequence stands at {last}, but the log ends at {head}").into());
        }
        let outage = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let crashes = &mut self.crashes;
        crashes.crashes += 1;
        self.drawn.extend(drawn);
        crashes.longest_outage_ms = crashes.longest_outage_ms.max(outage);
        Ok(last - head)
    }
}

/// What was final before a crash is there after it, to a handle that was open all the time.
async fn still_there(store: &PostgresStore, head: &Checkpoint) -> Result<(), Fault> {
    loop {
        match store.check_checkpoint(head).await {
            Err(error) if error.is_transient() => sleep(Duration::from_millis(20)).await,
            answer => return Ok(answer?),
        }
    }
}
