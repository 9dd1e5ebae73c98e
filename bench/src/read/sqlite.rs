//! Reads of a SQLite file, beside the raw query.

use std::time::Instant;

use annals::{EventStore, SqliteStore};
use futures::TryStreamExt;
use sqlx::SqliteConnection;

use super::{LENGTH, our_read};
use crate::baseline::sqlite::{COLUMNS, connection, plain};
use crate::plain::amount;
use crate::report::Report;
use crate::slices::{Tally, report};
use crate::{Fault, Options, fill};

pub(super) async fn measure(options: &Options) -> Result<Report, Fault> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("log.db");
    let store = SqliteStore::open(&path).await?;
    fill::by_appends(&store, options.events().div_ceil(LENGTH), LENGTH).await?;
    let mut connection = connection(&path).await?;
    let (mut ours, mut theirs) = (Tally::default(), Tally::default());
    while ours.busy < options.time() {
        our_read(&store, &mut ours).await?;
        if !options.alone {
            bare_read(&mut connection, &mut theirs).await?;
        }
    }
    store.close().await;
    let name = "sqlx `fetch`, row by row";
    Ok(report("read", "sqlite", 1, ours, (!options.alone).then_some((name, theirs))))
}

async fn bare_read(connection: &mut SqliteConnection, tally: &mut Tally) -> Result<(), Fault> {
    let start = Instant::now();
    let text = format!("SELECT {COLUMNS} FROM events WHERE position > ?1 ORDER BY position");
    let mut rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(0_i64).fetch(connection);
    let (mut count, mut sum) = (0, 0);
    while let Some(row) = rows.try_next().await? {
        sum += amount(&plain(&row)?);
        count += 1;
    }
    std::hint::black_box(sum);
    tally.add(count, start.elapsed(), [start.elapsed()]);
    Ok(())
}
