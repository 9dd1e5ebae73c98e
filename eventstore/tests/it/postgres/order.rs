//! The order of the log, step by step: a writer that has allocated a position and is still running, and a concurrent reader.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_eventstore::{After, EventStore, EventStoreExt, Filter, Position, PostgresOptions, StreamVersion};
use futures::StreamExt;
use sqlx::Row;

use super::proxy::{Lost, Proxy};
use super::{Fixture, insert, run, stream};

/// How a writer that has allocated a position ends, and whether its event is stored.
const ENDS: [(&[&str], bool); 5] = [
    (&["COMMIT"], true),
    (&["ROLLBACK"], false),
    (&["PREPARE TRANSACTION 'held'", "COMMIT PREPARED 'held'"], true),
    (&["PREPARE TRANSACTION 'held'", "ROLLBACK PREPARED 'held'"], false),
    (&["ROLLBACK TO before; COMMIT"], false),
];

/// All positions that a reader gets now, and whether the page has `end`.
async fn positions(fixture: &Fixture, filter: &Filter) -> (Vec<i64>, bool) {
    let (mut after, mut seen) = (Position::START, Vec::new());
    loop {
        let page = fixture.store.read_page(after.into(), filter, 100).await.unwrap();
        seen.extend(page.events.iter().map(|event| event.position.get()));
        match page.checkpoint {
            Some(checkpoint) if !page.end => after = checkpoint.position,
            _ => return (seen, page.end),
        }
    }
}

#[tokio::test]
async fn no_event_is_returned_after_the_position_of_a_running_writer() {
    for filter in [Filter::all(), Filter::all().event_name("placed").unwrap()] {
        for (ends, stays) in ENDS {
            let fixture = Fixture::new().await;
            let mut slow = fixture.foreign().await;
            let mut quick = fixture.foreign().await;
            let first = insert(&mut quick, "first").await;
            run(&mut slow, "BEGIN; SAVEPOINT before").await.unwrap();
            let held = insert(&mut slow, "slow").await;
            let last = insert(&mut quick, "quick").await;
            assert_eq!((held, last), (first + 1, first + 2));
            // The naive reader assumes that it has seen all up to `last`: it would miss `held` forever.
            let seen = sqlx::query("SELECT max(position) FROM annals.events").fetch_all(&mut quick).await.unwrap();
            assert_eq!(seen[0].get::<i64, _>(0), last);

            assert_eq!(positions(&fixture, &filter).await, (vec![first], false));
            // Names of prepared transactions are the server's, so one that an interrupted test has left must not be ours.
            let name = format!("'{}'", fixture.database.name());
            let ends: Vec<_> = ends.iter().map(|step| step.replace("'held'", &name)).collect();
            let (last_step, steps) = ends.split_last().unwrap();
            for step in steps {
                run(&mut slow, step).await.unwrap();
                assert_eq!(positions(&fixture, &filter).await, (vec![first], false), "after {step}");
            }
            run(&mut slow, last_step).await.unwrap();
            let all = if stays { vec![first, held, last] } else { vec![first, last] };
            assert_eq!(positions(&fixture, &filter).await, (all, true), "after {ends:?}");
            assert_eq!(fixture.store.head().await.unwrap().position.get(), last);
        }
    }
}

/// When transactions always overlap, there is always a running writer. A reader that started its wait again for each new
/// writer would wait forever.
#[tokio::test]
async fn a_reader_waits_for_writers_that_were_there_and_not_for_those_that_come_later() {
    for filter in [Filter::all(), Filter::all().event_name("placed").unwrap()] {
        let fixture = Fixture::new().await;
        let mut earlier = fixture.foreign().await;
        let mut later = fixture.foreign().await;
        let first = fixture.append("first").await.unwrap().position.get();
        run(&mut earlier, "BEGIN").await.unwrap();
        insert(&mut earlier, "earlier").await;
        let second = fixture.append("second").await.unwrap().position.get();
        assert_eq!(positions(&fixture, &filter).await, (vec![first], false));
        run(&mut later, "BEGIN").await.unwrap();
        insert(&mut later, "later").await;
        fixture.append("third").await.unwrap();
        run(&mut earlier, "ROLLBACK").await.unwrap();
        // A read that waits for long gives what it has.
        let end = Instant::now() + Duration::from_secs(10);
        let mut read = positions(&fixture, &filter).await;
        while read == (vec![first], false) && Instant::now() < end {
            read = positions(&fixture, &filter).await;
        }
        assert_eq!(read, (vec![first, second], false));
    }
}

