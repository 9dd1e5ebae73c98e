//! What is tried again and when, and what stops a reactor.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use annals_eventstore::ManualClock;

use super::mailer::{Act, Mailer, paid, position, process, start, until, until_at, until_taken_over};
use crate::tests::fixture::{Fixture, said};
use crate::{Projections, Reactor, ReactorState};

fn assert_doubling(waits: &[Duration], from: usize) {
    for (n, wait) in waits.iter().enumerate() {
        let whole = Duration::from_millis(200).saturating_mul(1 << (from + n).min(20)).min(Duration::from_secs(60));
        // A timer of the runtime fires up to a millisecond late.
        let fits = whole / 2 <= *wait && *wait <= whole + Duration::from_millis(2);
        assert!(fits, "wait {n} is {wait:?}, of {whole:?}: {waits:?}");
    }
}

/// A mail server is down for an hour.
#[tokio::test(start_paused = true)]
async fn a_transient_failure_is_tried_again_after_growing_waits_of_a_minute_at_most_as_long_as_it_takes() {
    let shop = Fixture::new();
    let began = tokio::time::Instant::now();
    let hour = Duration::from_secs(3_500);
    let mailer = Mailer::new(move |call| if call.at - began < hour { Act::Transient } else { Act::Done });
    let views = start(&shop, &mailer).await;
    let last = shop.append("a", paid(2)).await;
    until("it fails", || views.reactors()[0].last_error.is_some()).await;
    let status = views.reactors().remove(0);
    assert_eq!(
        status.last_error.as_deref(),
        Some("event `paid` at position 1 (`default/account/a`, version 1): the mail server is busy")
    );
    assert!(matches!(status.state, ReactorState::Live), "{status:?}");
    assert_eq!(status.retrying, 1);
    until_at(&views, last).await;
    let waits = mailer.waits_of("a", 1);
    assert!((60..130).contains(&waits.len()), "{}", waits.len());
    assert_doubling(&waits, 0);
    assert_eq!(mailer.done_of("a"), [1, 2]);
    let status = views.reactors().remove(0);
    assert_eq!((status.last_error, status.retrying), (None, 0));
    views.close().await;
}

