//! Streams that are set aside: each costs its own events from the failing one on, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use annals_eventstore::Payload;
use fastrand::Rng;

use super::accounts::{Account, AccountEvent, Accounts};
use super::streams::{PerAccount, fold, nothing, pair, recorded, stream, table, written};
use crate::error::StopCause;
use crate::folding::Outcome;
use crate::member::{AnyProjection, Typed, chain};
use crate::parking::{Parked, PassedOver};
use crate::testing::{GivenEvent, given_events};
use crate::{Projection, StreamProjection};

/// The streams that are parked, the version of the event, and why.
fn parked(outcome: &Outcome) -> Vec<(&str, i64, String)> {
    let one = |Parked { event, cause }: &'_ Parked| (event.version.get(), chain(cause));
    let ids = outcome.parked.iter().map(|parked| parked.event.stream.aggregate_id());
    ids.zip(outcome.parked.iter().map(one)).map(|(id, (version, why))| (id, version, why)).collect()
}

fn passed_over(id: &str, events: u64) -> PassedOver {
    PassedOver { stream: stream(id), events }
}

#[test]
fn a_failing_event_parks_its_stream_and_the_rest_of_the_batch_goes_on() {
    let events = vec![
        ("a", AccountEvent::Paid(1)),
        ("b", AccountEvent::Paid(2)),
        ("a", AccountEvent::Refused),
        ("b", AccountEvent::Paid(4)),
        ("a", AccountEvent::Paid(8)),
        ("c", AccountEvent::Paid(16)),
        ("a", AccountEvent::Closed),
    ];
    let (outcome, _) = fold(PerAccount::default(), &recorded(events), &nothing(), Some(&[]));
    assert!(outcome.stop.is_none());
    assert_eq!(outcome.applied, 7, "the checkpoint is behind all of them");
    assert_eq!(written(&outcome), [pair("a", 1), pair("b", 6), pair("c", 16)], "`a` is as it was before the event");
    let [(id, version, why)] = &parked(&outcome)[..] else { panic!("{outcome:?}") };
    assert_eq!((*id, *version), ("a", 2));
    assert!(why.ends_with("the domain says no"), "{why}");
    assert_eq!(outcome.passed_over, [passed_over("a", 2)]);
}

#[test]
fn events_of_a_stream_that_is_parked_already_are_passed_over_and_load_nothing() {
    let mut events = recorded(vec![
        ("a", AccountEvent::Paid(1)),
        ("a", AccountEvent::Refused),
        ("b", AccountEvent::Paid(2)),
        ("a", AccountEvent::Paid(4)),
    ]);
    events.remove(0);
    let (outcome, asked) = fold(PerAccount::default(), &events, &table(&[("a", 1)]), Some(&["a"]));
    assert_eq!((asked.len(), outcome.applied, written(&outcome)), (0, 3, vec![pair("b", 2)]));
    assert_eq!((outcome.parked.len(), &outcome.passed_over[..]), (0, &[passed_over("a", 2)][..]));
    let (outcome, _) = fold(PerAccount::default(), &events[..1], &nothing(), Some(&["a"]));
    assert_eq!(outcome.applied, 1, "also a batch of nothing else moves the checkpoint");
}

