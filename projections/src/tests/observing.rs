//! What operators see: who runs what, how fast, the last fault, the lag, metrics and spans.

use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{
    EventStore, ExpectedVersion, ManualClock, MemoryStore, Metadata, NewEvent, Position, StreamId, Tenant, TraceParent,
};
use tokio::time::sleep;

use super::accounts::{AccountEvent, Accounts};
use super::dead_letters::{letters, poison};
use super::fixture::{Counts, Fixture, until_at};
use super::observed::{Metrics, Spans};
use super::troubled::Trouble;
use crate::reactor::tests::mailer::{Act, Mailer};
use crate::{HealthOf, ProjectionState, Projections, Reactor, Verdict};

const OBSERVED_AGAIN: Duration = Duration::from_secs(6);

/// A shop in which the clocks of the log and of the projections are one that a test sets.
fn shop() -> (Fixture, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at("2026-03-02T09:30:00Z".parse().unwrap()));
    let store = MemoryStore::builder().clock(Arc::clone(&clock)).build();
    (Fixture::new().with_store(store), clock)
}

/// Appends an event of an account that was recorded under a trace.
async fn traced(shop: &Fixture, trace_parent: &str) -> Position {
    let mut metadata = Metadata::default();
    metadata.trace_parent = Some(TraceParent::new(trace_parent).unwrap());
    let event = NewEvent::of(shop.next_id(), &AccountEvent::Opened).unwrap().with_metadata(metadata);
    let stream = StreamId::new(Tenant::default(), "account", "a").unwrap();
    shop.store.append(&stream, ExpectedVersion::Any, vec![event]).await.unwrap().position
}