/// A statement sees what was final when it began. What became final during the statement, it may not have seen.
#[tokio::test]
async fn events_of_a_running_read_are_not_final_by_what_becomes_final_meanwhile() {
    for (filter, words) in [(Filter::all(), "COPY ("), (Filter::all().event_name("placed").unwrap(), "event_type =")] {
        let fixture = Fixture::new().await;
        let proxy = Proxy::before(fixture.database.url());
        let store = Arc::new(PostgresOptions::new(proxy.url()).open().await.unwrap());
        let mut slow = fixture.foreign().await;
        let first = insert(&mut fixture.foreign().await, "first").await;
        run(&mut slow, "BEGIN").await.unwrap();
        let held = insert(&mut slow, "slow").await;
        let last = insert(&mut fixture.foreign().await, "quick").await;

        proxy.lose(Lost::Time, words);
        let reading = tokio::spawn({
            let (store, filter) = (Arc::clone(&store), filter.clone());
            async move { store.read_page(After::START, &filter, 100).await.unwrap() }
        });
        proxy.holds().await;
        run(&mut slow, "COMMIT").await.unwrap();
        assert_eq!(store.head().await.unwrap().position.get(), last);
        proxy.release();

        let page = reading.await.unwrap();
        let mut seen: Vec<_> = page.events.iter().map(|event| event.position.get()).collect();
        assert_eq!(seen, [first], "{words}");
        let rest = store.read_page(page.checkpoint.unwrap().into(), &filter, 100).await.unwrap();
        seen.extend(rest.events.iter().map(|event| event.position.get()));
        assert_eq!(seen, [first, held, last], "{words}");
    }
}

#[tokio::test]
async fn a_load_never_waits_for_other_writers() {
    let fixture = Fixture::new().await;
    let mut slow = fixture.foreign().await;
    run(&mut slow, "BEGIN").await.unwrap();
    insert(&mut slow, "slow").await;
    fixture.append("quick").await.unwrap();
    let page = fixture.store.load_page(&stream("quick"), StreamVersion::NONE, 10).await.unwrap();
    assert_eq!((page.events.len(), page.end), (1, true));
    assert_eq!(positions(&fixture, &Filter::all()).await, (vec![], false));
}

#[tokio::test]
async fn an_unrelated_transaction_blocks_no_reader() {
    let fixture = Fixture::new().await;
    let mut unrelated = fixture.foreign().await;
    run(&mut unrelated, "CREATE TABLE mine (n int); BEGIN; INSERT INTO mine VALUES (1)").await.unwrap();
    let mut rolled_back = fixture.foreign().await;
    run(&mut rolled_back, "BEGIN").await.unwrap();
    insert(&mut rolled_back, "rolled-back").await;
    run(&mut rolled_back, "ROLLBACK").await.unwrap();
    let done = fixture.append("a").await.unwrap();
    assert_eq!(positions(&fixture, &Filter::all()).await, (vec![done.position.get()], true));
}

#[tokio::test]
async fn the_head_stays_before_a_writer_that_does_not_end() {
    let fixture = Fixture::new().await;
    let first = fixture.append("first").await.unwrap();
    let mut slow = fixture.foreign().await;
    run(&mut slow, "BEGIN").await.unwrap();
    insert(&mut slow, "slow").await;
    fixture.append("quick").await.unwrap();
    assert_eq!(fixture.store.head().await.unwrap().position, first.position);
}

