//! Dead letters: a stream is set aside, and handled in order when it is retried.

use std::time::Duration;

use annals_eventstore::{StreamId, Tenant};

use super::mailer::{Act, Mailer, paid, position, process, start, stored, until, until_at, until_taken_over};
use crate::tests::fixture::Fixture;
use crate::tests::troubled::Trouble;
use crate::{Projections, Reactor};

fn stream(id: &str) -> StreamId {
    StreamId::new(Tenant::default(), "account", id).unwrap()
}

/// Fails on the second event of `a`.
fn failing() -> Mailer {
    Mailer::new(|call| if call.stream == "a" && call.version == 2 { Act::Permanent } else { Act::Done })
}

async fn start_parking(shop: &Fixture, mailer: &Mailer) -> Projections {
    shop.projections().react(mailer.clone().dead_letter()).start().await.unwrap()
}

async fn until_none_is_parked(views: &Projections) {
    until("none is parked", || views.reactors()[0].parked == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_parks_its_stream_and_a_retry_handles_the_rest_in_order() {
    let shop = Fixture::new();
    let mailer = failing();
    let views = start_parking(&shop, &mailer).await;
    shop.append("a", paid(4)).await;
    let last = shop.append("b", paid(3)).await;
    until_at(&views, last).await;
    let later = shop.append("a", paid(2)).await;
    until_at(&views, later).await;
    assert_eq!(mailer.calls_of("a"), [1, 2], "the later ones wait");
    assert_eq!(mailer.done_of("b"), [1, 2, 3]);
    let parked = views.parked::<Mailer>().await.unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!((parked[0].event.position, &*parked[0].error), (position(2), "there is no such address"));
    views.close().await;
    assert_eq!(stored(&shop).await, later.get(), "the checkpoint goes on");

    // It stays parked, also if the next process does not park.
    let fixed = mailer.then(|_| Act::Done);
    let views = start(&shop, &fixed).await;
    let later = shop.append("a", paid(1)).await;
    until_at(&views, later).await;
    assert_eq!(mailer.calls_of("a"), [1, 2]);
    assert!(views.retry_parked::<Mailer>(&stream("a")).await.unwrap());
    until_none_is_parked(&views).await;
    assert_eq!(mailer.done_of("a"), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(mailer.keys_of("a", 2).len(), 1);
    let last = shop.append("a", paid(1)).await;
    until_at(&views, last).await;
    assert_eq!(mailer.calls_of("a"), [1, 2, 2, 3, 4, 5, 6, 7, 8], "each once");
    assert!(!views.retry_parked::<Mailer>(&stream("a")).await.unwrap(), "it is not parked any more");
    assert_eq!(views.parked::<Mailer>().await.unwrap(), []);
    views.close().await;

    let views = start(&shop, &fixed).await;
    assert_eq!(views.reactors()[0].parked, 0, "and that is stored");
    views.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_fails_parks_the_stream_from_there() {
    let shop = Fixture::new();
    let mailer = failing();
    let views = start_parking(&shop, &mailer).await;
    let last = shop.append("a", paid(5)).await;
    until_at(&views, last).await;
    views.close().await;
    let half_fixed = mailer.then(|call| if call.version == 4 { Act::Permanent } else { Act::Done });
    // No dead letters any more: the events are behind the checkpoint, so it must not forget them.
    let views = start(&shop, &half_fixed).await;
    assert!(views.retry_parked::<Mailer>(&stream("a")).await.unwrap());
    until("it fails again", || mailer.calls_of("a").last() == Some(&4) && views.reactors()[0].in_flight == 0).await;
    views.close().await;
    assert_eq!(mailer.done_of("a"), [1, 2, 3]);
    let views = start(&shop, &mailer.then(|_| Act::Done)).await;
    assert_eq!(views.parked::<Mailer>().await.unwrap()[0].event.position, position(4));
    assert!(views.retry_parked::<Mailer>(&stream("a")).await.unwrap());
    until_none_is_parked(&views).await;
    assert_eq!(mailer.done_of("a"), [1, 2, 3, 4, 5]);
    views.close().await;
}

/// Whatever is recorded while a stream is retried, and however slow the database is: in order, each once, and none is forgotten.
#[test]
fn new_events_during_a_retry_come_after_it() {
    let seed = std::env::var("ANNALS_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().expect("a number"));
    println!("ANNALS_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..40 {
        process(async {
            let shop = Fixture::new();
            let mailer = Mailer::new(|call| match (call.version, call.nth) {
                (2, 1) => Act::Permanent,
                (3, 1) => Act::Transient,
                _ => Act::Slow(Duration::from_millis(3)),
            });
            let views = start_parking(&shop, &mailer).await;
            let mut last = shop.append("a", paid(rng.usize(2..8))).await;
            until_at(&views, last).await;
            assert!(views.retry_parked::<Mailer>(&stream("a")).await.unwrap());
            shop.models.trouble_keepers((0..8).map(|_| rng.bool().then_some(Trouble::Passing)));
            for _ in 0..rng.usize(0..12) {
                tokio::time::sleep(Duration::from_millis(rng.u64(0..10))).await;
                last = shop.append("a", paid(rng.usize(1..4))).await;
            }
            until_none_is_parked(&views).await;
            last = last.max(shop.append("a", paid(1)).await);
            until_at(&views, last).await;
            let all: Vec<i64> = (1..=last.get()).collect();
            assert_eq!(mailer.done_of("a"), all);
            views.close().await;
        });
    }
}

/// What was handled of a stream that is retried comes again after a crash, but nothing is lost.
#[test]
fn a_crash_during_a_retry_leaves_the_stream_parked() {
    let shop = Fixture::new();
    let mailer = failing();
    process(async {
        let views = start_parking(&shop, &mailer).await;
        let last = shop.append("a", paid(900)).await;
        until_at(&views, last).await;
        views.close().await;
    });
    let fixed = mailer.then(|_| Act::Slow(Duration::from_millis(10)));
    process(async {
        let views = start_parking(&shop, &fixed).await;
        assert!(views.retry_parked::<Mailer>(&stream("a")).await.unwrap());
        until("some are handled", || mailer.done_of("a").len() > 600).await;
    });
    process(async {
        let views = start_parking(&shop, &fixed).await;
        until_taken_over(&views).await;
        assert_eq!(views.reactors()[0].parked, 1);
        let last = shop.append("a", paid(1)).await;
        until_at(&views, last).await;
        assert!(views.retry_parked::<Mailer>(&stream("a")).await.unwrap());
        until_none_is_parked(&views).await;
        let all: Vec<i64> = (2..=901).collect();
        assert_eq!(mailer.done_of("a").split_off(mailer.done_of("a").len() - 900), all);
        views.close().await;
    });
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_read_parks_its_stream() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|_| Act::Done);
    let views = start_parking(&shop, &mailer).await;
    shop.append_raw("a", "paid", "\"nonsense\"").await;
    shop.append("a", paid(1)).await;
    let last = shop.append("b", paid(1)).await;
    until_at(&views, last).await;
    assert_eq!((mailer.calls_of("a").len(), mailer.calls_of("b").len()), (0, 1));
    assert_eq!(views.parked::<Mailer>().await.unwrap().len(), 1);
    views.close().await;
}

/// Who stores the checkpoint holds the database's write lock, and must go on while the reactor wants it for something else.
#[tokio::test(start_paused = true)]
async fn a_retry_ends_though_the_checkpoint_is_being_stored() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|call| match (call.stream.as_str(), call.nth) {
        ("a", 1) => Act::Permanent,
        ("a", _) => Act::Slow(Duration::from_millis(600)),
        _ => Act::Done,
    });
    let views = start_parking(&shop, &mailer).await;
    let last = shop.append("a", paid(1)).await;
    until_at(&views, last).await;
    shop.models.saves_take(Duration::from_secs(1));
    assert!(views.retry_parked::<Mailer>(&stream("a")).await.unwrap());
    until("it is tried again", || mailer.calls_of("a").len() == 2).await;
    // It is stored 200 ms later, and for a second; the try ends in between.
    shop.append("b", paid(1)).await;
    let began = tokio::time::Instant::now();
    until_none_is_parked(&views).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    views.close().await;
}

/// Who asks which streams are to be retried has a connection, which the reactor may need for something else.
#[tokio::test(start_paused = true)]
async fn a_retry_ends_though_it_is_asked_what_to_retry_next() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|call| match (call.stream.as_str(), call.nth) {
        ("a", 1) => Act::Permanent,
        _ => Act::Slow(Duration::from_millis(1_400)),
    });
    let views = start_parking(&shop, &mailer).await;
    let last = shop.append("a", paid(1)).await;
    until_at(&views, last).await;
    shop.models.asks_take(Duration::from_secs(1));
    assert!(views.retry_parked::<Mailer>(&stream("a")).await.unwrap());
    until("it is tried again", || mailer.calls_of("a").len() == 2).await;
    // It is asked a second after the last answer, and for a second; the try ends in between.
    let began = tokio::time::Instant::now();
    until_none_is_parked(&views).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    views.close().await;
}