#[tokio::test(start_paused = true)]
async fn metrics_are_as_documented() {
    let metrics = Metrics::default();
    let _recorded = ::metrics::set_default_local_recorder(&metrics);
    let (shop, clock) = shop();
    let mailer = Mailer::new(|call| if call.nth == 1 { Act::Transient } else { Act::Done });
    let views = shop.projections().with(letters(false)).with(Counts).react(mailer).clock(Arc::clone(&clock));
    let views = views.start().await.unwrap();
    shop.models.trouble_commits([Some(Trouble::Passing)]);
    poison(&shop, "a").await;
    until_at(&views, Position::new(3).unwrap()).await;
    let last = shop.append("b", [AccountEvent::Paid(1)]).await;
    until_at(&views, last).await;
    let held = shop.models.hold_commits().await;
    shop.append("b", [AccountEvent::Paid(1)]).await;
    clock.advance(Duration::from_secs(40));
    sleep(OBSERVED_AGAIN).await;
    insta::assert_snapshot!(metrics.text("annals_"));
    drop(held);
    views.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_status_says_who_runs_it_how_fast_and_the_last_fault() {
    let (shop, clock) = shop();
    let start =
        async |name| shop.projections().with(Accounts).clock(Arc::clone(&clock)).runner_name(name).start().await;
    let (first, second) = (start("first").await.unwrap(), start("second").await.unwrap());
    let owner = |views: &Projections| views.status()[0].slots[0].owner.as_deref().map(str::to_owned);
    shop.models.trouble_commits([Some(Trouble::Passing)]);
    let last = shop.append("a", [AccountEvent::Paid(1), AccountEvent::Paid(2)]).await;
    until_at(&first, last).await;
    until_at(&second, last).await;
    assert_eq!((owner(&first).as_deref(), owner(&second).as_deref()), (Some("first"), Some("first")));
    let status = first.status().remove(0);
    assert!((0.1..=0.2).contains(&status.rate()), "two events in ten seconds: {}", status.rate());
    let error = status.last_error().unwrap();
    assert!(error.text.contains("the disk is missing"), "{}", error.text);
    assert_eq!(error.at.to_string(), "2026-03-02T09:30:00Z");
    assert!(matches!(status.state, ProjectionState::Live), "it has passed: {:?}", status.state);
    assert_eq!((second.status()[0].rate(), second.status()[0].last_error()), (0.0, None));
    first.close().await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!((owner(&first), owner(&second).as_deref()), (None, Some("second")));
    // What stops it is the last fault too.
    shop.append("a", [AccountEvent::Refused]).await;
    let stopped = second.stopped().await.unwrap_err();
    let status = second.status().remove(0);
    assert!(status.last_error().unwrap().text.contains(&stopped.to_string()), "{:?}", status.last_error());
    second.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_lag_is_the_age_of_the_first_event_that_is_not_applied() {
    let (shop, clock) = shop();
    let views = shop.projections().with(Accounts).with(Counts).clock(Arc::clone(&clock)).start().await.unwrap();
    let last = shop.append("a", [AccountEvent::Paid(1)]).await;
    until_at(&views, last).await;
    clock.advance(Duration::from_secs(1_000));
    let lags = async || views.health().await.into_iter().map(|health| health.lag).collect::<Vec<_>>();
    assert_eq!(lags().await, [Some(Duration::ZERO); 2], "nothing is behind, however old the last event");
    let held = shop.models.hold_commits().await;
    shop.append("a", [AccountEvent::Paid(1)]).await;
    clock.advance(Duration::from_secs(30));
    shop.append("a", [AccountEvent::Paid(1)]).await;
    clock.advance(Duration::from_secs(12));
    assert_eq!(lags().await, [Some(Duration::from_secs(42)); 2]);
    let text = views.health().await[0].to_string();
    assert!(text.ends_with("(at 1, 2 behind, for 42s)"), "{text}");
    // A clock that was set back gives no negative ages.
    clock.advance(Duration::ZERO);
    clock.set("2026-03-02T09:00:00Z".parse().unwrap());
    assert_eq!(lags().await, [Some(Duration::ZERO); 2]);
    drop(held);
    views.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_health_of_reactors_is_told_beside_that_of_projections() {
    let (shop, _) = shop();
    let mailer = Mailer::new(|call| match (call.stream.as_str(), call.nth) {
        ("slow", _) => Act::Transient,
        ("bad", _) => Act::Permanent,
        _ => Act::Done,
    });
    let start = async |mailer: &Mailer| {
        let reacting = mailer.clone().time_limit(Duration::from_secs(30)).dead_letter();
        shop.projections().with(Accounts).react(reacting).start().await.unwrap()
    };
    let views = start(&mailer).await;
    let health = async || views.health().await.remove(1);
    let last = shop.append("a", [AccountEvent::Paid(1)]).await;
    until_at(&views, last).await;
    sleep(Duration::from_secs(1)).await;
    let healthy = health().await;
    assert_eq!((healthy.of, &*healthy.name, &healthy.verdict), (HealthOf::Reactor, "mailer", &Verdict::Healthy));
    assert_eq!(healthy.to_string(), "reactor `mailer`: healthy (at 1)");
    shop.append("bad", [AccountEvent::Paid(1)]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(health().await.verdict, Verdict::Degraded { parked: 1 });
    shop.append("slow", [AccountEvent::Paid(1)]).await;
    sleep(Duration::from_millis(50)).await;
    let Verdict::Retrying { fault } = health().await.verdict else { panic!("{}", health().await) };
    assert!(fault.contains("the mail server is busy"), "{fault}");
    views.close().await;
    let Verdict::Failed { why } = health().await.verdict else { panic!("{}", health().await) };
    assert!(why.contains("closed"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn an_event_is_projected_in_its_trace_and_the_span_ends_when_its_row_can_be_seen() {
    const KEPT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const NOT_KEPT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b8-00";
    let shop = Fixture::new();
    let spans = Spans::called("project");
    let _guard = tracing::subscriber::set_default(spans.clone());
    tracing::callsite::rebuild_interest_cache();
    traced(&shop, KEPT).await;
    let views = shop.start().await;
    views.caught_up(shop.soon()).await.unwrap();
    assert_eq!(spans.fields(), [""; 0], "a trace of history is over");
    let last = traced(&shop, NOT_KEPT).await;
    until_at(&views, last).await;
    assert_eq!(spans.fields(), [""; 0]);
    let held = shop.models.hold_commits().await;
    let last = traced(&shop, KEPT).await;
    sleep(Duration::from_secs(1)).await;
    let expected = [
        "projection=\"accounts\"",
        "position=3",
        "stream=default/account/a",
        "event=\"opened\"",
        &format!("trace_parent=\"{KEPT}\""),
    ];
    assert_eq!(spans.fields(), expected);
    assert_eq!(spans.ended(), 0, "its row cannot be seen yet");
    drop(held);
    until_at(&views, last).await;
    assert_eq!(spans.ended(), 1);
    views.close().await;
}
