//! What is set up before a crash to make it hurt: numbers that will be drawn again, and a missing one for readers to wait
//! at, so that they go through the crash with what they have learned before it.

use std::time::Duration;

use annals::{Append, Checkpoint, EventStore, ExpectedVersion, PostgresStore};
use sqlx::{PgConnection, Row};
use tokio::time::{Instant, sleep};

use crate::sample;
use crate::torture::Fault;
use crate::torture::fact::{HELD_STREAM, LEADERS_STREAM, UNDONE_STREAM, new_event, stream_id};
use crate::torture::place::{PATIENCE, Place, run};

/// Events that are never committed.
const INSERT: &str = "
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                               event_data, metadata)
    SELECT gen_random_uuid(), 'default', 'even', 's' || $1, n, 'torture.undone', 1, '{}', '{}'
    FROM generate_series(1, 5) AS n
    ORDER BY n
";

/// Numbers without events: what little is written of them is not on the disk before somebody waits for it, and a
/// crash makes the sequence forget them.
const DRAW: &str = "
    SELECT nextval('annals.events_position')
    FROM generate_series(1, 60) AS n
    ORDER BY n
";

/// How long readers are given to ask for the last number: longer than one of their waits.
const TO_BE_SEEN: Duration = Duration::from_millis(300);

pub(crate) struct Draws {
    /// How far the log was final before.
    pub(crate) head: Checkpoint,
    /// The numbers that were drawn for nothing and are not on the disk.
    pub(crate) numbers: Vec<u64>,
    /// The session that has drawn it.
    pub(crate) session: PgConnection,
    /// Another one, whose events readers wait for.
    pub(crate) held: PgConnection,
}

impl Draws {
    /// Draws numbers: some are rolled back now, the others by the crash. One that the crash rolls back has a committed event
    /// after it.
    pub(crate) async fn make(place: &Place, store: &PostgresStore) -> Result<Self, Fault> {
        let head = head(store).await?;
        let mut held = place.connect("leader").await?;
        run(&mut held, "BEGIN").await?;
        insert(&mut held, HELD_STREAM).await?;
        append(store, LEADERS_STREAM, sample::id()).await?;
        let mut session = place.connect("leader").await?;
        run(&mut session, "BEGIN").await?;
        insert(&mut session, UNDONE_STREAM).await?;
        run(&mut session, "ROLLBACK; BEGIN").await?;
        let drawn = sqlx::query(DRAW).fetch_all(&mut session).await?;
        sleep(TO_BE_SEEN).await;
        let numbers = drawn.iter().map(|row| row.get::<i64, _>(0).unsigned_abs()).collect();
        Ok(Self { head, numbers, session, held })
    }
}

async fn insert(connection: &mut PgConnection, stream: u32) -> Result<(), sqlx::Error> {
    sqlx::query(INSERT).bind(stream.to_string()).execute(connection).await.map(drop)
}

/// Appends one event under this id, however often it must be tried.
pub(crate) async fn append(store: &PostgresStore, stream: u32, id: uuid::Uuid) -> Result<(), Fault> {
    let append = Append::to(stream_id(stream)?, ExpectedVersion::Any, vec![new_event(stream, id)?]);
    let begun = Instant::now();
    while let Err(error) = store.append_many(append.clone()).await {
        if begun.elapsed() > PATIENCE {
            return Err(error.into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
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
