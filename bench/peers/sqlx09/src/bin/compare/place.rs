//! Where the stores work: on a server of our own, or in a folder.

use std::fmt;

use annals_peers::{Fault, Place};
use annals_scratch::Server;
use clap::ValueEnum;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;

/// What keeps the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// PostgreSQL, with fsync and synchronous_commit on.
    Postgres,
    /// SQLite, with WAL and synchronous = FULL.
    Sqlite,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
        })
    }
}

/// As durable as in production, and large enough that no checkpoint falls into a turn.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("shared_buffers", "1GB"),
    ("max_wal_size", "8GB"),
    ("max_connections", "400"),
];

/// A server or a folder, with room for one case.
pub enum Room {
    Server(Server),
    Folder(TempDir),
}

impl Room {
    pub async fn new(engine: Engine) -> Result<Self, Fault> {
        Ok(match engine {
            Engine::Postgres => Self::Server(tokio::task::spawn_blocking(|| Server::start(SETTINGS)).await?),
            Engine::Sqlite => Self::Folder(tempfile::tempdir()?),
        })
    }

    /// An empty place for one store.
    pub async fn place(&self, peer: &str) -> Result<Place, Fault> {
        match self {
            Self::Server(server) => {
                let name = format!("of_{}", peer.replace('-', "_"));
                let mut connection = PgConnection::connect(&server.url("postgres")).await?;
                let create = AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE template0"));
                sqlx::raw_sql(create).execute(&mut connection).await?;
                connection.close().await?;
                Ok(Place::Postgres(server.url(&name)))
            }
            Self::Folder(folder) => Ok(Place::Sqlite(folder.path().join(format!("{peer}.db")))),
        }
    }
}
