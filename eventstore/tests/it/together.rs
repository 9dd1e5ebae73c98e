//! Appends that are sent together are answered as if they were sent one after the other, however the store groups them.

use std::collections::HashMap;
use std::sync::Arc;

use annals_eventstore::{
    After, Append, AppendError, Appended, EventId, EventStore, ExpectedVersion, Filter, Fingerprint, MemoryStore,
    NewEvent, Payload, RequestKey, SqliteStore, StreamId, StreamVersion, Tenant,
};
use futures::future::join_all;
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

const TENANTS: [&str; 2] = ["default", "other"];
const BATCHES: usize = 30;
const AT_ONCE: usize = 24;

/// A stream at its last version, and one that is one event before it. On PostgreSQL, where the unique key shows
/// that a version is taken, they also have more first versions than the appends of a test expect.
const FULL: [(&str, i64); 2] = [("full", i64::MAX), ("almost", i64::MAX - 1)];

fn stream(tenant: &str, id: &str) -> StreamId {
    StreamId::new(Tenant::new(tenant).unwrap(), "order", id).unwrap()
}

/// Makes random appends of all kinds, so that each kind of answer comes.
struct Appends {
    random: fastrand::Rng,
    ids: Vec<&'static str>,
    /// The versions of the streams after the batches so far.
    heads: HashMap<StreamId, i64>,
    /// The appends that were sent, by tenant.
    sent: HashMap<&'static str, Vec<Append>>,
}

impl Appends {
    fn event(&mut self) -> NewEvent {
        let id =
            EventId::new(uuid::Builder::from_random_bytes(self.random.u128(..).to_be_bytes()).into_uuid()).unwrap();
        let payload = Payload::of(&self.random.u8(..3)).unwrap();
        NewEvent::raw(id, "placed", 1, payload).unwrap()
    }

    fn expected(&mut self, stream: &StreamId) -> ExpectedVersion {
        let exact = |version| ExpectedVersion::Exact(StreamVersion::new(version).unwrap());
        let head = self.heads.get(stream).copied().unwrap_or_default();
        match self.random.u8(..16) {
            0..5 => ExpectedVersion::Any,
            5 => ExpectedVersion::NoStream,
            6 => exact(i64::MAX),
            7 => exact(i64::MAX - 1),
            _ => exact(head.saturating_add(self.random.i64(-1..6)).max(0)),
        }
    }

    fn next(&mut self) -> Append {
        let tenant = TENANTS[self.random.usize(..TENANTS.len())];
        let earlier = self.sent.get(tenant).filter(|sent| !sent.is_empty()).cloned().unwrap_or_default();
        let append = match self.random.u8(..20) {
            // The same again, whatever its outcome was.
            0..2 if !earlier.is_empty() => earlier[self.random.usize(..earlier.len())].clone(),
            // Some of its ids, with others or in another stream.
            2..5 if !earlier.is_empty() => {
                let part = earlier[self.random.usize(..earlier.len())].parts()[0].clone();
                let mut events = part.events;
                if self.random.bool() {
                    events.push(self.event());
                }
                let to = stream(tenant, self.ids[self.random.usize(..self.ids.len())]);
                Append::to(to, part.expected, events)
            }
            _ => {
                let to = stream(tenant, self.ids[self.random.usize(..self.ids.len())]);
                let events = (0..self.random.usize(1..4)).map(|_| self.event()).collect();
                let expected = self.expected(&to);
                Append::to(to, expected, events)
            }
        };
        let append = match self.random.u8(..4) {
            0 => {
                let body = self.random.bool();
                let key = format!("r{}", self.random.u8(..10));
                append.with_request(RequestKey::new(key, Fingerprint::of(&body).unwrap()).unwrap())
            }
            _ => append,
        };
        self.sent.entry(tenant).or_default().push(append.clone());
        append
    }
}

/// An answer as text, without positions and times, which differ between stores.
fn outline(answer: &Result<Appended, AppendError>) -> String {
    match answer {
        Ok(appended) => {
            let streams = appended.streams.iter().map(|s| format!("{}@{}+{}", s.stream, s.version, s.positions.len()));
            format!("{} repeated: {}", streams.collect::<Vec<_>>().join(" "), appended.repeated)
        }
        Err(error) => format!("{:?}: {error}", error.family()),
    }
}

/// Every event, in the order of its stream.
async fn streams(store: &dyn EventStore) -> HashMap<StreamId, Vec<(StreamVersion, EventId)>> {
    let mut streams: HashMap<_, Vec<_>> = HashMap::new();
    let mut after = After::START;
    loop {
        let page = store.read_page(after, &Filter::all(), 1_000).await.unwrap();
        for event in page.events {
            streams.entry(event.stream).or_default().push((event.version, event.event_id));
        }
        match page.checkpoint {
            Some(checkpoint) if !page.end => after = checkpoint.into(),
            _ => break,
        }
    }
    // Streams that were planted have an event with an id of each store's own.
    streams.retain(|stream, _| FULL.iter().all(|(id, _)| *id != stream.aggregate_id()));
    streams
}

