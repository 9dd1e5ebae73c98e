//! A database with a log and the rows of the projection.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use annals::engine::Payload;
use annals::{
    EventId, EventStore, EventStoreExt, ExpectedVersion, Filter, NewEvent, Position, PostgresOptions, PostgresStore,
    ProjectionsBuilder, ProjectionsExt, SqliteStore, StreamId, Tenant,
};
use futures::TryStreamExt;
use sqlx::{Connection, FromRow};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::processes::Runner;

pub(crate) const SLOTS: u32 = 12;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// The time limit for what must happen within a few leases on an idle machine.
const IN_THE_END: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

const SUMS: &str = "
    SELECT stream, n, total
    FROM drive_sum
    ORDER BY stream
";

const OWNERS_IN_SQLITE: &str = "
    SELECT owner_epoch, position, runners.name
    FROM annals_checkpoints
    LEFT JOIN annals_runners AS runners
      ON runner = owner AND leased_until > CAST(unixepoch('subsec') * 1000000 AS INTEGER)
    WHERE projection = 'drive_sum'
    ORDER BY slot
";

const OWNERS_IN_POSTGRESQL: &str = "
    SELECT owner_epoch, position, runners.name
    FROM annals.checkpoints AS c
    LEFT JOIN annals.runners
      ON runners.read_schema = c.read_schema AND runner = owner AND leased_until > clock_timestamp()
    WHERE projection = 'drive_sum'
    ORDER BY slot
";

const RENEWALS_OF: &str = "
    SELECT name
    FROM annals.runners
    WHERE name = $1
    ORDER BY 1
    FOR UPDATE
";

/// Who has a slot, and how far it is.
#[derive(Debug)]
struct Slot {
    /// The number of the owner.
    epoch: i64,
    position: i64,
    /// The name of the runner whose lease it is.
    owner: Option<String>,
}

pub(crate) struct Projected {
    pub(crate) url: String,
    pub(crate) store: Arc<dyn EventStore>,
    database: Database,
}

enum Database {
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
}

impl Projected {
    pub(crate) async fn sqlite(folder: &Path) -> Self {
        let file = folder.join("log.db");
        let store = SqliteStore::open(&file).await.expect("it opens");
        let (url, database) = (format!("sqlite:{}", file.display()), Database::Sqlite(store.clone()));
        Self { url, store: Arc::new(store), database }
    }

    pub(crate) async fn postgres(url: &str) -> Self {
        let store = PostgresOptions::new(url).migrate().open().await.expect("it opens");
        Self { url: url.to_owned(), store: Arc::new(store.clone()), database: Database::Postgres(store) }
    }

    /// Projections that are run by the test itself.
    pub(crate) fn views(&self) -> ProjectionsBuilder {
        match &self.database {
            Database::Sqlite(store) => store.projections(),
            Database::Postgres(store) => store.projections(),
        }
    }

    /// Appends so many events of one name to one stream.
    pub(crate) async fn append(&self, to: &str, name: &str, events: i64) {
        let events = (0..events).map(|n| event(self.store.ids().next_id(), name, n)).collect::<Vec<_>>();
        for events in events.chunks(500) {
            self.store.append(&stream(to), ExpectedVersion::Any, events.to_vec()).await.expect("appended");
        }
    }

