//! One database per test.

use std::hash::{DefaultHasher, Hash, Hasher};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};

use crate::cluster::Cluster;
use crate::tls::Tls;

/// Names a server to use instead of starting one. Its account must be allowed to create databases.
const URL_VARIABLE: &str = "ANNALS_POSTGRES_URL";

const COUNT_BY_NAME: &str = "
    SELECT count(*)
    FROM pg_database
    WHERE datname = $1
    ORDER BY 1
";

/// On which server a database is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    /// The one that `ANNALS_POSTGRES_URL` names, or else our own.
    AnyServer,
    /// Our own, which also has a pooler and certificates.
    OwnServer,
}

/// A database that no other test uses. Dropping it removes the database and ends all connections to it.
#[derive(Debug)]
pub struct Database {
    server: On,
    name: String,
    url: String,
}

impl Database {
    /// An empty database.
    ///
    /// # Panics
    /// If there is no server and none can be started; the message says what to install.
    pub async fn empty() -> Self {
        Self::create(On::AnyServer, "template0").await
    }

    /// [`Database::empty`] on our own server, which alone has a pooler and certificates.
    ///
    /// # Panics
    /// As [`Database::empty`].
    pub async fn empty_on_our_own() -> Self {
        Self::create(On::OwnServer, "template0").await
    }

    /// A copy of a database that `prepare` has filled, given the URL of an empty one. The original is made once per server
    /// and `content`, which is for example the text of its migrations.
    ///
    /// # Panics
    /// As [`Database::empty`].
    pub async fn like(content: &str, prepare: impl AsyncFnOnce(&str)) -> Self {
        Self::like_at(On::AnyServer, content, prepare).await
    }

    /// [`Database::like`] on our own server.
    ///
    /// # Panics
    /// As [`Database::empty`].
    pub async fn like_on_our_own(content: &str, prepare: impl AsyncFnOnce(&str)) -> Self {
        Self::like_at(On::OwnServer, content, prepare).await
    }

    async fn like_at(server: On, content: &str, prepare: impl AsyncFnOnce(&str)) -> Self {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let template = format!("annals_template_{:016x}", hasher.finish());
        if !server.has(&template).await {
            let mut unfinished = Self::create(server, "template0").await;
            prepare(&unfinished.url).await;
            // Another process may have made the same template first.
            let renamed = server.try_run(&format!("ALTER DATABASE {} RENAME TO {template}", unfinished.name)).await;
            match renamed {
                Ok(()) => unfinished.name = String::new(),
                Err(error) => assert!(server.has(&template).await, "the template cannot be created: {error}"),
            }
        }
        Self::create(server, &template).await
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its URL through the pooler, a pgbouncer in transaction mode.
    ///
    /// # Panics
    /// If it is not on our own server, or if pgbouncer is not installed; the message says what to install.
    #[must_use]
    pub fn url_through_pooler(&self) -> String {
        self.is_on_our_own();
        Cluster::shared().options_through_pooler().database(&self.name).to_url_lossy().to_string()
    }

    /// How to reach it over TCP with encryption: `postgres://{user}@{host}:{port}/{name}`.
    ///
    /// # Panics
    /// If it is not on our own server.
    #[must_use]
    pub fn tls(&self) -> Tls {
        self.is_on_our_own();
        Cluster::shared().tls()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn is_on_our_own(&self) {
        assert_eq!(self.server, On::OwnServer, "only our own server has a pooler and certificates");
    }

    async fn create(server: On, template: &str) -> Self {
        let name = format!("annals_test_{}_{:016x}", std::process::id(), fastrand::u64(..));
        let create = format!("CREATE DATABASE {name} TEMPLATE {template}");
        server.try_run(&create).await.unwrap_or_else(|error| panic!("`{create}`: {error}"));
        Self { server, url: server.options().database(&name).to_url_lossy().to_string(), name }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        let server = self.server;
        let drop_it = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // In a new thread, because this one may belong to a runtime.
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be created").block_on(server.try_run(&drop_it))
        });
        match removing.join() {
            Ok(Ok(())) => {}
            other => eprintln!("the database `{}` is left behind: {other:?}", self.name),
        }
    }
}

impl On {
    fn options(self) -> PgConnectOptions {
        match std::env::var(URL_VARIABLE) {
            Ok(url) if self == Self::AnyServer => {
                url.parse().unwrap_or_else(|_| panic!("{URL_VARIABLE} is not the URL of a PostgreSQL server"))
            }
            _ => Cluster::shared().options(),
        }
    }

    async fn connect(self) -> Result<PgConnection, sqlx::Error> {
        self.options().connect().await
    }

    async fn try_run(self, statement: &str) -> Result<(), sqlx::Error> {
        let mut connection = self.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
        connection.close().await
    }

    async fn has(self, database: &str) -> bool {
        let mut connection = self.connect().await.expect("the server answers");
        let rows =
            sqlx::query(COUNT_BY_NAME).bind(database).fetch_all(&mut connection).await.expect("the server answers");
        rows.first().is_some_and(|row| row.get::<i64, _>(0) > 0)
    }
}
