//! Loads from a SQLite file, beside the raw query.

use std::sync::Arc;

use annals::{EventStore, SqliteStore};
use futures::TryStreamExt;
use sqlx::{AssertSqlSafe, SqliteConnection};
use tokio::sync::Mutex;

use super::{LENGTH, Ours, STREAMS, Side, slice};
use crate::baseline::sqlite::{COLUMNS, connection, plain};
use crate::plain::amount;
use crate::report::Report;
use crate::slices::{Tally, plan, report};
use crate::{Fault, Options, fill};

pub(super) async fn measure(options: &Options) -> Result<Report, Fault> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("log.db");
    let store = SqliteStore::open(&path).await?;
    fill::by_appends(&store, STREAMS, LENGTH).await?;
    let text: Arc<str> = format!(
        "SELECT {COLUMNS} FROM events WHERE tenant = ?1 AND aggregate_type = ?2 AND aggregate_id = ?3 AND version > ?4 ORDER BY version"
    )
    .into();
    let mut bare = Vec::new();
    for _ in 0..4 {
        bare.push(Bare { connection: Arc::new(Mutex::new(connection(&path).await?)), text: Arc::clone(&text) });
    }
    let (mut ours, mut theirs) = (Tally::default(), Tally::default());
    let (slices, time) = plan(options.time());
    for _ in 0..slices {
        slice(&[Ours(store.clone())], options.clients, time, &mut ours).await?;
        slice(&bare, options.clients, time, &mut theirs).await?;
    }
    store.close().await;
    let name = "the raw query on open connections, rows decoded one by one";
    Ok(report("load", "sqlite", options.clients, ours, Some((name, theirs))))
}

/// An open connection, and the text of the query.
#[derive(Clone)]
struct Bare {
    connection: Arc<Mutex<SqliteConnection>>,
    text: Arc<str>,
}

impl Side for Bare {
    async fn load(&self, aggregate_id: String) -> Result<(usize, usize), Fault> {
        let query = sqlx::query(AssertSqlSafe(Arc::clone(&self.text)));
        let query = query.bind("default").bind("order").bind(aggregate_id).bind(0_i64);
        let mut connection = self.connection.lock().await;
        let mut rows = query.fetch(&mut *connection);
        let (mut count, mut sum) = (0, 0);
        while let Some(row) = rows.try_next().await? {
            sum += amount(&plain(&row)?);
            count += 1;
        }
        Ok((count, sum))
    }
}
