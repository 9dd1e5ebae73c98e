//! The order list in PostgreSQL databases, beside one that is written statement by statement.

use std::time::Instant;

use annals::postgres::PostgresDatabase;
use annals::{EventStore, PostgresOptions, Projections};
use sqlx::{Connection, Row};

use super::{Baseline, OrderEvent, Ours, build, delivered, fill, orders};
use crate::baseline::postgres::{Micros, connection, tidy};
use crate::report::Report;
use crate::server::MeasuredServer;
use crate::slices::{Tally, report};
use crate::{Fault, Options};

pub(super) async fn measure(options: &Options) -> Result<Report, Fault> {
    let mut server = MeasuredServer::find().await?;
    let log = server.database("log").await?;
    let store = PostgresOptions::new(&log).migrate().open().await?;
    fill(&store, options.events()).await?;
    tidy(&log).await?;
    let (mut ours, mut theirs) = (Tally::default(), Tally::default());
    let baseline = Baseline::of(options);
    for round in 0.. {
        let database = PostgresDatabase::open(server.database(&format!("ours_{round}")).await?).await?;
        build(&store, Projections::of(&store, &database), Ours::of(options), &mut ours).await?;
        let row = sqlx::query(delivered(options)).fetch_one(&mut *database.read().await?).await?;
        assert_eq!(row.get::<i64, _>(0), orders(options.events()), "every order is in the list");
        database.close().await;
        if let Some(baseline) = baseline {
            let url = server.database(&format!("theirs_{round}")).await?;
            match baseline {
                Baseline::Upserts => upsert_each(&log, &url, &mut theirs).await?,
                _ => {
                    let database = PostgresDatabase::open(url).await?;
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
    server.remove().await?;
    Ok(report("project", "postgres", 1, ours, baseline.map(|baseline| (baseline.name(), theirs))))
}

const CREATE: &str = r#"
    CREATE TABLE order_list (
        order_id text COLLATE "C" NOT NULL, customer text COLLATE "C" NOT NULL, status text COLLATE "C" NOT NULL,
        cents bigint NOT NULL, placed_at timestamptz NOT NULL, PRIMARY KEY (order_id)
    );
    CREATE INDEX order_list_status ON order_list (status);
    CREATE TABLE checkpoint (position bigint NOT NULL);
    INSERT INTO checkpoint VALUES (0)
"#;

const UPSERT: &str = "
    INSERT INTO order_list (order_id, customer, status, cents, placed_at)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (order_id) DO UPDATE SET status = excluded.status
";

const PAGE: &str = "
    SELECT position, aggregate_id, event_type, event_data::text, recorded_at
    FROM annals.events
    WHERE position > $1
    ORDER BY position
    LIMIT 1000
";

/// A projection without a framework: a page of events, one statement each, commit with the checkpoint.
async fn upsert_each(log: &str, url: &str, tally: &mut Tally) -> Result<(), Fault> {
    let (mut reader, mut writer) = (connection(log).await?, connection(url).await?);
    let start = Instant::now();
    sqlx::raw_sql(CREATE).execute(&mut writer).await?;
    let (mut after, mut count) = (0_i64, 0);
    loop {
        let page = sqlx::query(PAGE).bind(after).fetch_all(&mut reader).await?;
        let Some(last) = page.last() else { break };
        after = last.get(0);
        let mut transaction = writer.begin().await?;
        for row in &page {
            let event = OrderEvent::read(row.get(2), row.get(3))?;
            let (customer, cents) = event.customer_and_cents();
            sqlx::query(UPSERT)
                .bind(row.get::<&str, _>(1))
                .bind(customer)
                .bind(event.status())
                .bind(cents)
                .bind(row.get::<Micros, _>(4))
                .execute(&mut *transaction)
                .await?;
            count += 1;
        }
        sqlx::query("UPDATE checkpoint SET position = $1").bind(after).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    tally.add(count, start.elapsed(), [start.elapsed()]);
    writer.close().await?;
    Ok(reader.close().await?)
}
