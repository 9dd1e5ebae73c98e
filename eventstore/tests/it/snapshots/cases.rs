//! Situations in which snapshots went wrong for somebody.

use std::convert::Infallible;

use annals_eventstore::testing::{Fault, FaultyStore};
use annals_eventstore::{AggregateStore, EventStore, MemoryStore, SnapshotStats};

use super::{
    EachEvent, EachTen, EachTwo, Eighth, Noted, Place, Seventh, add, agrees, hits, on_every_store, saved, stream,
};

on_every_store! {
    a_snapshot_at_the_head_and_one_before_it_give_the_same_next_version,
    builds_do_not_use_or_destroy_each_others_snapshots,
    without_rows_everything_is_the_same,
    rows_of_another_stream_or_of_no_use_are_not_used,
}

async fn a_snapshot_at_the_head_and_one_before_it_give_the_same_next_version(place: Place) {
    let mut store = place.open().await;
    let id = "a".to_owned();
    for n in 1..=7 {
        let counters = store.aggregate::<EachTwo>();
        assert_eq!(agrees::<EachTwo>(&store, &id).await, n - 1);
        let done = counters.execute(&id, |_| Ok::<_, Infallible>(Noted::Added(n))).await.unwrap();
        assert_eq!(done.version.get(), n);
        store = place.restart(store).await;
        assert_eq!(agrees::<EachTwo>(&store, &id).await, n);
    }
    assert_eq!(saved::<EachTwo>(&store, &id).await, [(6, true), (4, true), (2, true)]);
    assert!(hits::<EachTwo>(&store) > 0);
    store.close().await;
}

/// Two streams, so that the second is loaded with a snapshot that was not compared.
async fn builds_do_not_use_or_destroy_each_others_snapshots(place: Place) {
    let mut store = place.open().await;
    for (id, events) in [("a", 5), ("b", 7)] {
        add(&store.aggregate::<Seventh>(), id, &vec![1; events]).await;
    }
    store = place.restart(store).await;
    let before = hits::<Seventh>(&store);
    for id in ["a", "b"] {
        agrees::<Seventh>(&store, id).await;
    }
    assert_eq!(hits::<Seventh>(&store) - before, 2);
    for expected in [0, 2] {
        store = place.restart(store).await;
        let before = hits::<Eighth>(&store);
        for id in ["a", "b"] {
            agrees::<Eighth>(&store, id).await;
        }
        assert_eq!(hits::<Eighth>(&store) - before, expected);
    }
    store = place.restart(store).await;
    let before = hits::<Seventh>(&store);
    for (id, version) in [("a", 5), ("b", 7)] {
        assert_eq!(agrees::<Seventh>(&store, id).await, version);
        assert_eq!(
            (saved::<Seventh>(&store, id).await[0], saved::<Eighth>(&store, id).await[0]),
            ((version, true), (version, true))
        );
    }
    assert_eq!(hits::<Seventh>(&store) - before, 2);
    store.close().await;
}

async fn without_rows_everything_is_the_same(place: Place) {
    let mut store = place.open().await;
    add(&store.aggregate::<EachEvent>(), "a", &[1, 2, 3]).await;
    store = place.restart(store).await;
    assert_eq!(agrees::<EachEvent>(&store, "a").await, 3);
    store.snapshots().unwrap().delete_snapshots(&stream("a")).await.unwrap();
    assert!(saved::<EachEvent>(&store, "a").await.is_empty());
    assert_eq!(agrees::<EachEvent>(&store, "a").await, 3);
    add(&store.aggregate::<EachEvent>(), "a", &[4]).await;
    assert_eq!(agrees::<EachEvent>(&store, "a").await, 4);
    store.close().await;
}

