//! Reads of a PostgreSQL database, beside COPY.

use std::time::Instant;

use annals::{EventStore, PostgresOptions};
use futures::TryStreamExt;
use sqlx::PgConnection;

use super::copy::Rows;
use super::{LENGTH, our_read};
use crate::baseline::postgres::{COPY_LOG, connection};
use crate::plain::amount;
use crate::report::Report;
use crate::server::MeasuredServer;
use crate::slices::{Tally, report};
use crate::{Fault, Options, fill};

pub(super) async fn measure(options: &Options) -> Result<Report, Fault> {
    let mut server = MeasuredServer::find().await?;
    let url = server.database("log").await?;
    let store = PostgresOptions::new(&url).migrate().open().await?;
    fill::on_the_server(&url, options.events(), LENGTH).await?;
    let mut connection = connection(&url).await?;
    let (mut ours, mut theirs) = (Tally::default(), Tally::default());
    while ours.busy < options.time() {
        our_read(&store, &mut ours).await?;
        if !options.alone {
            bare_read(&mut connection, &mut theirs).await?;
        }
    }
    store.close().await;
    drop(connection);
    server.remove().await?;
    let name = "COPY TO STDOUT (FORMAT binary)";
    Ok(report("read", "postgres", 1, ours, (!options.alone).then_some((name, theirs))))
}

async fn bare_read(connection: &mut PgConnection, tally: &mut Tally) -> Result<(), Fault> {
    let start = Instant::now();
    let mut data = connection.copy_out_raw(COPY_LOG).await?;
    let mut rows = Rows::default();
    let (mut count, mut sum) = (0, 0);
    while let Some(piece) = data.try_next().await? {
        rows.read(&piece, |event| {
            sum += amount(&event);
            count += 1;
        })?;
    }
    rows.end()?;
    std::hint::black_box(sum);
    tally.add(count, start.elapsed(), [start.elapsed()]);
    Ok(())
}
