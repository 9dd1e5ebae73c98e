//! Appends to a SQLite file, beside the bare one.

use std::path::Path;
use std::sync::Arc;

use annals::{EventStore, SqliteStore};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection, SqlitePool};
use tokio::sync::Mutex;

use super::{Ours, Side, Work, slice};
use crate::report::Report;
use crate::slices::{Tally, plan, report};
use crate::{Fault, Options, baseline, sample};

pub(super) async fn measure(options: &Options, work: &Work) -> Result<Report, Fault> {
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(folder.path().join("ours.db")).await?;
    let path = folder.path().join("baseline.db");
    SqliteStore::open(&path).await?.close().await;
    let bare = Bare::open(&path, work).await?;
    let (mut ours, mut theirs) = (Tally::default(), Tally::default());
    let (slices, time) = plan(options.time());
    for _ in 0..slices {
        slice(&Ours(store.clone()), work, time, &mut ours).await?;
        slice(&bare, work, time, &mut theirs).await?;
    }
    store.close().await;
    Ok(report(work.case(), "sqlite", work.clients, ours, Some((bare.name(work.events), theirs))))
}

/// The bare database, and the text of the statement.
#[derive(Clone)]
struct Bare {
    by: By,
    text: Arc<str>,
}

/// One open connection for few clients, else a pool of one.
#[derive(Clone)]
enum By {
    Single(Arc<Mutex<SqliteConnection>>),
    Pool(SqlitePool),
}

impl Bare {
    async fn open(path: &Path, work: &Work) -> Result<Self, Fault> {
        let by = if work.clients <= 16 {
            By::Single(Arc::new(Mutex::new(baseline::sqlite::connection(path).await?)))
        } else {
            By::Pool(baseline::sqlite::pool_of_one(path).await?)
        };
        Ok(Self { by, text: baseline::sqlite::insert_many(work.events).into() })
    }

    fn name(&self, events: usize) -> &'static str {
        match (&self.by, events) {
            (By::Single(_), 1) => "raw autocommit INSERT on one open connection",
            (By::Single(_), _) => "raw multi-row INSERT on one open connection",
            (By::Pool(_), 1) => "a transaction per append through a pool of one",
            (By::Pool(_), _) => "a transaction per multi-row INSERT through a pool of one",
        }
    }
}

impl Side for Bare {
    type Stream = String;

    fn stream(name: String) -> String {
        name
    }

    async fn append(&self, stream: &String, version: i64, n: u64, events: usize) -> Result<(), Fault> {
        let append_id = (events > 1).then(|| sample::id().as_bytes().to_vec());
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&self.text)));
        for (n, version) in (n..n + events as u64).zip(version + 1..) {
            query = baseline::sqlite::bind(query, stream, version, append_id.clone(), n);
        }
        match &self.by {
            By::Single(connection) => {
                query.execute(&mut *connection.lock().await).await?;
            }
            By::Pool(pool) => {
                let mut connection = pool.acquire().await?;
                let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
                query.execute(&mut *transaction).await?;
                transaction.commit().await?;
            }
        }
        Ok(())
    }
}