    /// Waits until these runners have all slots, as many each as any other or one more.
    pub(crate) async fn is_shared_by<const N: usize>(&self, runners: [&Runner; N]) {
        let names: BTreeSet<&str> = runners.iter().map(|runner| runner.name.as_str()).collect();
        let (least, begun) = (SLOTS as usize / N, Instant::now());
        loop {
            let slots = self.slots().await.unwrap_or_default();
            let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
            for name in slots.iter().filter_map(|slot| slot.owner.as_deref()) {
                *shares.entry(name).or_default() += 1;
            }
            let is_fair = shares.keys().copied().collect::<BTreeSet<_>>() == names
                && shares.values().all(|share| (least..=least + 1).contains(share));
            if is_fair && shares.values().sum::<usize>() == SLOTS as usize {
                return;
            }
            assert!(begun.elapsed() < IN_THE_END, "{names:?} do not share the slots: {slots:?}");
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until the rows are those that the log gives.
    pub(crate) async fn is_exact(&self) {
        let (expected, begun) = (self.fold().await, Instant::now());
        assert!(!expected.is_empty());
        loop {
            let rows = self.sums().await.unwrap_or_default();
            if rows == expected {
                return;
            }
            assert!(begun.elapsed() < IN_THE_END, "{rows:?} instead of {expected:?}; {:?}", self.slots().await);
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until the checkpoint of every slot is at the head, also where nothing concerned the slot, and gives them.
    pub(crate) async fn all_is_stored(&self) -> Vec<i64> {
        let head = self.store.head().await.expect("it answers").position.get();
        let (all, begun) = (vec![head; SLOTS as usize], Instant::now());
        while self.positions().await != all {
            assert!(begun.elapsed() < IN_THE_END, "not at {head}: {:?}", self.slots().await);
            sleep(LOOK_AGAIN).await;
        }
        all
    }

    /// How far each slot is.
    pub(crate) async fn positions(&self) -> Vec<i64> {
        self.slots().await.expect("the table is there").iter().map(|slot| slot.position).collect()
    }

    /// The number of the owner of each slot, by which it is another one after every take-over.
    pub(crate) async fn owners(&self) -> Vec<i64> {
        self.slots().await.expect("the table is there").iter().map(|slot| slot.epoch).collect()
    }

    /// Locks what a runner writes to renew its leases, for so long. In a SQLite file that is all there is.
    pub(crate) async fn block_renewals(&self, of: &str, time: Duration) {
        match &self.database {
            Database::Sqlite(store) => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(store.database().path());
                let mut connection = sqlx::SqliteConnection::connect_with(&options).await.expect("it opens");
                sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.expect("locked");
                sleep(time).await;
                connection.close().await.expect("closed");
            }
            Database::Postgres(_) => {
                let mut connection = sqlx::PgConnection::connect(&self.url).await.expect("it connects");
                let mut transaction = connection.begin().await.expect("begun");
                sqlx::query(RENEWALS_OF).bind(of).fetch_one(&mut *transaction).await.expect("locked");
                sleep(time).await;
                transaction.rollback().await.expect("unlocked");
            }
        }
    }

    /// What every stream of the log gives.
    async fn fold(&self) -> Vec<(String, i64, i64)> {
        let mut sums: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        let filter = Filter::all().event_name("drive.counted").expect("a name");
        let mut events = self.store.read_all(Position::START, filter);
        while let Some(event) = events.try_next().await.expect("it is read") {
            let payload: serde_json::Value = serde_json::from_str(event.payload.as_str()).expect("JSON");
            let sum = sums.entry(event.stream.aggregate_id().to_owned()).or_default();
            *sum = (sum.0 + 1, sum.1 + payload["n"].as_i64().expect("a number"));
        }
        sums.into_iter().map(|(stream, (n, total))| (stream, n, total)).collect()
    }

    /// An error if the database does not answer, as of the others.
    async fn sums(&self) -> Result<Vec<(String, i64, i64)>, Fault> {
        self.query(SUMS, SUMS).await
    }

    /// An error also before the first runner has made the tables.
    async fn slots(&self) -> Result<Vec<Slot>, Fault> {
        let rows = self.query(OWNERS_IN_SQLITE, OWNERS_IN_POSTGRESQL).await?.into_iter();
        Ok(rows.map(|(epoch, position, owner)| Slot { epoch, position, owner }).collect())
    }

    async fn query<T>(&self, in_sqlite: &'static str, in_postgresql: &'static str) -> Result<Vec<T>, Fault>
    where
        T: Send + Unpin,
        T: for<'r> FromRow<'r, sqlx::sqlite::SqliteRow> + for<'r> FromRow<'r, sqlx::postgres::PgRow>,
    {
        match &self.database {
            Database::Sqlite(store) => {
                let mut reader = store.database().read().await?;
                Ok(sqlx::query_as(in_sqlite).fetch_all(&mut *reader).await?)
            }
            Database::Postgres(store) => {
                let mut reader = store.database().read().await?;
                Ok(sqlx::query_as(in_postgresql).fetch_all(&mut *reader).await?)
            }
        }
    }
}

pub(crate) fn stream(name: &str) -> StreamId {
    StreamId::new(Tenant::default(), "drive", name).expect("a name")
}

/// An event of the driver.
pub(crate) fn event(id: Uuid, name: &str, n: i64) -> NewEvent {
    let payload = Payload::from_json(&format!("{{\"n\":{n}}}")).expect("JSON");
    NewEvent::raw(EventId::new(id).expect("an id"), name, 1, payload).expect("an event")
}
