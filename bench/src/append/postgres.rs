//! Appends to a PostgreSQL database, beside the bare one.

use std::sync::Arc;

use annals::{EventStore, PostgresOptions, PostgresStore};
use sqlx::{PgConnection, PgPool};
use tokio::sync::Mutex;

use super::{Ours, Side, Work, slice};
use crate::report::Report;
use crate::server::MeasuredServer;
use crate::slices::{Tally, plan, report};
use crate::{Fault, Options, baseline};

/// The limit of connections beside those of the writers, and of a pool.
const MOST_CONNECTIONS: usize = 32;

/// The limit of connections of a pool for large appends.
const MOST_FOR_LARGE: usize = 16;

pub(super) async fn measure(options: &Options, work: &Work) -> Result<Report, Fault> {
    let mut server = MeasuredServer::find().await?;
    let store = open(&server.database("ours").await?, options).await?;
    let url = server.database("baseline").await?;
    PostgresOptions::new(&url).migrate().open().await?.close().await;
    let bare = Bare::open(&url, work).await?;
    let (mut ours, mut theirs) = (Tally::default(), Tally::default());
    let (slices, time) = plan(options.time());
    for _ in 0..slices {
        slice(&Ours(store.clone()), work, time, &mut ours).await?;
        slice(&bare, work, time, &mut theirs).await?;
    }
    let report = report(work.case(), "postgres", work.clients, ours, Some((bare.name(), theirs)));
    store.close().await;
    drop(bare);
    server.remove().await?;
    Ok(report)
}

/// Opens our store, and creates its schema if it does not exist.
pub(super) async fn open(url: &str, options: &Options) -> Result<PostgresStore, Fault> {
    let mut store = PostgresOptions::new(url).migrate().connections(options.clients.clamp(10, MOST_CONNECTIONS));
    if let Some(writers) = options.writers {
        store = store.writers(writers);
    }
    Ok(store.open().await?)
}

/// The bare database.
#[derive(Clone)]
enum Bare {
    /// One client: each append is a statement on its connection.
    Single(Arc<Mutex<PgConnection>>),
    /// Each append is a transaction on a connection of the pool.
    Transactions(PgPool),
    /// Each append is a statement on a connection of the pool.
    Statements(PgPool),
}

impl Bare {
    async fn open(url: &str, work: &Work) -> Result<Self, Fault> {
        Ok(match (work.events, work.clients) {
            (1, 1) => Self::Single(Arc::new(Mutex::new(baseline::postgres::connection(url).await?))),
            (1, clients) => Self::Transactions(baseline::postgres::pool(url, clients.min(MOST_CONNECTIONS)).await?),
            (_, clients) => Self::Statements(baseline::postgres::pool(url, clients.min(MOST_FOR_LARGE)).await?),
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Single(_) => "raw autocommit INSERT on one open connection",
            Self::Transactions(_) => "BEGIN, INSERT, COMMIT per append through a pool of min(clients, 32)",
            Self::Statements(_) => "raw autocommit INSERT from unnest through a pool of min(clients, 16)",
        }
    }
}

impl Side for Bare {
    type Stream = String;

    fn stream(name: String) -> String {
        name
    }

    async fn append(&self, stream: &String, version: i64, n: u64, events: usize) -> Result<(), Fault> {
        match self {
            Self::Single(connection) => {
                let query = baseline::postgres::insert(stream, version + 1, n);
                query.execute(&mut *connection.lock().await).await?;
            }
            Self::Transactions(pool) => {
                let query = baseline::postgres::insert(stream, version + 1, n);
                let mut transaction = pool.begin().await?;
                query.execute(&mut *transaction).await?;
                transaction.commit().await?;
            }
            Self::Statements(pool) => {
                baseline::postgres::insert_many(stream, version, n, events).execute(pool).await?;
            }
        }
        Ok(())
    }
}