/// The rows of two streams exchange their names, and one claims to be of the event before.
async fn rows_of_another_stream_or_of_no_use_are_not_used(place: Place) {
    if !place.is_durable() {
        return;
    }
    let edits = [
        "UPDATE annals_snapshots SET aggregate_id = 'x' WHERE aggregate_id = 'a';
         UPDATE annals_snapshots SET aggregate_id = 'a' WHERE aggregate_id = 'b';
         UPDATE annals_snapshots SET aggregate_id = 'b' WHERE aggregate_id = 'x'",
        "UPDATE annals_snapshots SET version = version - 1",
        "UPDATE annals_snapshots SET version = version + 1000",
        "UPDATE annals_snapshots SET event_id = randomblob(16)",
        "UPDATE annals_snapshots SET body = 'no JSON'",
        "UPDATE annals_snapshots SET body = '{\"sum\": 7, \"notes\": {}, \"all\": []}'",
        "UPDATE annals_snapshots SET digest = randomblob(16)",
        "DELETE FROM annals_snapshots",
    ];
    for (n, edit) in (0..).zip(edits) {
        let store = place.open().await;
        for id in ["a", "b"] {
            // The latest is the only one of its key that is changed by an edit of versions.
            store.snapshots().unwrap().delete_snapshots(&stream(id)).await.unwrap();
            add(&store.aggregate::<EachTen>().without_snapshots(), id, &[n; 10]).await;
            let loaded = store.aggregate::<EachTen>().load(&id.to_owned()).await.unwrap();
            assert_eq!(loaded.version.get(), 10 * (n + 1));
        }
        let store = place.restart(store).await;
        for id in ["a", "b"] {
            assert_eq!(agrees::<EachTen>(&store, id).await, 10 * (n + 1));
        }
        let stats = store.aggregate::<EachTen>().snapshot_stats();
        assert_eq!((stats.hits, stats.misses), (2, 0), "{edit}");
        place.by_hand(edit).await;
        for id in ["a", "b"] {
            assert_eq!(agrees::<EachTen>(&store, id).await, 10 * (n + 1), "{edit}");
        }
        let SnapshotStats { hits, misses, disabled, .. } = store.aggregate::<EachTen>().snapshot_stats();
        assert_eq!((hits, misses, disabled), (2, 2, false), "{edit}");
        store.close().await;
    }
}

mod histories {
    use super::*;

    /// The log is set back to version 10 while the snapshots stay, and other events follow.
    async fn a_snapshot_of_a_longer_history_is_never_used(place: Place) {
        let mut store = place.open().await;
        add(&store.aggregate::<EachTen>(), "a", &[1; 20]).await;
        let two_at_once = |_: &EachTen| Ok::<_, Infallible>(vec![Noted::Added(1); 22]);
        store.aggregate::<EachTen>().execute(&"a".to_owned(), two_at_once).await.unwrap();
        store = place.restart(store).await;
        assert_eq!(saved::<EachTen>(&store, "a").await, [(42, true), (20, true), (10, true)]);
        assert_eq!(agrees::<EachTen>(&store, "a").await, 42);
        place.set_back(10).await;
        assert_eq!(saved::<EachTen>(&store, "a").await, [(42, false), (20, false), (10, true)]);
        for (length, expected) in [
            (10, vec![(42, false), (20, false), (10, true)]),
            (15, vec![(42, false), (20, false), (10, true)]),
            (30, vec![(30, true), (20, true), (10, true)]),
            (42, vec![(40, true), (30, true), (20, true), (10, true)]),
            (60, vec![(60, true), (50, true), (40, true), (30, true), (20, true), (10, true)]),
        ] {
            let version = agrees::<EachTen>(&store, "a").await;
            let missing = usize::try_from(length - version).unwrap();
            add(&store.aggregate::<EachTen>(), "a", &vec![1_000; missing]).await;
            store = place.restart(store).await;
            // The first is compared with its events, the second is not.
            for loads in 1..=2 {
                assert_eq!(agrees::<EachTen>(&store, "a").await, length);
                assert_eq!(hits::<EachTen>(&store), loads, "an older one is used");
            }
            assert_eq!(saved::<EachTen>(&store, "a").await, expected, "{length}");
        }
        store.close().await;
    }

    #[tokio::test]
    async fn on_sqlite() {
        a_snapshot_of_a_longer_history_is_never_used(Place::sqlite()).await;
    }

