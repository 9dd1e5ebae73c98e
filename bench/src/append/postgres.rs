//! Appends to a PostgreSQL database, beside the bare one.

use std::sync::Arc;

use annals::{EventStore, PostgresOptions, PostgresStore};
use sqlx::{PgConnection, PgPool};
use tokio::sync::Mutex;

use super::{Ours, Side, Work, slice};
use crate::report::Report;
use crate::server::Place;
use crate::slices::{Tally, plan, report};
use crate::{Fault, Options, baseline};

/// Connections beside those of the writers, and of a pool at most.
const MOST_CONNECTIONS: usize = 32;

/// Connections of a pool for large appends at most.
const MOST_FOR_LARGE: usize = 16;

pub(super) async fn measure(options: &Options, work: &Work) -> Result<Report, Fault> {
    let mut place = Place::find().await?;
    let store = open(&place.database("ours").await?, options).await?;
    let url = place.database("baseline").await?;
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
    place.leave().await?;
    Ok(report)
}

/// Opens our store, and makes its schema if it is not there.
pub(super) async fn open(url: &str, options: &Options) -> Result<PostgresStore, Fault> {
    let mut how = PostgresOptions::new(url).migrate().connections(options.clients.clamp(10, MOST_CONNECTIONS));
    if let Some(writers) = options.writers {
        how = how.writers(writers);
    }
    Ok(how.open().await?)
}

/// The bare database.
#[derive(Clone)]
enum Bare {
    /// One client: each append is a statement on the connection that it holds.
    Held(Arc<Mutex<PgConnection>>),
    /// Each append is a transaction on a connection of the pool.
    Transactions(PgPool),
    /// Each append is a statement on a connection of the pool.
    Statements(PgPool),
}

impl Bare {
    async fn open(url: &str, work: &Work) -> Result<Self, Fault> {
        Ok(match (work.events, work.clients) {
            (1, 1) => Self::Held(Arc::new(Mutex::new(baseline::postgres::connection(url).await?))),
            (1, clients) => Self::Transactions(baseline::postgres::pool(url, clients.min(MOST_CONNECTIONS)).await?),
            (_, clients) => Self::Statements(baseline::postgres::pool(url, clients.min(MOST_FOR_LARGE)).await?),
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Held(_) => "raw autocommit INSERT on one held connection",
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
            Self::Held(held) => {
                let query = baseline::postgres::insert(stream, version + 1, n);
                query.execute(&mut *held.lock().await).await?;
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
