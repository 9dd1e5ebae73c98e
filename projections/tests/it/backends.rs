//! Where events and read models are: each in a file or in a PostgreSQL database, together or apart.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{
    EventId, EventStore, ExpectedVersion, NewEvent, Position, PostgresDatabase, PostgresOptions, PostgresStore,
    SqliteDatabase, SqliteStore, StreamId, Tenant,
};
use annals_projections::{Projections, ProjectionsBuilder, ProjectionsExt};
use sqlx::{AssertSqlSafe, Row};

use super::shop::OrderEvent;

/// Runs a test on threads of its own, so that it can also kill them.
pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test)
}

enum Place {
    File(PathBuf),
    Postgres(annals_scratch::Database),
}

/// The places of one test; they outlast the processes that use them.
pub(crate) struct Backend {
    folder: tempfile::TempDir,
    events: Place,
    /// `None` if the read models are where the events are.
    views: Option<Place>,
}

impl Backend {
    fn new(events: impl FnOnce(&Self) -> Place) -> Self {
        let mut backend =
            Self { folder: tempfile::tempdir().unwrap(), events: Place::File(PathBuf::new()), views: None };
        backend.events = events(&backend);
        backend
    }

    fn file(&self, name: &str) -> Place {
        Place::File(self.folder.path().join(name))
    }

    pub(crate) fn in_one_file() -> Self {
        Self::new(|backend| backend.file("shop.db"))
    }

    pub(crate) fn in_two_files() -> Self {
        let mut backend = Self::in_one_file();
        backend.views = Some(backend.file("views.db"));
        backend
    }

    pub(crate) async fn in_one_postgres() -> Self {
        let events = annals_scratch::Database::empty().await;
        Self::new(|_| Place::Postgres(events))
    }

    pub(crate) async fn in_two_postgres() -> Self {
        let views = annals_scratch::Database::empty().await;
        Self { views: Some(Place::Postgres(views)), ..Self::in_one_postgres().await }
    }

    pub(crate) async fn events_in_a_file_views_in_postgres() -> Self {
        let views = annals_scratch::Database::empty().await;
        Self { views: Some(Place::Postgres(views)), ..Self::in_one_file() }
    }

    pub(crate) async fn events_in_postgres_views_in_a_file() -> Self {
        let mut backend = Self::in_one_postgres().await;
        backend.views = Some(backend.file("views.db"));
        backend
    }

    /// Where the events are: a path or a URL.
    pub(crate) fn place_of_events(&self) -> &std::ffi::OsStr {
        match &self.events {
            Place::File(path) => path.as_os_str(),
            Place::Postgres(database) => database.url().as_ref(),
        }
    }

    /// Where the events are, if that is a server.
    pub(crate) fn postgres_url(&self) -> &str {
        match &self.events {
            Place::Postgres(database) => database.url(),
            Place::File(_) => panic!("the events are in a file"),
        }
    }

    /// Where the events are, if that is a file.
    pub(crate) fn events_file(&self) -> &std::path::Path {
        match &self.events {
            Place::File(path) => path,
            Place::Postgres(_) => panic!("the events are on a server"),
        }
    }

    /// The same under another role.
    pub(crate) fn postgres_url_as(&self, role: &str) -> String {
        use sqlx::ConnectOptions;

        let options: sqlx::postgres::PgConnectOptions = self.postgres_url().parse().unwrap();
        options.username(role).to_url_lossy().to_string()
    }

    /// The server of the events, whatever becomes of their database.
    pub(crate) fn server_of_postgres(&self) -> sqlx::postgres::PgConnectOptions {
        let options: sqlx::postgres::PgConnectOptions = self.postgres_url().parse().unwrap();
        options.database("postgres")
    }

    /// Where the read models are, if that is a server of their own.
    pub(crate) fn views_url(&self) -> &str {
        match &self.views {
            Some(Place::Postgres(database)) => database.url(),
            _ => panic!("the read models have no server of their own"),
        }
    }