    #[cfg(feature = "postgres")]
    #[tokio::test]
    async fn on_postgresql() {
        a_snapshot_of_a_longer_history_is_never_used(Place::postgres().await).await;
    }
}

/// A snapshot of events that were never committed would be a state that never was.
#[tokio::test]
async fn a_unit_of_work_takes_no_snapshot_of_what_is_rolled_back() {
    use annals_eventstore::{SqliteStore, UnitOfWork};

    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("events.db")).await.unwrap();
    let counters = store.aggregate::<EachEvent>();
    let id = "a".to_owned();
    let mut unit = store.begin().await.unwrap();
    unit.execute(&counters, &id, |_| Ok::<_, Infallible>(Noted::Added(1))).await.unwrap();
    unit.rollback().await.unwrap();
    add(&counters, "a", &[5]).await;
    let store: std::sync::Arc<dyn EventStore> = std::sync::Arc::new(store);
    store.close().await;
    let SnapshotStats { saved: all_saved, skipped, .. } = counters.snapshot_stats();
    assert_eq!((all_saved, skipped), (1, 0), "of the event that is stored alone");
    let place = Place::Sqlite(folder);
    let store = place.open().await;
    assert_eq!(agrees::<EachEvent>(&store, "a").await, 1);
    assert_eq!(saved::<EachEvent>(&store, "a").await, [(1, true)]);
    store.close().await;
}

/// The process ends between an append and its snapshot, or the store refuses it.
#[tokio::test]
async fn an_append_is_acknowledged_whatever_becomes_of_its_snapshot() {
    let place = Place::sqlite();
    let store = place.open().await;
    add(&store.aggregate::<EachEvent>(), "a", &[1, 2]).await;
    let store = place.restart(store).await;
    place
        .by_hand(
            "CREATE TRIGGER nothing_is_saved BEFORE INSERT ON annals_snapshots BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .await;
    let store = place.restart(store).await;
    let counters = store.aggregate::<EachEvent>();
    add(&counters, "a", &[3]).await;
    store.close().await;
    assert_eq!(counters.snapshot_stats().skipped, 1);
    place.by_hand("DROP TRIGGER nothing_is_saved").await;
    let store = place.open().await;
    assert_eq!(agrees::<EachEvent>(&store, "a").await, 3);
    store.close().await;
}

/// A failing read of snapshots is a miss, and wrappers forward snapshots.
#[tokio::test]
async fn a_wrapper_around_a_store_uses_its_snapshots() {
    let memory = MemoryStore::new();
    let store = FaultyStore::new(memory.clone());
    let counters = store.aggregate::<EachEvent>();
    add(&counters, "a", &[1, 2]).await;
    store.close().await;
    assert_eq!(counters.snapshot_stats().saved, 2);
    store.fail_next(1, Fault::Before);
    assert!(counters.without_cache().load(&"a".to_owned()).await.is_err());
}

/// A maintenance job that locks the table of snapshots kept loads and `close` waiting for half a minute.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_locked_table_of_snapshots_delays_neither_loads_nor_the_end_for_long() {
    use sqlx::Connection;
    use std::time::{Duration, Instant};

    let place = Place::postgres().await;
    let Place::Postgres(database) = &place else { panic!("it is on PostgreSQL") };
    let (ends, loads) = (place.open().await, place.open().await);
    add(&ends.aggregate::<EachEvent>(), "a", &[1, 2]).await;
    let mut foreign = sqlx::PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE annals.snapshots IN ACCESS EXCLUSIVE MODE").execute(&mut foreign).await.unwrap();
    add(&ends.aggregate::<EachEvent>(), "a", &[3]).await;
    let begun = Instant::now();
    let load = async { loads.aggregate::<EachEvent>().load(&"a".to_owned()).await.unwrap().version.get() };
    let ((), version) = tokio::join!(ends.close(), load);
    assert_eq!(version, 3);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    foreign.close().await.unwrap();
    loads.close().await;
}
