//! Where it begins, what is stored when, and what comes again after a crash.

use std::time::Duration;

use annals_eventstore::testing::{Fault, FaultyStore};
use annals_eventstore::{EventStore, MemoryStore, SeededIds, Tenant};

use super::mailer::{Act, Mailer, paid, position, process, start, stored, until, until_at, until_taken_over};
use crate::tests::fixture::{Counts, Fixture};
use crate::tests::swapped::Swapped;
use crate::tests::troubled::Trouble;
use crate::{Reactor, ReactorState, StartError, StopCause};

#[tokio::test(start_paused = true)]
async fn it_never_reacts_to_history_by_itself() {
    let shop = Fixture::new();
    shop.append("a", paid(3)).await;
    let mailer = Mailer::new(|_| Act::Done);
    let views = start(&shop, &mailer).await;
    let last = shop.append("a", paid(2)).await;
    until_at(&views, last).await;
    assert_eq!(mailer.calls_of("a"), [4, 5]);
    views.close().await;
    // Afterwards what is stored counts, whatever is asked for.
    for again in [mailer.clone().from_start(), mailer.clone().after(position(1))] {
        let views = shop.projections().react(again).start().await.unwrap();
        let last = shop.append("b", paid(1)).await;
        until_at(&views, last).await;
        views.close().await;
    }
    assert_eq!((mailer.calls_of("a").len(), mailer.calls_of("b").len()), (2, 2));
}

/// A process that ends right after its first start must not make the reactor skip what is recorded while none runs.
#[test]
fn where_it_begins_is_stored_before_the_start_returns() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|_| Act::Done);
    process(async {
        shop.append("a", paid(3)).await;
        let _views = start(&shop, &mailer).await;
    });
    process(async {
        let last = shop.append("a", paid(2)).await;
        let views = start(&shop, &mailer).await;
        until_at(&views, last).await;
        assert_eq!(mailer.calls_of("a"), [4, 5]);
    });
}

#[tokio::test(start_paused = true)]
async fn history_comes_when_it_is_asked_for() {
    for (after, expected) in [(0, vec![1, 2, 3, 4, 5]), (3, vec![4, 5]), (5, vec![])] {
        let shop = Fixture::new();
        for _ in 0..5 {
            shop.append("a", paid(1)).await;
        }
        let mailer = Mailer::new(|_| Act::Done);
        let views = shop.projections().react(mailer.clone().after(position(after))).start().await.unwrap();
        until_at(&views, position(5)).await;
        views.close().await;
        assert_eq!(mailer.calls_of("a"), expected);
    }
    let shop = Fixture::new();
    let ahead = shop.projections().react(Mailer::new(|_| Act::Done).after(position(9))).start().await;
    assert!(matches!(ahead, Err(StartError::Store(_))), "beyond the log");
}

#[test]
fn after_a_crash_all_events_behind_an_unfinished_one_come_again_with_the_same_keys() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|call| if call.stream == "a" { Act::Hang } else { Act::Done });
    process(async {
        let views = start(&shop, &mailer).await;
        shop.append("x", paid(1)).await;
        shop.append("a", paid(1)).await;
        shop.append("b", paid(300)).await;
        until("the others are handled", || mailer.done() == 301).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(stored(&shop).await, 1, "up to before the unfinished event, and no further");
        assert_eq!(views.reactors()[0].position, position(1));
    });
    process(async {
        let views = start(&shop, &mailer.then(|_| Act::Done)).await;
        until_at(&views, position(302)).await;
        views.close().await;
    });
    assert_eq!(mailer.calls_of("x"), [1]);
    assert_eq!(mailer.calls_of("a"), [1, 1]);
    assert_eq!(mailer.calls_of("b").len(), 600);
    for version in 1..=300 {
        assert_eq!(mailer.keys_of("b", version).len(), 1, "the key of an event is the same after a restart");
    }
    let keys: std::collections::HashSet<String> = mailer.calls().into_iter().map(|call| call.key).collect();
    assert_eq!(keys.len(), 302, "and another for each event");
}

#[tokio::test(start_paused = true)]
async fn events_that_succeed_cost_no_write_each() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|_| Act::Done);
    let views = start(&shop, &mailer).await;
    for n in 0..10 {
        shop.append(&format!("s-{n}"), paid(300)).await;
    }
    until_at(&views, position(3_000)).await;
    views.close().await;
    let kept = shop.models.kept();
    let saves = kept.iter().filter(|what| **what == "save").count();
    assert!((1..=31).contains(&saves), "{saves} for 3,000 events");
    assert_eq!(kept.len(), saves + 1, "and a release at the end: {kept:?}");
    assert_eq!(stored(&shop).await, 3_000);
}

#[tokio::test(start_paused = true)]
async fn the_checkpoint_is_stored_200_ms_after_an_event_at_the_latest() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|_| Act::Done);
    let views = start(&shop, &mailer).await;
    shop.append("a", paid(1)).await;
    tokio::time::sleep(Duration::from_millis(190)).await;
    assert_eq!((mailer.done(), stored(&shop).await), (1, 0));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(stored(&shop).await, 1);
    // Also where nothing concerned it, so that a restart need not read all of that again.
    shop.append_raw("x", "somebody.elses", "1").await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(stored(&shop).await, 2);
    drop(views);
}