/// A retry has all the tries that the event had at first.
#[tokio::test(start_paused = true)]
async fn the_tries_of_a_retry_begin_anew() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|call| if call.nth < 4 { Act::Transient } else { Act::Done });
    let reacting = mailer.clone().tries(2).dead_letter();
    let views = shop.projections().react(reacting).start().await.unwrap();
    let last = shop.append("a", paid(1)).await;
    until_at(&views, last).await;
    assert_eq!(mailer.calls().len(), 2);
    assert!(views.retry_parked::<Mailer>(&stream("a")).await.unwrap());
    until_none_is_parked(&views).await;
    assert_eq!((mailer.calls().len(), mailer.done()), (4, 1));
    views.close().await;
}

/// The main read may pass an event of the stream after its last page was read: it must not be forgotten with the rest.
#[test]
fn a_stream_is_not_reopened_before_what_was_passed_meanwhile_is_handled() {
    use annals_eventstore::{Position, StreamVersion};

    use std::sync::Arc;

    use crate::EventPlace;
    use crate::batch::Batch;
    use crate::reactor::keeper::Failing;
    use crate::reactor::lanes::{Item, Lanes};
    use crate::reactor::reactions::Held;
    use crate::reactor::{AnyReactor, TypedReactor};
    use crate::testing::{GivenEvent, given_events};
    use crate::tests::accounts::AccountEvent;

    let version = |n| StreamVersion::new(n).unwrap();
    let place = EventPlace {
        position: Position::new(7).unwrap(),
        stream: stream("a"),
        version: version(2),
        name: "paid".into(),
    };
    let mut lanes = Lanes::default();
    let parked = Failing { parked: true, ..Failing::new(place, jiff::Timestamp::UNIX_EPOCH) };
    lanes.restore(parked, tokio::time::Instant::now());
    assert!(lanes.replay(&stream("a")));
    assert!(!lanes.push_read(&stream("a"), Vec::new(), version(1), true), "event 2 was passed and is not read");
    let reactor = TypedReactor::new(Mailer::new(|_| Act::Done).into());
    let events = given_events((0..3).map(|_| GivenEvent::of("account", "a", AccountEvent::Paid(1))));
    let batch = Batch::decode(events.recorded(), &[reactor.decoder()]);
    let page = reactor.page(&batch, Held::new(&Arc::default(), 0));
    assert!(!lanes.push(Item { page, at: 2, number: Some(0) }), "it is left to the retry");
    assert!(!lanes.push_read(&stream("a"), Vec::new(), version(2), true), "event 3 was passed and is not read");
    assert!(lanes.push_read(&stream("a"), Vec::new(), version(3), true));
    lanes.reopened(&stream("a"));
    assert_eq!(lanes.parked(), 0);
}
