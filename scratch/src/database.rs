//! One database per test.

use std::hash::{DefaultHasher, Hash, Hasher};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};

use crate::cluster::Cluster;

/// Names a server to use instead of one of our own. Its account must be allowed to create databases.
const ELSEWHERE: &str = "ANNALS_POSTGRES_URL";

const IS_THERE: &str = "
    SELECT count(*)
    FROM pg_database
    WHERE datname = $1
    ORDER BY 1
";

/// A database that nobody else uses. It is removed, with all connections to it, when it is dropped.
#[derive(Debug)]
pub struct Database {
    name: String,
    url: String,
}

impl Database {
    /// An empty database.
    ///
    /// # Panics
    /// If there is no server and none can be started; the message says what to install.
    pub async fn empty() -> Self {
        Self::create("template0").await
    }

    /// A database like the one that `prepare` makes of an empty one, given its URL. It is made once per server and
    /// `content` (the text of its migrations, say), and copied for every test.
    ///
    /// # Panics
    /// As of [`Database::empty`].
    pub async fn like(content: &str, prepare: impl AsyncFnOnce(&str)) -> Self {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let template = format!("annals_template_{:016x}", hasher.finish());
        if !is_there(&template).await {
            let mut unfinished = Self::create("template0").await;
            prepare(&unfinished.url).await;
            // Whoever else makes it at the same time may come first; theirs is as good.
            let renamed = try_run(&format!("ALTER DATABASE {} RENAME TO {template}", unfinished.name)).await;
            match renamed {
                Ok(()) => unfinished.name = String::new(),
                Err(error) => assert!(is_there(&template).await, "the template cannot be made: {error}"),
            }
        }
        Self::create(&template).await
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    async fn create(template: &str) -> Self {
        let name = format!("annals_test_{}_{:016x}", std::process::id(), fastrand::u64(..));
        run(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        Self { url: server().database(&name).to_url_lossy().to_string(), name }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        let drop_it = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // A thread of its own, as a runtime may be around this one or not.
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(try_run(&drop_it))
        });
        match removing.join() {
            Ok(Ok(())) => {}
            other => eprintln!("the database `{}` is left behind: {other:?}", self.name),
        }
    }
}

fn server() -> PgConnectOptions {
    match std::env::var(ELSEWHERE) {
        Ok(url) => url.parse().unwrap_or_else(|_| panic!("{ELSEWHERE} is no URL of a PostgreSQL server")),
        Err(_) => Cluster::shared().options(),
    }
}

async fn connect() -> Result<PgConnection, sqlx::Error> {
    server().connect().await
}

async fn try_run(statement: &str) -> Result<(), sqlx::Error> {
    let mut connection = connect().await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await
}

async fn run(statement: &str) {
    try_run(statement).await.unwrap_or_else(|error| panic!("`{statement}`: {error}"));
}

async fn is_there(database: &str) -> bool {
    let mut connection = connect().await.expect("the server answers");
    let rows = sqlx::query(IS_THERE).bind(database).fetch_all(&mut connection).await.expect("the server answers");
    rows.first().is_some_and(|row| row.get::<i64, _>(0) > 0)
}