#[tokio::test(start_paused = true)]
async fn new_events_are_handled_at_once() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|_| Act::Done);
    let views = start(&shop, &mailer).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    for n in 1..=3 {
        let began = tokio::time::Instant::now();
        shop.append("a", paid(1)).await;
        while mailer.done() < n {
            tokio::task::yield_now().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO, "time is paused: nobody waited for a timer");
    }
    drop(views);
}

#[tokio::test(start_paused = true)]
async fn passing_faults_of_database_and_store_are_waited_out_and_nothing_is_lost() {
    let shop = Fixture::new();
    let store = FaultyStore::new(shop.store.clone());
    let mailer = Mailer::new(|call| if call.nth == 1 && call.version == 2 { Act::Transient } else { Act::Done });
    let views = shop.over(store.clone()).react(mailer.clone()).start().await.unwrap();
    for trouble in [Trouble::Passing, Trouble::Unanswered] {
        shop.models.trouble_keepers(vec![Some(trouble); 6]);
        let last = shop.append("a", paid(2)).await;
        shop.append("b", paid(2)).await;
        until_at(&views, last).await;
    }
    store.fail_next(2, Fault::Before);
    let last = shop.append("a", paid(1)).await;
    until_at(&views, last).await;
    shop.models.end_trouble_of_keepers();
    views.close().await;
    assert_eq!(mailer.done_of("a"), [1, 2, 3, 4, 5]);
    assert_eq!(stored(&shop).await, last.get());
}

/// What was stored without an answer must not be taken for the work of another run when more is handled by then.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_whose_answer_was_lost_is_its_own() {
    for closes in [false, true] {
        let shop = Fixture::new();
        let views = start(&shop, &Mailer::new(|_| Act::Done)).await;
        shop.models.trouble_keepers([Some(Trouble::Unanswered)]);
        shop.append("a", paid(1)).await;
        until("the answer is lost", || shop.models.kept().len() == 1).await;
        let last = shop.append("a", paid(1)).await;
        until_at(&views, last).await;
        if !closes {
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(views.reactors()[0].state.is_running(), "{:?}", views.reactors());
            assert_eq!(stored(&shop).await, 2);
        }
        views.close().await;
        assert_eq!(stored(&shop).await, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_database_refuses_stops_it() {
    let shop = Fixture::new();
    let views = start(&shop, &Mailer::new(|_| Act::Done)).await;
    shop.models.trouble_keepers([Some(Trouble::Refused(""))]);
    shop.append("a", paid(1)).await;
    let stopped = views.stopped().await.unwrap_err();
    assert!(matches!(*stopped.cause, StopCause::Database(_)), "{stopped}");
}

#[tokio::test(start_paused = true)]
async fn one_process_at_a_time_runs_a_reactor_and_the_next_takes_over() {
    let shop = Fixture::new();
    let (mine, theirs) = (Mailer::new(|_| Act::Done), Mailer::new(|_| Act::Done));
    let first = start(&shop, &mine).await;
    shop.append("a", paid(1)).await;
    until("it is handled", || first.reactors()[0].position == position(1)).await;
    let second = start(&shop, &theirs).await;
    shop.append("b", paid(150)).await;
    until_at(&first, position(151)).await;
    until("the second sees it", || second.reactors()[0].position == position(151)).await;
    assert!(matches!(&second.reactors()[0].state, ReactorState::Standby { owner: Some(_) }), "{:?}", second.reactors());
    assert!(theirs.calls_of("b").is_empty());
    first.close().await;
    assert_eq!(stored(&shop).await, 151);
    let last = shop.append("b", paid(2)).await;
    until_at(&second, last).await;
    assert_eq!(theirs.calls_of("b").len(), 2, "no event twice after a polite end");
    second.close().await;
}

/// One that cannot be taken is left for later if that may pass; else it stops, and says so.
#[tokio::test(start_paused = true)]
async fn a_reactor_that_cannot_be_taken_waits_or_stops() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|_| Act::Done);
    shop.models.trouble_opens([Some(Trouble::Passing), Some(Trouble::Passing)]);
    let views = start(&shop, &mailer).await;
    let last = shop.append("a", paid(1)).await;
    until_at(&views, last).await;
    views.close().await;
    shop.models.trouble_opens([Some(Trouble::Refused(""))]);
    let views = start(&shop, &mailer).await;
    until("it has stopped", || matches!(views.reactors()[0].state, ReactorState::Stopped(_))).await;
    assert!(matches!(&*views.stopped().await.unwrap_err().cause, StopCause::Database(_)));
    views.close().await;
}

