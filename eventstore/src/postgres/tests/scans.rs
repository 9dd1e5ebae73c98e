//! What the server counts while the store is used: no statement of ours scans a whole table, not even with plans that
//! sessions have cached since the table was empty.

use std::time::Duration;

use futures::TryStreamExt;
use futures::future::join_all;
use sqlx::{PgConnection, Row};
use tokio::time::Instant;

use super::{event, fill, lines, new_store, stream};
use crate::append::Append;
use crate::filter::{Filter, StreamFilter};
use crate::metadata::CorrelationId;
use crate::payload::Payload;
use crate::position::Position;
use crate::postgres::{PostgresOptions, PostgresStore};
use crate::read::EventStoreExt;
use crate::request::{Fingerprint, RequestKey};
use crate::snapshot::{Snapshot, SnapshotStore};
use crate::store::EventStore;
use crate::stream::{ExpectedVersion, StreamVersion};

/// How often the tables were scanned sequentially, and how often by index. Sessions report their counts when they end, so
/// those of the store are ended.
async fn scans(connection: &mut PgConnection) -> (i64, i64) {
    let begun = Instant::now();
    let ours = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'annals'
                ORDER BY pid";
    while !lines(connection, ours).await.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the store's connections do not end");
    }
    let counted = "SELECT sum(seq_scan)::bigint, sum(idx_scan)::bigint FROM pg_stat_user_tables
                   WHERE schemaname = 'annals' AND relname IN ('events', 'request_keys', 'snapshots') ORDER BY 1";
    let rows = sqlx::raw_sql(counted).fetch_all(connection).await.unwrap();
    (rows[0].get(0), rows[0].get(1))
}

/// Every operation of a store, in each of its variants.
async fn work(store: &PostgresStore, round: usize) {
    let any = ExpectedVersion::Any;
    // More than five times, as sessions keep a plan from the sixth on.
    for n in 0..8 {
        let id = format!("{round}-{n}");
        let first = event(store);
        store.append(&stream(&id), ExpectedVersion::NoStream, vec![first.clone()]).await.unwrap();
        store.append(&stream(&id), ExpectedVersion::NoStream, vec![event(store)]).await.unwrap_err();
        store.append(&stream(&id), any, vec![first]).await.unwrap();
        let key = RequestKey::new(format!("request-{id}"), Fingerprint::of_bytes(b"")).unwrap();
        let several = Append::to(stream(&id), any, vec![event(store), event(store)])
            .and(stream(&format!("{id}-other")), any, vec![event(store)])
            .with_request(key.clone());
        store.append_many(several).await.unwrap();
        store.find_request(&crate::Tenant::default(), &key).await.unwrap().unwrap();
        // Groups, also with the checked insert.
        let events: Vec<_> = (0..20).map(|_| event(store)).collect();
        let grouped = stream(&id);
        let twice = events.iter().chain(&events).map(|event| store.append(&grouped, any, vec![event.clone()]));
        let twice: Vec<_> = join_all(twice).await;
        assert!(twice.iter().all(Result::is_ok), "{twice:?}");
        let last = store.load_page(&stream(&id), StreamVersion::NONE, 10).await.unwrap().events.remove(9);
        for n in 0..10 {
            let (key, body) = (format!("{n}.k").into(), Payload::from_json("1").unwrap());
            let snapshot = Snapshot::new(stream(&id), key, last.version, last.event_id, body);
            store.save_snapshots(&[snapshot]).await.unwrap();
        }
        store.load_snapshot(&stream(&id), "9.k", last.version).await.unwrap().unwrap();
        store.delete_snapshots(&stream(&id)).await.unwrap();
    }
    let correlated = Filter::all().correlation(CorrelationId::new("correlation-1-0").unwrap());
    for filter in [Filter::all(), Filter::all().event_name("placed").unwrap(), correlated] {
        let _all: Vec<_> = store.read_all(Position::START, filter).try_collect().await.unwrap();
    }
    let _all: Vec<_> = store.streams(StreamFilter::all()).try_collect().await.unwrap();
    store.check_checkpoint(&store.head().await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn nothing_that_a_store_does_reads_a_whole_table() {
    for pooled in [false, true] {
        let (database, mut connection) = new_store().await;
        let before = scans(&mut connection).await;
        let options = match pooled {
            false => PostgresOptions::new(database.url()),
            true => PostgresOptions::new(database.url_through_pooler()).pooled(),
        };
        let store = options.connections(1).writers(1).open().await.unwrap();
        work(&store, 0).await;
        fill(&mut connection).await;
        // The same sessions, with their cached plans.
        work(&store, 1).await;
        store.close().await;
        let after = scans(&mut connection).await;
        assert_eq!(after.0, before.0, "tables were read whole (pooled: {pooled})");
        assert!(after.1 > before.1 + 100, "{after:?}");
    }
}
