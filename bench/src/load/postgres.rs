//! Loads from a PostgreSQL database, beside the raw query.

use std::sync::Arc;

use annals::{EventStore, PostgresOptions};
use futures::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool};
use tokio::sync::Mutex;

use super::{LENGTH, Ours, STREAMS, Side, slice};
use crate::baseline::postgres::{LOAD, connection, plain, pool, tidy};
use crate::plain::amount;
use crate::report::Report;
use crate::server::MeasuredServer;
use crate::slices::{Tally, plan, report};
use crate::{Fault, Options, fill};

/// The limit of connections of either side.
const MOST_CONNECTIONS: usize = 32;

pub(super) async fn measure(options: &Options) -> Result<Report, Fault> {
    let mut server = MeasuredServer::find().await?;
    let url = server.database("log").await?;
    let connections = options.clients.clamp(1, MOST_CONNECTIONS);
    let store = PostgresOptions::new(&url).migrate().connections(connections).open().await?;
    fill::by_appends(&store, STREAMS, LENGTH).await?;
    tidy(&url).await?;
    let bare = if options.clients == 1 {
        Bare::Single(Arc::new(Mutex::new(connection(&url).await?)))
    } else {
        Bare::Pool(pool(&url, connections).await?)
    };
    let (mut ours, mut theirs) = (Tally::default(), Tally::default());
    let (slices, time) = plan(options.time());
    for _ in 0..slices {
        slice(&[Ours(store.clone())], options.clients, time, &mut ours).await?;
        slice(std::slice::from_ref(&bare), options.clients, time, &mut theirs).await?;
    }
    let report = report("load", "postgres", options.clients, ours, Some((bare.name(), theirs)));
    store.close().await;
    drop(bare);
    server.remove().await?;
    Ok(report)
}

/// One open connection, or a pool with one per client.
#[derive(Clone)]
enum Bare {
    Single(Arc<Mutex<PgConnection>>),
    Pool(PgPool),
}

impl Bare {
    fn name(&self) -> &'static str {
        match self {
            Self::Single(_) => "the raw query on one open connection, rows decoded one by one",
            Self::Pool(_) => "the raw query through a pool of min(clients, 32), rows decoded one by one",
        }
    }
}

impl Side for Bare {
    async fn load(&self, aggregate_id: String) -> Result<(usize, usize), Fault> {
        let query = sqlx::query(LOAD).bind("default").bind("order").bind(aggregate_id).bind(0_i64);
        match self {
            Self::Single(connection) => add_up(query.fetch(&mut *connection.lock().await)).await,
            Self::Pool(pool) => add_up(query.fetch(pool)).await,
        }
    }
}

async fn add_up(
    mut rows: impl futures::Stream<Item = Result<PgRow, sqlx::Error>> + Unpin,
) -> Result<(usize, usize), Fault> {
    let (mut count, mut sum) = (0, 0);
    while let Some(row) = rows.try_next().await? {
        sum += amount(&plain(&row)?);
        count += 1;
    }
    Ok((count, sum))
}
