//! The law of the fold: whatever the batches, the rows are those of applying one event after the other to a plain map.

use std::collections::BTreeMap;

use annals_eventstore::Recorded;
use fastrand::Rng;

use super::accounts::{Account, AccountEvent, Accounts};
use crate::testing::{GivenEvents, given_events};

/// What the projection means, written without it.
pub(super) fn model(events: &[Recorded<AccountEvent>]) -> Vec<Account> {
    let mut rows: BTreeMap<String, Account> = BTreeMap::new();
    for event in events {
        let id = event.stream.aggregate_id().to_owned();
        let new = |id: &String| Account::new(id, 0, event.recorded_at);
        match &event.event {
            AccountEvent::Opened => drop(rows.insert(id.clone(), new(&id))),
            AccountEvent::Paid(cents) => {
                let row = rows.entry(id.clone()).or_insert_with(|| new(&id));
                row.cents += cents;
                row.touched = event.recorded_at;
            }
            AccountEvent::Moved { to, cents } => {
                if let Some(row) = rows.get_mut(&id) {
                    row.cents -= cents;
                }
                rows.entry(to.clone()).or_insert_with(|| new(to)).cents += cents;
            }
            AccountEvent::Linked(to) => {
                rows.entry(id.clone()).or_insert_with(|| new(&id)).next = Some(to.clone());
            }
            AccountEvent::PaidAtTheEnd(cents) => {
                let mut last = id;
                for _ in 0..50 {
                    match rows.get(&last).and_then(|row| row.next.clone()) {
                        Some(next) => last = next,
                        None => break,
                    }
                }
                rows.entry(last.clone()).or_insert_with(|| new(&last)).cents += cents;
            }
            AccountEvent::Closed => drop(rows.remove(&id)),
            AccountEvent::ClosedIfEmpty => {
                if rows.get(&id).is_some_and(|row| row.cents == 0) {
                    rows.remove(&id);
                }
            }
            AccountEvent::Careless(other) => {
                if !rows.contains_key(other) {
                    rows.insert(id.clone(), Account::new(&id, -1, event.recorded_at));
                }
            }
            other => unreachable!("{other:?} is never generated"),
        }
    }
    rows.into_values().collect()
}

pub(super) fn typed(given: &GivenEvents) -> Vec<Recorded<AccountEvent>> {
    given.recorded().iter().flat_map(|event| event.typed().expect("it is one of accounts")).collect()
}

pub(super) fn random_event(rng: &mut Rng) -> (String, AccountEvent) {
    let account = |rng: &mut Rng| format!("a{}", rng.u32(..5));
    let id = account(rng);
    let event = match rng.u32(..9) {
        0 => AccountEvent::Opened,
        1 | 2 => AccountEvent::Paid(rng.i64(-2..3)),
        3 => AccountEvent::Moved { to: account(rng), cents: rng.i64(-2..3) },
        4 => AccountEvent::Linked(account(rng)),
        5 => AccountEvent::PaidAtTheEnd(rng.i64(0..3)),
        6 => AccountEvent::Closed,
        7 => AccountEvent::ClosedIfEmpty,
        _ => AccountEvent::Careless(account(rng)),
    };
    (id, event)
}

#[test]
fn any_batches_give_the_rows_of_one_event_after_the_other() {
    let seed = std::env::var("ANNALS_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().expect("a number"));
    println!("ANNALS_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    for _ in 0..60 {
        let events: Vec<_> = (0..rng.usize(1..24)).map(|_| random_event(&mut rng)).collect();
        let given = given_events(events.iter().map(|(id, event)| (id.as_str(), event.clone())));
        let expected = model(&typed(&given));
        given.with(Accounts).across_tenants().then_rows(expected);
    }
}