/// Sends random batches to `together` at once, and to `apart` one append after the other.
async fn are_answered_alike(together: Arc<dyn EventStore>, apart: Vec<Arc<dyn EventStore>>, with_full: bool) {
    let seed = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("ANNALS_SEED={seed}");
    let mut ids = vec!["a", "b", "c"];
    let mut heads = HashMap::new();
    if with_full {
        ids.extend(FULL.map(|(id, _)| id));
        heads.extend(FULL.map(|(id, version)| (stream(TENANTS[0], id), version)));
    }
    let random = fastrand::Rng::with_seed(seed);
    let mut appends = Appends { random, ids, heads, sent: HashMap::new() };
    let mut seen: HashMap<String, usize> = HashMap::new();
    for batch in 0..BATCHES {
        let batch_of: Vec<Append> = (0..appends.random.usize(1..AT_ONCE)).map(|_| appends.next()).collect();
        let answers = join_all(batch_of.iter().map(|append| together.append_many(append.clone()))).await;
        let answers: Vec<String> = answers.iter().map(outline).collect();
        for store in &apart {
            for (place, append) in batch_of.iter().enumerate() {
                let alone = store.append_many(append.clone()).await;
                if let Ok(appended) = &alone {
                    let streams = appended.streams.iter().filter(|_| !appended.repeated);
                    appends.heads.extend(streams.map(|s| (s.stream.clone(), s.version.get())));
                }
                let text = outline(&alone);
                let kind = match &alone {
                    Ok(appended) => if appended.repeated { "repeated" } else { "appended" }.to_owned(),
                    Err(error) => format!("{error:?}").chars().take_while(|c| c.is_alphanumeric()).collect(),
                };
                *seen.entry(kind).or_default() += 1;
                assert_eq!(answers[place], text, "append {place} of batch {batch}: {append:?} (ANNALS_SEED={seed})");
            }
            assert_eq!(streams(&*together).await, streams(&**store).await, "batch {batch} (ANNALS_SEED={seed})");
        }
    }
    for kind in ["appended", "repeated", "WrongExpectedVersion", "EventIdTaken", "RequestKeyReused"] {
        assert!(
            seen.get(kind).is_some_and(|count| *count > 2),
            "too few answers `{kind}` in {seen:?} (ANNALS_SEED={seed})"
        );
    }
    assert!(!with_full || seen.contains_key("StreamFull"), "{seen:?}");
}

/// A file with planted streams, past the guard that refuses them.
async fn sqlite(folder: &tempfile::TempDir, with_full: bool) -> Arc<dyn EventStore> {
    const GUARD: &str = "events_are_never_replaced";
    let path = folder.path().join("events.db");
    let store = SqliteStore::open(&path).await.unwrap();
    if with_full {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
        let mut foreign = SqliteConnection::connect_with(&options).await.unwrap();
        let guard = sqlx::query("SELECT sql FROM sqlite_schema WHERE name = ?1").bind(GUARD);
        let guard: String = guard.fetch_one(&mut foreign).await.unwrap().get(0);
        let planted = FULL.map(|(id, version)| {
            format!(
                "INSERT INTO events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                                     event_data, metadata, recorded_at)
                 VALUES (randomblob(16), 'default', 'order', '{id}', {version}, 'placed', 1, '{{}}', '{{}}', 0);"
            )
        });
        let planting = format!("BEGIN IMMEDIATE; DROP TRIGGER {GUARD}; {} {guard}; COMMIT", planted.concat());
        sqlx::raw_sql(AssertSqlSafe(planting)).execute(&mut foreign).await.unwrap();
        foreign.close().await.unwrap();
    }
    Arc::new(store)
}

#[tokio::test]
async fn a_batch_on_sqlite_is_answered_as_its_appends_would_be_one_after_the_other() {
    for with_full in [false, true] {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let together = sqlite(&folders[0], with_full).await;
        let mut apart = vec![sqlite(&folders[1], with_full).await];
        if !with_full {
            apart.push(Arc::new(MemoryStore::new()));
        }
        are_answered_alike(together, apart, with_full).await;
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_group_on_postgres_is_answered_as_its_appends_would_be_one_after_the_other() {
    use annals_eventstore::PostgresOptions;
    use annals_scratch::Database;

    use crate::backends::postgres_database;

    async fn plant(database: &Database) {
        let mut foreign = sqlx::PgConnection::connect(database.url()).await.unwrap();
        let planted = FULL.map(|(id, version)| {
            format!(
                "INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type,
                                            schema_version, event_data, metadata)
                 SELECT gen_random_uuid(), 'default', 'order', '{id}', v, 'placed', 1, '{{}}', '{{}}'
                 FROM (SELECT generate_series(1, 1000) UNION ALL SELECT {version}) AS versions (v)
                 ORDER BY v;"
            )
        });
        let planting = format!(
            "ALTER TABLE annals.events DISABLE TRIGGER events_continue_their_stream;
             {}
             ALTER TABLE annals.events ENABLE ALWAYS TRIGGER events_continue_their_stream",
            planted.concat()
        );
        sqlx::raw_sql(AssertSqlSafe(planting)).execute(&mut foreign).await.unwrap();
        foreign.close().await.unwrap();
    }

    for with_full in [false, true] {
        let databases = [postgres_database().await, postgres_database().await];
        if with_full {
            plant(&databases[0]).await;
            plant(&databases[1]).await;
        }
        let together = PostgresOptions::new(databases[0].url()).writers(1).open().await.unwrap();
        let alone = PostgresOptions::new(databases[1].url()).writers(1).open().await.unwrap();
        let mut apart: Vec<Arc<dyn EventStore>> = vec![Arc::new(alone)];
        if !with_full {
            apart.push(Arc::new(MemoryStore::new()));
        }
        are_answered_alike(Arc::new(together), apart, with_full).await;
    }
}
