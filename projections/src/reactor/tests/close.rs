//! The end of a run: nothing is begun, what runs may end, and how far it is is stored.

use std::time::Duration;

use tokio::time::Instant;

use super::mailer::{Act, Mailer, paid, position, process, start, stored, until, until_at};
use crate::tests::fixture::Fixture;
use crate::{Reactor, ReactorState};

#[tokio::test(start_paused = true)]
async fn close_begins_no_handler_and_lets_those_that_run_finish() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|_| Act::Slow(Duration::from_secs(10)));
    let views = start(&shop, &mailer).await;
    shop.append("a", paid(3)).await;
    shop.append("b", paid(3)).await;
    until("both are begun", || mailer.calls().len() == 2).await;
    views.close().await;
    assert_eq!((mailer.calls().len(), mailer.done()), (2, 2));
    assert_eq!(stored(&shop).await, 1, "up to the second event of `a`");
    assert!(matches!(views.reactors()[0].state, ReactorState::Closed));
    assert_eq!(shop.models.kept().last(), Some(&"release"));
    let views = start(&shop, &mailer.then(|_| Act::Done)).await;
    until_at(&views, position(6)).await;
    views.close().await;
    assert_eq!(mailer.calls_of("a"), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn close_waits_one_time_limit_at_most() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|_| Act::Hang);
    let reacting = mailer.clone().time_limit(Duration::from_secs(7));
    let views = shop.projections().react(reacting).start().await.unwrap();
    shop.append("a", paid(1)).await;
    until("it is begun", || mailer.calls().len() == 1).await;
    let began = Instant::now();
    views.close().await;
    assert!(began.elapsed() <= Duration::from_millis(7_001), "{:?}", began.elapsed());
    assert_eq!(stored(&shop).await, 0);
}

/// The process is killed at any moment, over and over: in the end every event was handled, in order, each under one key.
#[test]
fn whenever_the_process_dies_no_event_is_lost() {
    let seed = std::env::var("ANNALS_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().expect("a number"));
    println!("ANNALS_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let shop = Fixture::new();
    let mailer = Mailer::new(|call| match call.nth {
        1 if call.version % 7 == 0 => Act::Transient,
        _ => Act::Slow(Duration::from_millis(call.version as u64 % 5 * 40)),
    });
    process(async { start(&shop, &mailer).await.close().await });
    let mut last = position(0);
    for _ in 0..40 {
        process(async {
            let views = start(&shop, &mailer).await;
            for _ in 0..rng.usize(0..4) {
                last = shop.append(&format!("s-{}", rng.u32(..3)), paid(rng.usize(1..9))).await;
            }
            tokio::time::sleep(Duration::from_millis(rng.u64(0..600))).await;
            if rng.bool() {
                views.close().await;
            }
        });
    }
    process(async {
        let views = start(&shop, &mailer).await;
        until_at(&views, last).await;
        views.close().await;
    });
    assert_eq!(process(stored(&shop)), last.get());
    let mut all = 0;
    for stream in ["s-0", "s-1", "s-2"] {
        let done = mailer.done_of(stream);
        let mut seen = 0;
        for version in done {
            // Those behind the checkpoint come again, but none is stepped over.
            assert!(version <= seen + 1, "{stream}: {version} after {seen}");
            seen = seen.max(version);
            assert_eq!(mailer.keys_of(stream, version).len(), 1);
        }
        all += seen;
    }
    assert_eq!(all, last.get());
}
