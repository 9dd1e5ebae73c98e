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
use crate::torture::fact::UNDONE_STREAM;
use crate::torture::place::{DATABASE, PATIENCE, Place, run};

/// Events that are rolled back: their numbers are drawn, and may be drawn again after a crash.
const DRAW: &str = "
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                               event_data, metadata)
    SELECT gen_random_uuid(), 'default', 'even', 's' || $1, n, 'torture.undone', 1, '{}', '{}'
    FROM generate_series(1, 50) AS n
    ORDER BY n
";

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
    /// Immediate stops, those before a promotion included.
    pub(crate) stops: u64,
    pub(crate) promotions: u64,
    /// Numbers that were drawn before a crash, rolled back, and handed out again after it.
    pub(crate) numbers_again: u64,
    /// How far the sequence stood ahead of the last event after a promotion, at least and at most.
    pub(crate) sequence_ahead: Option<(i64, i64)>,
    /// The longest time from a stop until the server, or the one after it, took writes.
    pub(crate) longest_outage_ms: u64,
}

/// The server in charge.
pub(crate) struct Cluster {
    place: Place,
    primary: Arc<Server>,
    pub(crate) crashes: Crashes,
}

impl Cluster {
    /// A new server with an empty database.
    pub(crate) async fn start(place: &Place) -> Result<Self, Fault> {
        let primary = Arc::new(spawn_blocking(|| Server::start(SETTINGS)).await?);
        place.put_in_charge(&primary)?;
        let url = primary.url("postgres");
        let mut connection = PgConnection::connect(&url).await?;
        run(&mut connection, format!("CREATE DATABASE {DATABASE}")).await?;
        Ok(Self { place: place.clone(), primary, crashes: Crashes::default() })
    }

    /// Draws numbers, rolls back, stops the server at once and starts it again.
    ///
    /// What `store` knows to be final before must be there after it. If the writers are `hushed`, so that no commit of
    /// theirs makes the draws durable, it also looks at the log in between, when the sequence is ahead of it.
    pub(crate) async fn crash(&mut self, store: &PostgresStore, hushed: bool) -> Result<(), Fault> {
        let mut final_head = head(store).await?;
        let drawn = self.draw_and_roll_back().await?;
        if hushed {
            final_head = head(store).await?;
        }
        let begun = Instant::now();
        let server = Arc::clone(&self.primary);
        spawn_blocking(move || server.restart(Stop::Immediate)).await?;
        self.after_stop(drawn, begun).await?;
        still_there(store, &final_head).await
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

    /// Draws numbers, rolls back, stops the primary at once and puts the standby in its place.
    ///
    /// No backend may be killed meanwhile: PostgreSQL shows the commit of a backend that was killed while it waited for
    /// the standby, though the standby may not have it.
    pub(crate) async fn promote(&mut self, standby: Arc<Server>, store: &PostgresStore) -> Result<(), Fault> {
        let mut connection = self.place.connect("leader").await?;
        // Waits for the standby, and so for everything that became visible before it.
        run(&mut connection, "INSERT INTO unrelated VALUES (2)").await?;
        let head = head(store).await?;
        let drawn = self.draw_and_roll_back().await?;
        let begun = Instant::now();
        let (old, new) = (Arc::clone(&self.primary), Arc::clone(&standby));
        spawn_blocking(move || {
            old.stop(Stop::Immediate);
            new.promote();
        })
        .await?;
        self.place.show_standby(None)?;
        self.place.put_in_charge(&standby)?;
        let ahead = self.after_stop(drawn, begun).await?;
        self.crashes.promotions += 1;
        let (least, most) = self.crashes.sequence_ahead.unwrap_or((ahead, ahead));
        self.crashes.sequence_ahead = Some((least.min(ahead), most.max(ahead)));
        let old = std::mem::replace(&mut self.primary, standby);
        spawn_blocking(move || drop(old)).await?;
        still_there(store, &head).await
    }

    /// The last number that was drawn.
    async fn draw_and_roll_back(&self) -> Result<i64, Fault> {
        let mut connection = self.place.connect("leader").await?;
        run(&mut connection, "BEGIN").await?;
        sqlx::query(DRAW).bind(UNDONE_STREAM.to_string()).execute(&mut connection).await?;
        let drawn = sqlx::query(SEQUENCE_AND_HEAD).fetch_one(&mut connection).await?.get(0);
        run(&mut connection, "ROLLBACK").await?;
        Ok(drawn)
    }

    /// Looks at the server that is there after a stop. Gives how far its sequence is ahead of the log.
    async fn after_stop(&mut self, drawn: i64, begun: Instant) -> Result<i64, Fault> {
        let mut connection = self.place.connect("leader").await?;
        let row = sqlx::query(SEQUENCE_AND_HEAD).fetch_one(&mut connection).await?;
        let (last, head): (i64, i64) = (row.get(0), row.get(1));
        if last < head {
            return Err(format!("after a crash the sequence stands at {last}, but the log ends at {head}").into());
        }
        let outage = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let crashes = &mut self.crashes;
        crashes.stops += 1;
        crashes.numbers_again += (drawn - last).max(0).unsigned_abs();
        crashes.longest_outage_ms = crashes.longest_outage_ms.max(outage);
        Ok(last - head)
    }
}

/// How far the log is final, as the library sees it.
async fn head(store: &PostgresStore) -> Result<Checkpoint, Fault> {
    loop {
        match store.head().await {
            Err(error) if error.is_transient() => sleep(Duration::from_millis(20)).await,
            head => return Ok(head?),
        }
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
