//! Where a run happens: the folder that its processes share, and how they reach the server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use annals_scratch::Server;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tokio::time::{Instant, sleep};

use crate::torture::Fault;

/// The database that is tortured.
pub(crate) const DATABASE: &str = "torture";

/// How raw connections of the run are called, so that they can be told from others when some are to be killed.
pub(crate) const RAW: &str = "torture";

/// How long a server may be away before a run gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The folder of a run.
///
/// The server in charge is found by the link `at`, as an application would find it by a name in the network: when
/// another one takes over, the link is changed, and whoever connects anew comes to the new one.
#[derive(Clone, Debug)]
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    /// Where the server in charge is.
    pub(crate) fn url(&self) -> String {
        Server::url_at(&self.0.join("at"), DATABASE)
    }

    /// Where the standby is, while there is one. The address goes with that server when it is promoted.
    pub(crate) fn standby_url(&self) -> Option<String> {
        let folder = std::fs::read_link(self.0.join("standby")).ok()?;
        Some(Server::url_at(&folder, DATABASE))
    }

    /// Puts a server in charge.
    pub(crate) fn put_in_charge(&self, server: &Server) -> std::io::Result<()> {
        let new = self.0.join("at.new");
        std::os::unix::fs::symlink(server.folder(), &new)?;
        std::fs::rename(new, self.0.join("at"))
    }

    /// Says which standby may be read.
    pub(crate) fn show_standby(&self, server: Option<&Server>) -> std::io::Result<()> {
        let link = self.0.join("standby");
        match server {
            Some(server) => std::os::unix::fs::symlink(server.folder(), link),
            None => std::fs::remove_file(link),
        }
    }

    /// What the writers of one process were answered.
    pub(crate) fn acknowledged(&self, process: usize) -> PathBuf {
        self.0.join(format!("acknowledged-{process}"))
    }

    /// What a reader was given.
    pub(crate) fn delivered(&self, reader: usize) -> PathBuf {
        self.0.join(format!("delivered-{reader}"))
    }

    /// How far a reader has come.
    pub(crate) fn checkpoint(&self, reader: usize) -> PathBuf {
        self.0.join(format!("checkpoint-{reader}"))
    }

    /// A connection to the server in charge under this name, as soon as there is one.
    ///
    /// # Errors
    /// If there is none for too long.
    pub(crate) async fn connect(&self, name: &str) -> Result<PgConnection, Fault> {
        let options: PgConnectOptions = self.url().parse()?;
        let options = options.application_name(name).options([("lock_timeout", "2000")]).disable_statement_logging();
        let begun = Instant::now();
        loop {
            match options.connect().await {
                Ok(connection) => return Ok(connection),
                Err(error) if begun.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

/// Runs statements that need no answer.
pub(crate) async fn run(connection: &mut PgConnection, statements: impl Into<String>) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements.into())).execute(connection).await.map(drop)
}

/// A raw connection that is made anew after it has failed.
pub(crate) struct Link {
    place: Place,
    connection: Option<PgConnection>,
}

impl Link {
    pub(crate) fn new(place: &Place) -> Self {
        Self { place: place.clone(), connection: None }
    }

    /// The connection, outside of any transaction.
    pub(crate) async fn get(&mut self) -> Result<&mut PgConnection, Fault> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.place.connect(RAW).await?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Puts an end to whatever has failed on it: rolls back, or gives the connection up.
    pub(crate) async fn mend(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && run(&mut connection, "ROLLBACK").await.is_ok()
        {
            self.connection = Some(connection);
        }
    }

    /// Says goodbye to the server.
    pub(crate) async fn close(self) {
        if let Some(connection) = self.connection {
            // A connection that is gone already is as good as closed.
            connection.close().await.ok();
        }
    }
}