#[test]
fn whatever_an_event_fails_for_parks_its_stream_alone() {
    let mut events = recorded(vec![
        ("panicking", AccountEvent::Panicking),
        ("nan", AccountEvent::NotANumber),
        ("missing", AccountEvent::PaidStrictly(1)),
        ("rekeyed", AccountEvent::Rekeyed("good".into())),
        ("good", AccountEvent::Paid(1)),
        ("unreadable", AccountEvent::Paid(2)),
        // A bad row shows when a later event looks at it; a lone one when all are written.
        ("nan", AccountEvent::Paid(4)),
        ("lone", AccountEvent::NotANumber),
    ]);
    events[5].payload = Payload::from_json(r#"{"Unheard":1}"#).unwrap();
    let (outcome, _) = fold(PerAccount::default(), &events, &nothing(), Some(&[]));
    assert_eq!((outcome.applied, written(&outcome)), (8, vec![pair("good", 1)]));
    let kind = |cause: &StopCause| match cause {
        StopCause::Panicked(_) => "panic",
        StopCause::Row(_) => "row",
        StopCause::Read(_) => "event",
        other => panic!("{other:?}"),
    };
    let found: Vec<_> = outcome.parked.iter().map(|p| (p.event.stream.aggregate_id(), kind(&p.cause))).collect();
    assert_eq!(
        found,
        [
            ("panicking", "panic"),
            ("nan", "row"),
            ("missing", "row"),
            ("rekeyed", "row"),
            ("unreadable", "event"),
            ("lone", "row"),
        ],
        "in the order of the events"
    );
    assert_eq!(outcome.passed_over, [passed_over("nan", 1)]);
}

#[test]
fn only_a_stream_projection_that_asks_for_it_parks_streams_or_has_slots() {
    fn of(projection: impl Projection) -> (bool, u32) {
        let typed = Typed::new(projection);
        (typed.parks(), typed.slots())
    }
    assert_eq!(of(Accounts), (false, 1));
    assert_eq!(of(PerAccount::default()), (false, 1));
    assert_eq!(of(PerAccount::default().slots(4)), (false, 4));
    assert_eq!(of(PerAccount::default().dead_letter().slots(4)), (true, 4));
}

/// A deploy with a fault in the fold may park every stream of a batch.
#[test]
fn a_batch_in_which_every_stream_fails_is_folded_twice_and_not_once_per_stream() {
    let ids: Vec<String> = (0..2_000).map(|n| format!("a{n}")).collect();
    for failing in [AccountEvent::Refused, AccountEvent::NotANumber] {
        let events = ids.iter().flat_map(|id| [(id.as_str(), AccountEvent::Paid(1)), (id.as_str(), failing.clone())]);
        let applied = Arc::default();
        let counted = PerAccount { applied: Arc::clone(&applied) };
        let (outcome, _) = fold(counted, &recorded(events.collect()), &nothing(), Some(&[]));
        assert_eq!((outcome.parked.len(), written(&outcome).len()), (2_000, 2_000));
        assert!(applied.load(Ordering::Relaxed) <= 8_000, "{failing:?}: {applied:?}");
    }
}

/// The rows of an independent fold per stream, and the number of the event for which each stream that fails is parked.
fn model(events: &[(String, AccountEvent)]) -> (Vec<(usize, &'static str)>, BTreeMap<String, i64>) {
    let (mut rows, mut parked, mut aside) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
    for (number, (id, event)) in (1..).zip(events) {
        if aside.contains(id) {
            continue;
        }
        let why = match event {
            AccountEvent::Opened => rows.insert(id.clone(), 0).and(None),
            AccountEvent::Paid(cents) => {
                *rows.entry(id.clone()).or_default() += cents;
                None
            }
            AccountEvent::PaidStrictly(cents) => match rows.get_mut(id) {
                Some(row) => {
                    *row += cents;
                    None
                }
                None => Some("has no row with the key"),
            },
            AccountEvent::Closed => rows.remove(id).and(None),
            AccountEvent::Refused => Some("the domain says no"),
            AccountEvent::NotANumber => Some("is NaN"),
            other => unreachable!("{other:?} is never generated"),
        };
        if let Some(why) = why {
            parked.push((number, why));
            aside.insert(id.clone());
        }
    }
    (parked, rows)
}

#[test]
fn any_batches_and_slots_park_the_same_streams_and_leave_the_same_rows() {
    let seed = std::env::var("ANNALS_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().expect("a number"));
    println!("ANNALS_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let random_event = |rng: &mut Rng| match rng.u32(..10) {
        0 => AccountEvent::Opened,
        1..5 => AccountEvent::Paid(rng.i64(0..9)),
        5..7 => AccountEvent::PaidStrictly(rng.i64(0..9)),
        7 => AccountEvent::Closed,
        8 => AccountEvent::Refused,
        _ => AccountEvent::NotANumber,
    };
    for _ in 0..40 {
        let events: Vec<_> =
            (0..rng.usize(1..16)).map(|_| (format!("a{}", rng.u32(..4)), random_event(&mut rng))).collect();
        let (parked, rows) = model(&events);
        let at = jiff::Timestamp::UNIX_EPOCH;
        given_events(events.iter().map(|(id, event)| GivenEvent::of("account", id, event.clone()).at(at)))
            .with(PerAccount::default().dead_letter())
            .then_parks(parked, rows.iter().map(|(id, cents)| Account::new(id, *cents, at)));
    }
}