/// Nobody takes a reactor for closed that is only given to another process; and who waits until one stops goes on waiting.
#[tokio::test(start_paused = true)]
async fn a_reactor_that_moves_to_another_process_is_never_closed() {
    let shop = Fixture::new();
    let both = async |shop: &Fixture, mailer: &Mailer| {
        shop.projections().with(Counts).react(mailer.clone()).start().await.unwrap()
    };
    let first = both(&shop, &Mailer::new(|_| Act::Permanent)).await;
    until_taken_over(&first).await;
    let mut status = first.known_reactors()[0].status.clone();
    let closed =
        tokio::spawn(
            async move { status.wait_for(|status| matches!(status.state, ReactorState::Closed)).await.map(drop) },
        );
    let waiting = first.clone();
    let stopped = tokio::spawn(async move { waiting.stopped().await });
    let second = both(&shop.beside(), &Mailer::new(|_| Act::Done)).await;
    until_taken_over(&second).await;
    assert!(!closed.is_finished());
    second.close().await;
    until_taken_over(&first).await;
    shop.append("a", paid(1)).await;
    until("it has stopped", || matches!(first.reactors()[0].state, ReactorState::Stopped(_))).await;
    assert!(stopped.await.unwrap().is_err());
    assert!(!closed.is_finished());
    first.close().await;
}

/// An owner whose lease ended while it hung stores nothing more, and stands by when it goes on.
#[tokio::test(start_paused = true)]
async fn a_run_that_hung_past_its_lease_changes_nothing_more() {
    let shop = Fixture::new();
    let first = start(&shop, &Mailer::new(|_| Act::Done)).await;
    shop.append("a", paid(1)).await;
    until("it is handled", || first.reactors()[0].position == position(1)).await;
    let held = shop.models.hang().await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let second = start(&shop.beside(), &Mailer::new(|_| Act::Done)).await;
    let last = shop.append("b", paid(150)).await;
    until_at(&second, last).await;
    drop(held);
    until("the first notices", || matches!(first.reactors()[0].state, ReactorState::Standby { .. })).await;
    second.close().await;
    assert_eq!(stored(&shop).await, 151);
    first.close().await;
    assert_eq!(stored(&shop).await, 151, "the first changes nothing any more");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_restored_stops_it_and_refuses_its_start() {
    let store = || MemoryStore::builder().ids(SeededIds::new(1)).build();
    let lost = Fixture::new().with_store(store());
    let kept = lost.with_store(store());
    for log in [&lost, &kept] {
        log.append("a", paid(2)).await;
    }
    kept.store.ids().next_id();
    let swapped = Swapped::new(lost.store.clone(), kept.store.clone());
    let mailer = Mailer::new(|_| Act::Done);
    let views = lost.over(swapped.clone()).react(mailer.clone()).start().await.unwrap();
    let last = lost.append("a", paid(3)).await;
    swapped.announce();
    until_at(&views, last).await;
    swapped.swap();
    kept.append("a", paid(9)).await;
    let stopped = views.stopped().await.unwrap_err();
    assert!(stopped.cause.is_rewind(), "{stopped}");
    views.close().await;
    let refused = kept.projections().react(mailer.clone()).start().await.expect_err("it must be refused");
    assert!(matches!(refused, StartError::ReactorRewound { reactor: "mailer", .. }), "{refused}");
    assert_eq!(mailer.calls_of("a"), [3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_reactor_of_one_tenant_gets_no_other_and_stays_with_it() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|_| Act::Done);
    let north = Tenant::new("north").unwrap();
    let views = shop.projections().react(mailer.clone()).for_tenant(north.clone()).start().await.unwrap();
    shop.append("a", paid(1)).await;
    let last = shop.append_of(north, "b", paid(2)).await;
    until_at(&views, last).await;
    views.close().await;
    assert_eq!((mailer.calls_of("a").len(), mailer.calls_of("b").len()), (0, 2));
    let refused = shop.projections().react(mailer.clone()).start().await.expect_err("it must be refused");
    assert!(matches!(refused, StartError::ReactorTenantChanged { .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn options_and_names_that_break_a_rule_are_refused() {
    let shop = Fixture::new();
    let mailer = || Mailer::new(|_| Act::Done);
    for (reacting, said) in [
        (mailer().streams_at_once(0), "`streams_at_once` of reactor `mailer` is 0; give a number from 1 to 256"),
        (mailer().streams_at_once(257), "`streams_at_once` of reactor `mailer` is 257; give a number from 1 to 256"),
        (
            mailer().time_limit(Duration::ZERO),
            "`time_limit` of reactor `mailer` is 0ns; give a time from 1 ms to one hour",
        ),
        (
            mailer().time_limit(Duration::from_secs(3_601)),
            "`time_limit` of reactor `mailer` is 3601s; give a time from 1 ms to one hour",
        ),
        (mailer().tries(0), "`tries` of reactor `mailer` is 0; give 1 at least"),
    ] {
        let refused = shop.projections().react(reacting).start().await.expect_err("it must be refused");
        assert_eq!(refused.to_string(), said);
    }
    let twice = shop.projections().react(mailer()).react(mailer()).start().await.expect_err("it must be refused");
    assert!(twice.to_string().contains("`mailer` is that of two reactors"), "{twice}");
    for allowed in [mailer().streams_at_once(256), mailer().time_limit(Duration::from_secs(3_600)), mailer().tries(1)] {
        shop.projections().react(allowed).start().await.unwrap().close().await;
    }
}