#[tokio::test]
async fn a_subscription_that_waits_at_a_gap_continues_when_its_writer_rolls_back() {
    let fixture = Fixture::new().await;
    let mut subscription = fixture.store.subscribe(Position::START, Filter::all());
    let first = fixture.append("first").await.unwrap();
    assert_eq!(subscription.next().await.unwrap().unwrap().position, first.position);
    let mut slow = fixture.foreign().await;
    run(&mut slow, "BEGIN").await.unwrap();
    insert(&mut slow, "slow").await;
    let quick = fixture.append("quick").await.unwrap();
    // Long enough for reads to have timed out at the gap and to wait for a notification.
    let early = tokio::time::timeout(Duration::from_millis(600), subscription.next()).await;
    assert!(early.is_err(), "{early:?}");
    run(&mut slow, "ROLLBACK").await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(5), subscription.next()).await;
    assert_eq!(next.expect("it is woken").unwrap().unwrap().position, quick.position);
}

/// A reader that catches up gets the known final events at once, and a page without `end`.
#[tokio::test]
async fn a_filtered_read_waits_for_no_writer_while_there_are_events_to_return() {
    let fixture = Fixture::new().await;
    let filter = Filter::all().event_name("placed").unwrap();
    let first = fixture.append("first").await.unwrap().position.get();
    assert_eq!(positions(&fixture, &filter).await, (vec![first], true));
    let mut slow = fixture.foreign().await;
    run(&mut slow, "BEGIN").await.unwrap();
    insert(&mut slow, "slow").await;
    fixture.append("quick").await.unwrap();
    let mut quickest = Duration::MAX;
    for _ in 0..10 {
        let begun = Instant::now();
        let page = fixture.store.read_page(After::START, &filter, 100).await.unwrap();
        quickest = quickest.min(begun.elapsed());
        assert_eq!(page.events.iter().map(|event| event.position.get()).collect::<Vec<_>>(), [first]);
        assert!(!page.end);
    }
    // One that waits does so for 200 ms each time.
    assert!(quickest < Duration::from_millis(150), "{quickest:?}");
}

/// A reader waits at a gap until its writer has ended, and little longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_continues_as_soon_as_its_writer_has_ended() {
    let fixture = Arc::new(Fixture::new().await);
    let mut slow = fixture.foreign().await;
    for filter in [Filter::all(), Filter::all().event_name("placed").unwrap()] {
        let (mut lags, mut trips) = (Vec::new(), Vec::new());
        for round in 0..11 {
            let after = fixture.store.head().await.unwrap().position;
            run(&mut slow, "BEGIN").await.unwrap();
            let held = insert(&mut slow, &format!("slow-{after}")).await;
            let last = fixture.append(&format!("quick-{after}")).await.unwrap().position;
            let (reader, filter) = (fixture.clone(), filter.clone());
            let reading = tokio::spawn(async move {
                let mut after = after;
                while after < last {
                    let page = reader.store.read_page(after.into(), &filter, 100).await.unwrap();
                    assert!(page.checkpoint.is_some() || !page.end, "there is more after {after}");
                    after = page.checkpoint.map_or(after, |checkpoint| checkpoint.position);
                }
                Instant::now()
            });
            // At different moments of the reader's looks.
            tokio::time::sleep(Duration::from_millis(20 + 3 * round)).await;
            assert!(!reading.is_finished(), "{held} may still come");
            run(&mut slow, if round % 2 == 0 { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
            let ended = Instant::now();
            lags.push(reading.await.unwrap().saturating_duration_since(ended));
            let asked = Instant::now();
            run(&mut slow, "SELECT 1").await.unwrap();
            trips.push(asked.elapsed());
        }
        lags.sort();
        trips.sort();
        // 5 ms are promised, on a machine that has nothing else to do.
        let most = Duration::from_millis(25) + 20 * trips[trips.len() / 2];
        assert!(lags[lags.len() / 2] < most, "{lags:?} with round trips of {trips:?}");
    }
}
