//! The folder that the processes of a run share, and connections to the server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use annals_scratch::Server;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tokio::time::{Instant, sleep};

use crate::Fault;

pub(crate) const DATABASE: &str = "torture";

/// The application name of raw connections of writers and readers, which may be killed.
const KILLABLE: &str = "torture";

/// How long a server may be unreachable before the run is given up.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// The folder of a run.
///
/// The primary is found through the link `at`, as an application would find it through a DNS name. After a promotion the
/// link is changed, and new connections reach the new primary.
#[derive(Clone, Debug)]
pub(crate) struct RunFolder(PathBuf);

impl RunFolder {
    pub(crate) fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The URL of the primary.
    pub(crate) fn url(&self) -> String {
        Server::url_at(&self.0.join("at"), DATABASE)
    }

    /// The URL of the standby, while there is one. The same URL reaches that server after its promotion.
    pub(crate) fn standby_url(&self) -> Option<String> {
        let folder = std::fs::read_link(self.0.join("standby")).ok()?;
        Some(Server::url_at(&folder, DATABASE))
    }

    /// Makes `url` reach this server.
    pub(crate) fn set_primary(&self, server: &Server) -> std::io::Result<()> {
        let new = self.0.join("at.new");
        std::os::unix::fs::symlink(server.folder(), &new)?;
        std::fs::rename(new, self.0.join("at"))
    }

    /// Makes `standby_url` reach this server, or none.
    pub(crate) fn set_standby(&self, server: Option<&Server>) -> std::io::Result<()> {
        let link = self.0.join("standby");
        match server {
            Some(server) => std::os::unix::fs::symlink(server.folder(), link),
            None => std::fs::remove_file(link),
        }
    }

    /// The record of what was acknowledged to one process of writers.
    pub(crate) fn acknowledged(&self, process: usize) -> PathBuf {
        self.0.join(format!("acknowledged-{process}"))
    }

    /// The record of what was delivered to a reader.
    pub(crate) fn delivered(&self, reader: usize) -> PathBuf {
        self.0.join(format!("delivered-{reader}"))
    }

    pub(crate) fn checkpoint(&self, reader: usize) -> PathBuf {
        self.0.join(format!("checkpoint-{reader}"))
    }

    /// A connection of the coordinator to the primary, as soon as it can be reached. Disturbances do not kill it.
    pub(crate) async fn connect(&self) -> Result<PgConnection, Fault> {
        self.connect_as("coordinator").await
    }

    async fn connect_as(&self, application_name: &str) -> Result<PgConnection, Fault> {
        let options: PgConnectOptions = self.url().parse()?;
        let options = options.application_name(application_name).options([("lock_timeout", "2000")]);
        let options = options.disable_statement_logging();
        let begun = Instant::now();
        loop {
            match options.connect().await {
                Ok(connection) => return Ok(connection),
                Err(error) if begun.elapsed() > TIMEOUT => return Err(error.into()),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

/// Runs statements whose results are not needed.
pub(crate) async fn run(connection: &mut PgConnection, statements: impl Into<String>) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements.into())).execute(connection).await.map(drop)
}

/// A raw connection that is replaced after it has failed.
pub(crate) struct Reconnecting {
    folder: RunFolder,
    connection: Option<PgConnection>,
}

impl Reconnecting {
    pub(crate) fn new(folder: &RunFolder) -> Self {
        Self { folder: folder.clone(), connection: None }
    }

    /// The connection, outside of any transaction.
    pub(crate) async fn get(&mut self) -> Result<&mut PgConnection, Fault> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.folder.connect_as(KILLABLE).await?,
        };
        Ok(self.connection.insert(connection))
    }

    /// After an error: rolls back, or drops the connection if it is broken.
    pub(crate) async fn reset(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && run(&mut connection, "ROLLBACK").await.is_ok()
        {
            self.connection = Some(connection);
        }
    }

    pub(crate) async fn close(self) {
        if let Some(connection) = self.connection {
            // A broken connection needs no closing.
            connection.close().await.ok();
        }
    }
}
