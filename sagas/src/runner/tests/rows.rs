//! Rows are the folds of their streams, at every event.

use std::sync::Arc;

use annals_eventstore::{Evolve, StreamId, Tenant};
use jiff::Timestamp;

use crate::event::{Intervention, SagaEvent};
use crate::instance::{Instance, Status};
use crate::runner::SagaInstance;
use crate::testing::{Choice, run};
use crate::tests::checkout::World;
use crate::tests::random::saga;

/// What a row should be, by the fold of its stream and the last of its events that was about a step.
fn check(row: &SagaInstance, instance: &Instance, events: &[SagaEvent]) {
    assert_eq!(row.status, instance.status);
    assert_eq!((&row.saga_type, &row.definition), (&instance.saga, &instance.definition));
    assert_eq!(row.payload.as_ref().unwrap_or(&serde_json::Value::Null), &instance.data);
    assert_eq!(row.deadline, instance.deadline);
    assert_eq!(row.last_error, instance.reason);
    assert_eq!(row.version, i64::try_from(events.len()).expect("they are few"));
    let is_at_it = matches!(instance.status, Status::Running | Status::Compensating);
    let wake_at = match instance.waits {
        Some(wait) => wait.until,
        None => is_at_it.then_some(instance.started_at),
    };
    assert_eq!(row.wake_at, wake_at);
    let of = |event: &SagaEvent| match event {
        SagaEvent::Begun { step, attempt, .. }
        | SagaEvent::Succeeded { step, attempt, .. }
        | SagaEvent::Refused { step, attempt, .. }
        | SagaEvent::Failed { step, attempt, .. } => Some((step.clone(), Some(*attempt))),
        SagaEvent::ApprovalAsked { step, .. } => Some((step.clone(), Some(0))),
        SagaEvent::WaitBegun { step: Some(step), .. } | SagaEvent::Stuck { step: Some(step), .. } => {
            Some((step.clone(), None))
        }
        _ => None,
    };
    let about = events.iter().filter_map(of).collect::<Vec<_>>();
    assert_eq!(row.current_step.as_ref(), about.last().map(|(step, _)| step));
    let same = about.iter().rev().take_while(|(step, _)| Some(step) == row.current_step.as_ref());
    let attempt = same.filter_map(|(_, attempt)| *attempt).next();
    assert_eq!(row.attempt, attempt.unwrap_or_default());
    // As many steps can ask while it is stuck, as another one may be in the way.
    let can_ask = matches!(instance.status, Status::Running)
        || instance.status == Status::Stuck && instance.was == Status::Running;
    let asks = instance.steps.iter().filter(|(_, state)| can_ask && state.asks());
    let asks: Vec<_> = asks.map(|(step, state)| (step.clone(), state.due)).collect();
    let mut of_row: Vec<_> = row.asks.iter().map(|ask| (ask.step.clone(), ask.until)).collect();
    of_row.sort();
    assert_eq!(of_row, asks);
    let first = row.asks.iter().map(|ask| ask.at).min();
    assert_eq!(row.asked_at, first.filter(|_| instance.status == Status::Running));
}

#[test]
fn a_row_is_the_fold_of_its_stream_at_every_event_of_random_sagas() {
    let seed =
        std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("ANNALS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stream = StreamId::new(Tenant::default(), "saga", "explored").expect("it is a stream");
    let (mut met, mut rows) = (std::collections::BTreeSet::new(), 0);
    for _ in 0..150 {
        let definition = saga(&mut random, &Arc::new(World::default()));
        let (mut choices, often) = (random.fork(), random.u8(0..70));
        let ran = run(
            |_| definition.clone(),
            (),
            move |_, point| {
                let other = choices.choice(point.choices().iter().copied()).filter(|_| choices.u8(0..100) < often);
                other.unwrap_or(Choice::Usual)
            },
        );
        let mut events = ran.events;
        if let Some(SagaEvent::Stuck { .. }) = events.last() {
            let (what, until) = random
                .choice([
                    (Intervention::Retry, None),
                    (Intervention::Skip, Some(Timestamp::UNIX_EPOCH)),
                    (Intervention::Compensate, Some(Timestamp::UNIX_EPOCH)),
                    (Intervention::Complete, None),
                ])
                .expect("there are some");
            let fold = events.iter().fold(Instance::default(), |mut fold, event| {
                fold.evolve(event);
                fold
            });
            let until = if fold.was == Status::Compensating && what == Intervention::Retry {
                Some(Timestamp::UNIX_EPOCH)
            } else {
                until.filter(|_| what != Intervention::Skip || fold.was == Status::Compensating)
            };
            let (actor, reason) = ("ada".to_owned(), "as it was wished".to_owned());
            let at = Timestamp::UNIX_EPOCH;
            events.push(SagaEvent::Intervened { intervention: what, actor, reason, at, request: None, until });
        }
        let (mut row, mut instance) = (SagaInstance::started(&stream), Instance::default());
        for (at, event) in events.iter().enumerate() {
            let version = i64::try_from(at + 1).expect("they are few");
            row.take_in(event, version, Timestamp::UNIX_EPOCH);
            instance.evolve(event);
            check(&row, &instance, &events[..=at]);
            met.insert(format!("{:?}", row.status));
            rows += 1;
        }
    }
    assert_eq!(met.len(), 5, "each status is met: {met:?}");
    assert!(rows > 1_000);
}