    /// Opens everything, as a new process does.
    pub(crate) async fn open(&self) -> Shop {
        let (store, beside) = match &self.events {
            Place::File(path) => {
                let store = SqliteStore::open(path).await.unwrap();
                let beside = Views::File(store.database().clone());
                (Store::File(store), beside)
            }
            Place::Postgres(database) => {
                let store = PostgresOptions::new(database.url()).migrate().open().await.unwrap();
                let beside = Views::Postgres(store.database().clone());
                (Store::Postgres(store), beside)
            }
        };
        let (views, apart) = match &self.views {
            None => (beside, false),
            Some(Place::File(path)) => (Views::File(SqliteDatabase::open(path).await.unwrap()), true),
            Some(Place::Postgres(database)) => {
                (Views::Postgres(PostgresDatabase::open(database.url()).await.unwrap()), true)
            }
        };
        Shop { store, views, apart }
    }
}

enum Store {
    File(SqliteStore),
    Postgres(PostgresStore),
}

enum Views {
    File(SqliteDatabase),
    Postgres(PostgresDatabase),
}

/// Waits until the runner says that every projection is at `position`, which may be a moment later than it can be queried.
pub(crate) async fn until_at(views: &Projections, position: Position) {
    while views.status().iter().any(|status| status.position < position) {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// Everything open.
pub(crate) struct Shop {
    store: Store,
    views: Views,
    apart: bool,
}

impl Shop {
    pub(crate) fn store(&self) -> Arc<dyn EventStore> {
        match &self.store {
            Store::File(store) => Arc::new(store.clone()),
            Store::Postgres(store) => Arc::new(store.clone()),
        }
    }

    /// Projections of the events where they are to be. Processes that die are replaced soon.
    pub(crate) fn projections(&self) -> ProjectionsBuilder {
        let projections = match (&self.store, &self.views) {
            (Store::File(store), _) if !self.apart => store.projections(),
            (Store::Postgres(store), _) if !self.apart => store.projections(),
            (_, Views::File(database)) => Projections::of(&self.store(), database),
            (_, Views::Postgres(database)) => Projections::of(&self.store(), database),
        };
        projections.lease(Duration::from_millis(300))
    }

    pub(crate) async fn append(&self, order: &str, events: &[OrderEvent]) -> Position {
        let store = self.store();
        let stream = StreamId::new(Tenant::default(), "order", order).unwrap();
        let new = |event| NewEvent::of(EventId::new(store.ids().next_id()).unwrap(), event).unwrap();
        let events = events.iter().map(new).collect();
        store.append(&stream, ExpectedVersion::Any, events).await.unwrap().position
    }

    /// The rows that a user's own query of the read models gives, a line each.
    pub(crate) async fn query(&self, sql: &str) -> Vec<String> {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.views {
            Views::File(database) => {
                let mut reader = database.read().await.unwrap();
                let rows = sqlx::query(sql).fetch_all(&mut *reader).await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
            Views::Postgres(database) => {
                let mut reader = database.read().await.unwrap();
                let rows = sqlx::query(sql).fetch_all(&mut *reader).await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
        }
    }

    /// The table that says which version each stable name shows.
    pub(crate) fn table_of_names(&self) -> &'static str {
        match &self.views {
            Views::File(_) => "annals_read_models",
            Views::Postgres(_) => "annals.read_models",
        }
    }

    /// Runs a user's own statement in the database of the read models.
    pub(crate) async fn run(&self, sql: &'static str) {
        match &self.views {
            Views::File(database) => {
                let mut transaction = database.begin().await.unwrap();
                sqlx::query(sql).execute(&mut *transaction).await.unwrap();
                transaction.commit().await.unwrap();
            }
            Views::Postgres(database) => {
                let mut transaction = database.begin().await.unwrap();
                sqlx::query(sql).execute(&mut *transaction).await.unwrap();
                transaction.commit().await.unwrap();
            }
        }
    }

    pub(crate) async fn close(self) {
        self.store().close().await;
        match &self.views {
            Views::File(database) => database.close().await,
            Views::Postgres(database) => database.close().await,
        }
    }
}
