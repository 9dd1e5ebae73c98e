//! In order per stream, several streams at once, and no stream keeps another waiting.

use std::time::Duration;

use annals_eventstore::testing::FaultyStore;

use super::mailer::{Act, Mailer, paid, position, start, until, until_at};
use crate::Reactor;
use crate::tests::accounts::AccountEvent;
use crate::tests::fixture::Fixture;

#[tokio::test(start_paused = true)]
async fn the_events_of_a_stream_are_handled_in_order_and_streams_side_by_side() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|call| Act::Slow(Duration::from_millis((call.version as u64 * 7) % 20)));
    let views = start(&shop, &mailer).await;
    let mut last = position(0);
    for _ in 0..5 {
        for stream in ["a", "b", "c"] {
            last = shop.append(stream, paid(4)).await;
        }
    }
    until_at(&views, last).await;
    let in_order: Vec<i64> = (1..=20).collect();
    for stream in ["a", "b", "c"] {
        assert_eq!(mailer.calls_of(stream), in_order);
    }
    assert_eq!(mailer.most(), 3, "one of each stream");
    views.close().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_streams_are_handled_at_once_than_was_asked_for() {
    let shop = Fixture::new();
    for n in 0..12 {
        shop.append(&format!("s-{n}"), paid(2)).await;
    }
    for most in [1, 3, 12] {
        let mailer = Mailer::new(|_| Act::Slow(Duration::from_millis(10)));
        let shop = Fixture::new().with_store(shop.store.clone());
        let reacting = mailer.clone().streams_at_once(most).from_start();
        let views = shop.projections().react(reacting).start().await.unwrap();
        until_at(&views, position(24)).await;
        assert_eq!(mailer.most(), most);
        views.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_or_hangs_keeps_no_other_waiting() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|call| match &*call.stream {
        "fails" => Act::Transient,
        "hangs" => Act::Hang,
        _ => Act::Done,
    });
    let views = start(&shop, &mailer).await;
    for stream in ["fails", "hangs"] {
        shop.append(stream, paid(3)).await;
    }
    for n in 0..50 {
        shop.append(&format!("s-{}", n % 9), paid(20)).await;
    }
    until("others are handled", || mailer.done() == 1_000).await;
    assert!(mailer.calls_of("fails").iter().all(|version| *version == 1), "the next is not begun");
    assert_eq!(mailer.calls_of("hangs"), [1]);
    let status = &views.reactors()[0];
    assert_eq!((status.in_flight, status.position.get()), (1, 0), "{status:?}");
    drop(views);
}

/// A reactor that runs far ahead of one slow stream would hold ever more in memory, and repeat ever more after a crash.
#[tokio::test(start_paused = true)]
async fn at_most_ten_thousand_events_are_handled_ahead_of_one_that_is_not() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|call| if call.stream == "slow" { Act::Slow(Duration::from_secs(20)) } else { Act::Done });
    let views = start(&shop, &mailer).await;
    shop.append("slow", paid(1)).await;
    let mut last = position(0);
    for n in 0..12 {
        last = shop.append(&format!("s-{n}"), paid(1_000)).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let ahead = mailer.done();
    assert!((9_000..=10_000).contains(&ahead), "{ahead}");
    until_at(&views, last).await;
    assert_eq!(mailer.done(), 12_001);
    assert_eq!(mailer.calls().len(), 12_001, "each once");
    views.close().await;
}

/// Events that wait behind one of their stream are in memory, and a few large ones are as much as many small ones.
#[tokio::test(start_paused = true)]
async fn reading_pauses_when_too_many_bytes_wait() {
    let shop = Fixture::new();
    let store = FaultyStore::new(shop.store.clone());
    let mailer = Mailer::new(|call| if call.nth == 1 && call.version == 1 { Act::Hang } else { Act::Done });
    let views = shop.over(store.clone()).react(mailer.clone()).start().await.unwrap();
    let mut last = position(0);
    for _ in 0..200 {
        last = shop.append("slow", [AccountEvent::Linked("x".repeat(500_000))]).await;
    }
    let before = store.calls();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let read = store.calls() - before;
    assert!((3..=12).contains(&read), "{read} pages of about 4 MB, of 100 MB");
    // Nor later: each five seconds the metrics ask for the head and the first event behind.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(store.calls() - before - read <= 6, "{} more", store.calls() - before - read);
    // The handler ends by its time limit; then the others come.
    until_at(&views, last).await;
    views.close().await;
    assert_eq!(mailer.done(), 200);
}
