//! The stores that the contract is checked on.

use std::sync::Arc;

use annals_eventstore::conformance::{Backend, Capabilities, Setup};
use annals_eventstore::testing::FaultyStore;
use annals_eventstore::{EventStore, MemoryStore, SqliteOptions};
use async_trait::async_trait;

pub(crate) fn memory_store(setup: &Setup) -> MemoryStore {
    MemoryStore::builder().clock(setup.clock.clone()).limits(setup.limits.clone()).build()
}

pub(crate) struct InMemory;

#[async_trait]
impl Backend for InMemory {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: false, clock: true, snapshots: true }
    }

    async fn open(&self, setup: &Setup) -> Arc<dyn EventStore> {
        Arc::new(memory_store(setup))
    }
}

/// A faulty store without an injected failure must behave like the wrapped store.
pub(crate) struct FaultyWithoutFaults;

#[async_trait]
impl Backend for FaultyWithoutFaults {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: false, clock: true, snapshots: true }
    }

    async fn open(&self, setup: &Setup) -> Arc<dyn EventStore> {
        Arc::new(FaultyStore::new(memory_store(setup)))
    }
}

/// A file in its own folder.
pub(crate) struct OnDisk {
    folder: tempfile::TempDir,
    has_clock_of_setup: bool,
}

impl OnDisk {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), has_clock_of_setup: true }
    }

    /// By the clock of the machine, as in production: a lone append is one statement then.
    pub(crate) fn by_the_clock_of_the_machine() -> Self {
        Self { has_clock_of_setup: false, ..Self::new() }
    }
}

#[async_trait]
impl Backend for OnDisk {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, clock: self.has_clock_of_setup, snapshots: true }
    }

    async fn open(&self, setup: &Setup) -> Arc<dyn EventStore> {
        let path = self.folder.path().join("events.db");
        let options = SqliteOptions::new(path).readers(2).limits(setup.limits.clone());
        let options = if self.has_clock_of_setup { options.clock(setup.clock.clone()) } else { options };
        Arc::new(options.open().await.unwrap())
    }
}

/// Its own database on the test server.
#[cfg(feature = "postgres")]
#[derive(Default)]
pub(crate) struct InPostgres(tokio::sync::OnceCell<annals_scratch::Database>);

#[cfg(feature = "postgres")]
#[async_trait]
impl Backend for InPostgres {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, clock: false, snapshots: true }
    }

    async fn open(&self, setup: &Setup) -> Arc<dyn EventStore> {
        let database = self.0.get_or_init(postgres_database).await;
        let options = annals_eventstore::PostgresOptions::new(database.url()).limits(setup.limits.clone());
        Arc::new(options.open().await.unwrap())
    }
}

/// Its own database behind a pgbouncer in transaction mode.
#[cfg(feature = "postgres")]
#[derive(Default)]
pub(crate) struct BehindPooler(tokio::sync::OnceCell<annals_scratch::Database>);

#[cfg(feature = "postgres")]
#[async_trait]
impl Backend for BehindPooler {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, clock: false, snapshots: true }
    }

    async fn open(&self, setup: &Setup) -> Arc<dyn EventStore> {
        let database = self.0.get_or_init(postgres_database_on_our_own).await;
        let options = annals_eventstore::PostgresOptions::new(database.url_through_pooler()).pooled();
        Arc::new(options.limits(setup.limits.clone()).open().await.unwrap())
    }
}

/// A new database with an empty store in its first incarnation.
#[cfg(feature = "postgres")]
pub(crate) async fn postgres_database() -> annals_scratch::Database {
    new_incarnation(annals_scratch::Database::like(&postgres_schema(), migrate).await).await
}

/// The same on our own server, which has a pooler and certificates.
#[cfg(feature = "postgres")]
pub(crate) async fn postgres_database_on_our_own() -> annals_scratch::Database {
    new_incarnation(annals_scratch::Database::like_on_our_own(&postgres_schema(), migrate).await).await
}

#[cfg(feature = "postgres")]
fn postgres_schema() -> String {
    use annals_migrations::{POSTGRES_EVENTS, POSTGRES_PROJECTIONS};

    POSTGRES_EVENTS.iter().chain(POSTGRES_PROJECTIONS).map(|migration| migration.sql).collect()
}

#[cfg(feature = "postgres")]
async fn migrate(url: &str) {
    annals_eventstore::PostgresOptions::new(url).migrate().open().await.unwrap().close().await;
}

/// Databases made after one model would be one store.
#[cfg(feature = "postgres")]
async fn new_incarnation(database: annals_scratch::Database) -> annals_scratch::Database {
    use sqlx::Connection;

    let mut connection = sqlx::PgConnection::connect(database.url()).await.unwrap();
    let with_own_incarnation = "UPDATE annals.store SET incarnation = gen_random_uuid()";
    sqlx::raw_sql(with_own_incarnation).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    database
}
