//! The PostgreSQL server of a measurement: a new one, or the one that `DATABASE_URL` names.

use annals_scratch::Server;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};

use crate::{Fault, baseline};

/// As durable as in production, and large enough that no checkpoint happens during a short measurement.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("shared_buffers", "1GB"),
    ("max_wal_size", "8GB"),
    ("max_connections", "300"),
];

const DURABLE: &str = "
    SELECT current_setting('fsync') = 'on' AND current_setting('synchronous_commit') IN ('on', 'remote_apply')
    ORDER BY 1
";

/// A server, and the databases that were created on it.
pub(crate) struct MeasuredServer {
    url: String,
    databases: Vec<String>,
    /// A new server; dropping it removes all databases.
    own: Option<Server>,
}

impl MeasuredServer {
    /// The server of `DATABASE_URL`, or a new one.
    pub(crate) async fn find() -> Result<Self, Fault> {
        let (url, own) = match std::env::var("DATABASE_URL") {
            Ok(url) => (url, None),
            Err(_) => {
                let server = tokio::task::spawn_blocking(|| Server::start(SETTINGS)).await?;
                (server.url("postgres"), Some(server))
            }
        };
        let mut connection = baseline::postgres::connection(&url).await?;
        let row = sqlx::query(DURABLE).fetch_one(&mut connection).await?;
        if !row.get::<bool, _>(0) {
            return Err("the server must run with `fsync` and `synchronous_commit` on".into());
        }
        connection.close().await?;
        Ok(Self { url, databases: Vec::new(), own })
    }

    /// The URL of a new, empty database.
    pub(crate) async fn database(&mut self, name: &str) -> Result<String, Fault> {
        let name = format!("annals_bench_{}_{name}", std::process::id());
        self.run(format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")).await?;
        let url = self.url.parse::<PgConnectOptions>()?.database(&name).to_url_lossy().to_string();
        self.databases.push(name);
        Ok(url)
    }

    /// Removes the databases. All connections must be closed.
    pub(crate) async fn remove(mut self) -> Result<(), Fault> {
        for name in std::mem::take(&mut self.databases) {
            if self.own.is_none() {
                self.run(format!("DROP DATABASE {name} WITH (FORCE)")).await?;
            }
        }
        Ok(())
    }

    async fn run(&self, statement: String) -> Result<(), Fault> {
        let mut connection = baseline::postgres::connection(&self.url).await?;
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }
}
