//! One database per test.

use std::hash::{DefaultHasher, Hash, Hasher};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};

use crate::cluster::Cluster;
use crate::tls::Tls;

/// Names a server to use instead of one of our own. Its account must be allowed to create databases.
const ELSEWHERE: &str = "ANNALS_POSTGRES_URL";

const IS_THERE: &str = "
    SELECT count(*)
    FROM pg_database
    WHERE datname = $1
    ORDER BY 1
";

/// Which server a database is made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The one that `ANNALS_POSTGRES_URL` names, or else our own.
    ForTests,
    /// Our own, which also has a pooler and certificates.
    Own,
}

/// A database that nobody else uses. It is removed, with all connections to it, when it is dropped.
#[derive(Debug)]
pub struct Database {
    place: Place,
    name: String,
    url: String,
}

impl Database {
    /// An empty database.
    ///
    /// # Panics
    /// If there is no server and none can be started; the message says what to install.
    pub async fn empty() -> Self {
        Self::create(Place::ForTests, "template0").await
    }

    /// [`Database::empty`] on our own server, whatever the environment says. Only that one has a pooler and certificates.
    ///
    /// # Panics
    /// As of [`Database::empty`].
    pub async fn empty_on_our_own() -> Self {
        Self::create(Place::Own, "template0").await
    }

    /// A database like the one that `prepare` makes of an empty one, given its URL. It is made once per server and
    /// `content` (the text of its migrations, say), and copied for every test.
    ///
    /// # Panics
    /// As of [`Database::empty`].
    pub async fn like(content: &str, prepare: impl AsyncFnOnce(&str)) -> Self {
        Self::like_at(Place::ForTests, content, prepare).await
    }

    /// [`Database::like`] on our own server.
    ///
    /// # Panics
    /// As of [`Database::empty`].
    pub async fn like_on_our_own(content: &str, prepare: impl AsyncFnOnce(&str)) -> Self {
        Self::like_at(Place::Own, content, prepare).await
    }

    async fn like_at(place: Place, content: &str, prepare: impl AsyncFnOnce(&str)) -> Self {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let template = format!("annals_template_{:016x}", hasher.finish());
        if !place.has(&template).await {
            let mut unfinished = Self::create(place, "template0").await;
            prepare(&unfinished.url).await;
            // Whoever else makes it at the same time may come first; theirs is as good.
            let renamed = place.try_run(&format!("ALTER DATABASE {} RENAME TO {template}", unfinished.name)).await;
            match renamed {
                Ok(()) => unfinished.name = String::new(),
                Err(error) => assert!(place.has(&template).await, "the template cannot be made: {error}"),
            }
        }
        Self::create(place, &template).await
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it is behind the pooler, a pgbouncer in transaction mode.
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
        assert_eq!(self.place, Place::Own, "only our own server has a pooler and certificates");
    }

    async fn create(place: Place, template: &str) -> Self {
        let name = format!("annals_test_{}_{:016x}", std::process::id(), fastrand::u64(..));
        let create = format!("CREATE DATABASE {name} TEMPLATE {template}");
        place.try_run(&create).await.unwrap_or_else(|error| panic!("`{create}`: {error}"));
        Self { place, url: place.options().database(&name).to_url_lossy().to_string(), name }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        let place = self.place;
        let drop_it = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // A thread of its own, as a runtime may be around this one or not.
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(place.try_run(&drop_it))
        });
        match removing.join() {
            Ok(Ok(())) => {}
            other => eprintln!("the database `{}` is left behind: {other:?}", self.name),
        }
    }
}

impl Place {
    fn options(self) -> PgConnectOptions {
        match std::env::var(ELSEWHERE) {
            Ok(url) if self == Self::ForTests => {
                url.parse().unwrap_or_else(|_| panic!("{ELSEWHERE} is no URL of a PostgreSQL server"))
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
        let rows = sqlx::query(IS_THERE).bind(database).fetch_all(&mut connection).await.expect("the server answers");
        rows.first().is_some_and(|row| row.get::<i64, _>(0) > 0)
    }
}