/// Tries outlive the process that made them: else a failing event would be tried without end, and quickly again after each deploy.
#[test]
fn tries_and_waits_go_on_growing_in_the_next_process_and_then_the_policy_acts_once() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|call| if call.stream == "a" { Act::Transient } else { Act::Done });
    let clock = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
    process(async {
        let views = shop.projections().react(mailer.clone().tries(5)).clock(Arc::clone(&clock)).start().await.unwrap();
        shop.append("a", paid(1)).await;
        until("three tries", || mailer.calls_of("a").len() == 3 && views.reactors()[0].in_flight == 0).await;
        shop.append("b", paid(1)).await;
        until("another stream", || mailer.calls_of("b").len() == 1).await;
    });
    process(async {
        let views = shop.projections().react(mailer.clone().tries(5)).clock(Arc::clone(&clock)).start().await.unwrap();
        until_taken_over(&views).await;
        let began = tokio::time::Instant::now();
        let status = views.reactors().remove(0);
        assert!(status.last_error.is_some_and(|error| error.contains("busy")), "the last error is to be seen");
        let stopped = views.stopped().await.unwrap_err();
        let last: Vec<_> = mailer.calls().split_off(mailer.calls().len() - 2);
        let wait = last[1].at - last[0].at;
        assert_doubling(&[wait], 3);
        // The clock stands still, so nothing of the wait after the third is over. It is seen to begin up to a millisecond late.
        assert_doubling(&[last[0].at - began + Duration::from_millis(1)], 2);
        assert_eq!(
            said(&stopped),
            "reactor `mailer` stopped before event `paid` at position 1 (`default/account/a`, version 1): it could not handle \
             the event; fix what it says and start it again, then it continues with this event: the last of 5 tries failed: \
             the mail server is busy"
        );
        views.close().await;
    });
    assert_eq!(mailer.calls_of("a").len(), 5);
    // Started again, the tries begin anew.
    process(async {
        let once_more = mailer.then(|call| if call.nth == 6 { Act::Transient } else { Act::Done });
        let views = shop.projections().react(once_more.tries(5)).start().await.unwrap();
        until_at(&views, position(2)).await;
        views.close().await;
    });
    assert_eq!(mailer.done_of("a"), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_stops_it_before_the_event_and_a_fix_continues_there() {
    for (act, reason) in
        [(Act::Permanent, "there is no such address"), (Act::Panic, "it panicked: the address was none")]
    {
        let shop = Fixture::new();
        let mailer = Mailer::new(move |call| match (&*call.stream, call.version) {
            ("a", 2) => act,
            ("slow", _) => Act::Slow(Duration::from_secs(1)),
            _ => Act::Done,
        });
        let views = start(&shop, &mailer).await;
        shop.append("slow", paid(1)).await;
        let last = shop.append("a", paid(3)).await;
        let stopped = views.stopped().await.unwrap_err();
        assert!(said(&stopped).starts_with(
            "reactor `mailer` stopped before event `paid` at position 3 (`default/account/a`, version 2): it could not handle"
        ));
        assert!(said(&stopped).ends_with(&format!(": {reason}")), "{stopped}");
        views.close().await;
        assert_eq!(mailer.done_of("slow"), [1], "what runs is not broken off");
        assert_eq!(super::mailer::stored(&shop).await, 2);
        let views = start(&shop, &mailer.then(|_| Act::Done)).await;
        until_at(&views, last).await;
        views.close().await;
        assert_eq!(mailer.calls_of("a"), [1, 2, 2, 3]);
        assert_eq!(mailer.keys_of("a", 2).len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_too_long_is_dropped_and_tried_again() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|call| if call.nth < 3 { Act::Hang } else { Act::Slow(Duration::from_secs(2)) });
    let limited = mailer.clone().time_limit(Duration::from_secs(3));
    let views = shop.projections().react(limited).start().await.unwrap();
    let last = shop.append("a", paid(1)).await;
    until("it fails", || views.reactors()[0].last_error.is_some()).await;
    let error = views.reactors().remove(0).last_error.unwrap();
    assert!(error.ends_with("it took longer than its time limit of 3s"), "{error}");
    until_at(&views, last).await;
    let waits = mailer.waits_of("a", 1);
    let over: Vec<Duration> = waits.iter().map(|wait| *wait - Duration::from_secs(3)).collect();
    assert_eq!(waits.len(), 2);
    assert_doubling(&over, 0);
    views.close().await;
}

/// It would wait for ever, as what it waits for cannot come before it has ended.
#[tokio::test(start_paused = true)]
async fn a_handler_that_waits_for_itself_ends_by_its_time_limit_and_others_go_on() {
    struct Waiting(Arc<OnceLock<Projections>>);

    impl Reactor for Waiting {
        type Event = crate::tests::accounts::AccountEvent;
        const NAME: &'static str = "waiting";

        async fn react(
            &self,
            event: &annals_eventstore::Recorded<Self::Event>,
            _: &crate::EffectKey,
        ) -> Result<(), crate::ReactorError> {
            let Some(views) = self.0.get().filter(|_| event.stream.aggregate_id() == "a") else { return Ok(()) };
            // A read model of the same runner is there at once.
            views.wait_for(event.position, Duration::from_millis(100)).await?;
            loop {
                if views.reactors()[0].position >= event.position {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    let shop = Fixture::new();
    let cell = Arc::new(OnceLock::new());
    let waiting = Waiting(Arc::clone(&cell)).tries(2);
    let views = shop.projections().with(crate::tests::accounts::Accounts).react(waiting).start().await.unwrap();
    assert!(cell.set(views.clone()).is_ok());
    shop.append("a", paid(1)).await;
    shop.append("b", paid(5)).await;
    let began = tokio::time::Instant::now();
    let stopped = views.stopped().await.unwrap_err();
    assert!(said(&stopped).ends_with("it took longer than its time limit of 30s"), "{stopped}");
    assert!((60..62).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    views.close().await;
    assert_eq!(views.reactors()[0].handled, 5);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_read_stops_it_and_names_what_is_wrong() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|_| Act::Done);
    let views = start(&shop, &mailer).await;
    shop.append_raw("a", "somebody.elses", "\"nonsense\"").await;
    shop.append("b", paid(1)).await;
    shop.append_raw("a", "paid", "\"nonsense\"").await;
    let stopped = views.stopped().await.unwrap_err();
    assert_eq!(stopped.event.as_ref().map(|event| event.position), Some(position(3)));
    let text = said(&stopped);
    assert!(text.contains("unknown variant, expected one of") && !text.contains("nonsense"), "no values: {text}");
    views.close().await;
    assert_eq!((mailer.calls_of("a").len(), mailer.calls_of("b").len()), (0, 1));
}
