//! Where a store lives: opened again and again, and changed by hand.

use std::sync::Arc;

use annals_eventstore::{EventStore, MemoryStore, SqliteStore};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection, Row};
use tempfile::TempDir;

pub(super) enum Place {
    Memory(MemoryStore),
    Sqlite(TempDir),
    #[cfg(feature = "postgres")]
    Postgres(annals_scratch::Database),
}

impl Place {
    pub(super) fn memory() -> Self {
        Self::Memory(MemoryStore::new())
    }

    pub(super) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    #[cfg(feature = "postgres")]
    pub(super) async fn postgres() -> Self {
        Self::Postgres(crate::backends::postgres_database().await)
    }

    pub(super) async fn open(&self) -> Arc<dyn EventStore> {
        match self {
            Self::Memory(store) => Arc::new(store.clone()),
            Self::Sqlite(folder) => Arc::new(SqliteStore::open(folder.path().join("events.db")).await.unwrap()),
            #[cfg(feature = "postgres")]
            Self::Postgres(database) => Arc::new(annals_eventstore::postgres(database.url()).await.unwrap()),
        }
    }

    /// What another process finds: every snapshot that was due is saved, and nothing is known. A store in memory lives in one
    /// process, so there it only waits.
    pub(super) async fn restart(&self, store: Arc<dyn EventStore>) -> Arc<dyn EventStore> {
        if let Self::Memory(_) = self {
            // Longer than snapshots are gathered; nothing tells from outside that none waits.
            tokio::time::sleep(std::time::Duration::from_millis(120)).await;
            return store;
        }
        store.close().await;
        self.open().await
    }

    /// Whether another process can change its rows.
    pub(super) fn is_durable(&self) -> bool {
        !matches!(self, Self::Memory(_))
    }

    /// Runs a statement of another program, written for SQLite.
    pub(super) async fn by_hand(&self, statement: &str) {
        match self {
            Self::Memory(_) => panic!("it has no rows"),
            Self::Sqlite(folder) => {
                let options = SqliteConnectOptions::new().filename(folder.path().join("events.db"));
                let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(database) => {
                let statement = statement
                    .replace("annals_snapshots", "annals.snapshots")
                    .replace("randomblob(16)", "gen_random_uuid()");
                let mut connection = sqlx::PgConnection::connect(database.url()).await.unwrap();
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// Sets the log back to its first `events` events, as a restore or a failover does; what was saved beside it stays.
    pub(super) async fn set_back(&self, events: usize) {
        match self {
            Self::Memory(_) => panic!("it cannot be set back"),
            Self::Sqlite(folder) => {
                let options = SqliteConnectOptions::new().filename(folder.path().join("events.db"));
                let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
                let guard = "SELECT sql FROM sqlite_schema WHERE name = 'events_are_never_deleted'";
                let guard: String = sqlx::query(guard).fetch_all(&mut connection).await.unwrap()[0].get(0);
                connection.close().await.unwrap();
                let statement = format!(
                    "BEGIN IMMEDIATE; DROP TRIGGER events_are_never_deleted; DELETE FROM events WHERE position > {events};
                     UPDATE sqlite_sequence SET seq = {events} WHERE name = 'events'; {guard}; COMMIT"
                );
                self.by_hand(&statement).await;
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => {
                // Positions may skip numbers, so the first events are counted.
                let statement = format!(
                    "ALTER TABLE annals.events DISABLE TRIGGER USER;
                     DELETE FROM annals.events WHERE position NOT IN (
                         SELECT position FROM annals.events ORDER BY position LIMIT {events});
                     ALTER TABLE annals.events ENABLE ALWAYS TRIGGER events_are_never_updated;
                     ALTER TABLE annals.events ENABLE ALWAYS TRIGGER events_are_never_deleted;
                     ALTER TABLE annals.events ENABLE ALWAYS TRIGGER events_are_never_truncated;
                     ALTER TABLE annals.events ENABLE ALWAYS TRIGGER events_continue_their_stream"
                );
                self.by_hand(&statement).await;
            }
        }
    }
}
