//! The order list in SQLite files, beside one that is written statement by statement.

use std::path::Path;
use std::time::Instant;

use annals::sqlite::SqliteDatabase;
use annals::{EventStore, Projections, SqliteStore};
use sqlx::{Connection, Row, SqliteConnection};

use super::{Baseline, OrderEvent, Ours, build, delivered, fill, orders};
use crate::baseline::sqlite::{connection, options as file};
use crate::report::Report;
use crate::slices::{Tally, report};
use crate::{Fault, Options};

pub(super) async fn measure(options: &Options) -> Result<Report, Fault> {
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(folder.path().join("log.db")).await?;
    fill(&store, options.events()).await?;
    let (mut ours, mut theirs) = (Tally::default(), Tally::default());
    let baseline = Baseline::of(options);
    for round in 0.. {
        let database = SqliteDatabase::open(folder.path().join(format!("ours-{round}.db"))).await?;
        build(&store, Projections::of(&store, &database), Ours::of(options), &mut ours).await?;
        let row = sqlx::query(delivered(options)).fetch_one(&mut *database.read().await?).await?;
        assert_eq!(row.get::<i64, _>(0), orders(options.events()), "every order is in the list");
        database.close().await;
        if let Some(baseline) = baseline {
            let path = folder.path().join(format!("theirs-{round}.db"));
            match baseline {
                Baseline::Upserts => upsert_each(store.database().path(), &path, &mut theirs).await?,
                _ => {
                    let database = SqliteDatabase::open(path).await?;
                    let views = Projections::of(&store, &database);
                    build(&store, views, baseline.ours(options), &mut theirs).await?;
                    database.close().await;
                }
            }
        }
        if ours.busy >= options.time() {
            break;
        }
    }
    store.close().await;
    Ok(report("project", "sqlite", 1, ours, baseline.map(|baseline| (baseline.name(), theirs))))
}

const CREATE: &str = "
    CREATE TABLE order_list (
        order_id TEXT NOT NULL, customer TEXT NOT NULL, status TEXT NOT NULL, cents INTEGER NOT NULL,
        placed_at INTEGER NOT NULL, PRIMARY KEY (order_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX order_list_status ON order_list (status);
    CREATE TABLE checkpoint (position INTEGER NOT NULL);
    INSERT INTO checkpoint VALUES (0)
";

const UPSERT: &str = "
    INSERT INTO order_list (order_id, customer, status, cents, placed_at)
    VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (order_id) DO UPDATE SET status = excluded.status
";

const PAGE: &str = "
    SELECT position, aggregate_id, event_type, event_data, recorded_at
    FROM events
    WHERE position > ?1
    ORDER BY position
    LIMIT 1000
";

/// A projection without a framework: a page of events, one statement each, commit with the checkpoint.
async fn upsert_each(log: &Path, path: &Path, tally: &mut Tally) -> Result<(), Fault> {
    let mut reader = connection(log).await?;
    let mut writer = SqliteConnection::connect_with(&file(path).create_if_missing(true)).await?;
    let start = Instant::now();
    sqlx::raw_sql(CREATE).execute(&mut writer).await?;
    let (mut after, mut count) = (0_i64, 0);
    loop {
        let page = sqlx::query(PAGE).bind(after).fetch_all(&mut reader).await?;
        let Some(last) = page.last() else { break };
        after = last.get(0);
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
        for row in &page {
            let event = OrderEvent::read(row.get(2), row.get(3))?;
            let (customer, cents) = event.customer_and_cents();
            sqlx::query(UPSERT)
                .bind(row.get::<String, _>(1))
                .bind(customer.to_owned())
                .bind(event.status())
                .bind(cents)
                .bind(row.get::<i64, _>(4))
                .execute(&mut *transaction)
                .await?;
            count += 1;
        }
        sqlx::query("UPDATE checkpoint SET position = ?1").bind(after).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    tally.add(count, start.elapsed(), [start.elapsed()]);
    writer.close().await?;
    Ok(reader.close().await?)
}
