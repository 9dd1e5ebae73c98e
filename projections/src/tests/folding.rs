//! Rounds of a fold: what it asks for, what it makes, and where it ends.

use std::sync::Arc;

use annals_eventstore::Position;

use super::accounts::{Account, AccountEvent, Accounts};
use crate::batch::{Batch, Decoder};
use crate::changes::Changes;
use crate::column::{Column, ColumnValue};
use crate::error::StopCause;
use crate::fold::Fold;
use crate::folding::{Folding, Outcome, Step};
use crate::memory_table::MemoryTable;
use crate::read_model::ReadModel;
use crate::rows::Rows;
use crate::slot::Slot;
use crate::testing::given_events;
use crate::{Projection, RowError};

type Given<'a> = Vec<(&'a str, AccountEvent)>;

/// Folds the events as one batch over a table, and tells which keys were asked for, round by round.
fn fold(events: Given<'_>, table: &MemoryTable) -> (Outcome, Vec<Vec<String>>) {
    let given = given_events(events);
    let batch = Batch::decode(given.recorded(), &[Decoder::of::<AccountEvent>()]);
    let mut folding = Folding::of(Box::new(Fold::new(Arc::new(Accounts), None, &batch, Position::START, Slot::WHOLE)));
    let mut asked = Vec::new();
    loop {
        match folding.step() {
            Step::Ready(outcome) => return (*outcome, asked),
            Step::Load(keys) => {
                let mut names: Vec<_> = keys.iter().map(|key| key[0].to_string()).collect();
                names.sort();
                asked.push(names);
                folding.supply(table.load(&keys));
            }
        }
    }
}

/// A table with accounts of these cents, each linked to the next one named.
fn table(accounts: &[(&str, i64, Option<&str>)]) -> MemoryTable {
    let mut table = MemoryTable::new(Account::TABLE);
    let written = accounts
        .iter()
        .map(|(id, cents, next)| {
            Account { next: next.map(str::to_owned), ..Account::new(id, *cents, jiff::Timestamp::UNIX_EPOCH) }
                .to_columns()
        })
        .collect();
    table.write(&crate::changes::Changes { written, ..Default::default() });
    table
}

/// The ids and cents of the rows that an outcome writes.
fn written(outcome: &Outcome) -> Vec<(String, i64)> {
    let row = |columns: &Vec<ColumnValue>| Account::from_columns(&mut columns.clone().into_iter()).unwrap();
    outcome.changes.written.iter().map(row).map(|account| (account.id, account.cents)).collect()
}

fn pair(id: &str, cents: i64) -> (String, i64) {
    (id.to_owned(), cents)
}

#[test]
fn missing_rows_of_a_batch_are_asked_for_at_once_and_each_once() {
    let events = vec![
        ("a", AccountEvent::Paid(1)),
        ("b", AccountEvent::Paid(2)),
        ("a", AccountEvent::Paid(4)),
        ("c", AccountEvent::Moved { to: "a".into(), cents: 8 }),
    ];
    let (outcome, asked) = fold(events, &table(&[("a", 100, None)]));
    // `c` is missing, so the event that moves to `a` ends there in the first round; `a` is known by then.
    assert_eq!(asked, [["\"a\"", "\"b\"", "\"c\""].map(str::to_owned).to_vec()]);
    assert_eq!(written(&outcome), [pair("a", 113), pair("b", 2)]);
    assert_eq!(outcome.applied, 4);
}

#[test]
fn a_row_that_names_another_costs_a_round_each() {
    let stored = table(&[("a", 0, Some("b")), ("b", 0, Some("c")), ("c", 5, None)]);
    let (outcome, asked) = fold(vec![("a", AccountEvent::PaidAtTheEnd(7))], &stored);
    assert_eq!(asked, [vec!["\"a\"".to_owned()], vec!["\"b\"".to_owned()], vec!["\"c\"".to_owned()]]);
    assert_eq!(written(&outcome), [pair("c", 12)]);
}

#[test]
fn upsert_and_remove_load_nothing() {
    let (outcome, asked) =
        fold(vec![("a", AccountEvent::Opened), ("b", AccountEvent::Closed)], &table(&[("b", 1, None)]));
    assert!(asked.is_empty(), "{asked:?}");
    assert_eq!(written(&outcome), [pair("a", 0)]);
    assert_eq!(outcome.changes.removed, [vec!["b".to_owned().to_column()]]);
}

#[test]
fn a_row_removed_and_made_again_in_a_batch_is_written_once() {
    let events = vec![("a", AccountEvent::Closed), ("a", AccountEvent::Paid(3))];
    let (outcome, asked) = fold(events, &table(&[("a", 100, None)]));
    assert!(asked.is_empty(), "that it is gone is known: {asked:?}");
    assert_eq!(written(&outcome), [pair("a", 3)]);
    assert!(outcome.changes.removed.is_empty());
}

#[test]
fn a_row_made_and_removed_in_a_batch_is_removed_without_a_write() {
    let (outcome, _) = fold(vec![("a", AccountEvent::Opened), ("a", AccountEvent::Closed)], &table(&[]));
    assert!(outcome.changes.written.is_empty());
    assert_eq!(outcome.changes.removed.len(), 1, "whether the table has it was never asked");
}

#[test]
fn a_row_that_ends_as_it_was_is_not_written() {
    let events = vec![
        ("a", AccountEvent::Moved { to: "b".into(), cents: 5 }),
        ("b", AccountEvent::Moved { to: "a".into(), cents: 5 }),
    ];
    let (outcome, _) = fold(events, &table(&[("a", 1, None), ("b", 2, None)]));
    assert!(outcome.changes == Changes::default(), "{:?}", outcome.changes);
    assert_eq!(outcome.applied, 2);
}

#[test]
fn removing_what_is_known_to_be_absent_writes_nothing() {
    let events = vec![("a", AccountEvent::LooksUp("b".into())), ("b", AccountEvent::Closed)];
    let (outcome, _) = fold(events, &table(&[]));
    assert!(outcome.changes == Changes::default(), "{:?}", outcome.changes);
}

#[test]
fn swallowing_the_error_of_a_lookup_changes_nothing() {
    // The fold takes "not loaded" for "not there" and makes a row that must never be seen.
    let (outcome, asked) = fold(vec![("a", AccountEvent::Careless("b".into()))], &table(&[("b", 1, None)]));
    assert_eq!(asked.len(), 1);
    assert!(outcome.changes == Changes::default(), "{:?}", outcome.changes);
}

#[test]
fn an_event_that_cannot_be_applied_ends_the_batch_before_it() {
    let events = vec![("a", AccountEvent::Paid(1)), ("b", AccountEvent::Refused), ("c", AccountEvent::Paid(2))];
    let (outcome, _) = fold(events, &table(&[]));
    assert_eq!(outcome.applied, 1);
    assert_eq!(written(&outcome), [pair("a", 1)], "nothing of the refused event or of those behind it");
    let stop = outcome.stop.expect("it stopped");
    let event = stop.event.expect("an event is to blame");
    assert_eq!(event.to_string(), "event `refused` at position 2 (`default/aggregate/b`, version 1)");
    assert!(matches!(&stop.cause, StopCause::Apply(source) if source.to_string() == "the domain says no"));
}

#[test]
fn a_panic_is_an_error_like_any_other() {
    let (outcome, _) = fold(vec![("a", AccountEvent::Opened), ("b", AccountEvent::Panicking)], &table(&[]));
    assert_eq!(written(&outcome), [pair("a", 0)]);
    let stop = outcome.stop.expect("it stopped");
    assert!(matches!(&stop.cause, StopCause::Panicked(text) if text == "the fold has a fault"), "{stop:?}");
}

#[test]
fn a_failure_behind_a_missing_row_is_judged_when_the_row_is_there() {
    // In the first round both fail; only the second means it.
    let events = vec![("a", AccountEvent::Paid(1)), ("b", AccountEvent::Refused)];
    let (outcome, asked) = fold(events, &table(&[("a", 1, None)]));
    assert_eq!(asked.len(), 1);
    assert_eq!(outcome.applied, 1);
    assert_eq!(written(&outcome), [pair("a", 2)]);
}

#[test]
fn a_row_that_no_table_can_hold_is_the_fault_of_its_event() {
    let mut events: Given<'_> = (0..20).map(|_| ("a", AccountEvent::Paid(1))).collect();
    events.insert(13, ("b", AccountEvent::NotANumber));
    let (outcome, _) = fold(events, &table(&[]));
    assert_eq!(outcome.applied, 13);
    assert_eq!(written(&outcome), [pair("a", 13)]);
    let stop = outcome.stop.expect("it stopped");
    assert_eq!(stop.event.expect("an event is to blame").name.as_ref(), "not_a_number");
    assert_eq!(
        stop.cause.to_string(),
        "a row of `accounts`: column `share` is NaN, which SQLite would store as null; use an `Option`"
    );
}

#[test]
fn a_row_keeps_its_key() {
    let (outcome, _) = fold(vec![("a", AccountEvent::Opened), ("a", AccountEvent::Rekeyed("b".into()))], &table(&[]));
    assert_eq!(outcome.applied, 1);
    let stop = outcome.stop.expect("it stopped");
    assert!(matches!(stop.cause, StopCause::Row(RowError::KeyChanged { .. })), "{stop:?}");
}

#[test]
fn a_key_that_no_table_can_hold_is_never_looked_up() {
    let events = vec![("a", AccountEvent::Paid(1)), ("b", AccountEvent::LooksUp("long".repeat(700)))];
    let (outcome, asked) = fold(events, &table(&[]));
    assert_eq!(asked, [vec!["\"a\"".to_owned()]], "the good key before it is loaded");
    assert_eq!(outcome.applied, 1);
    let stop = outcome.stop.expect("it stopped");
    assert_eq!(stop.event.expect("an event is to blame").name.as_ref(), "looks_up");
}

#[test]
fn a_long_chain_from_event_to_event_is_folded_in_parts_and_loses_nothing() {
    // Each event goes one link further than the rows of the event before it tell: a round per event.
    let ids: Vec<String> = (0..40).map(|n| format!("n{n:02}")).collect();
    let links: Vec<_> =
        ids.iter().enumerate().map(|(n, id)| (id.as_str(), 0, ids.get(n + 1).map(String::as_str))).collect();
    let events = (0..40).map(|_| ("n00", AccountEvent::PaidAtTheEnd(1))).collect();
    let (outcome, asked) = fold(events, &table(&links));
    assert_eq!(outcome.applied, 10, "the chain is longer than the rounds a whole batch gets");
    assert_eq!(asked.len(), 40, "a row is loaded once, however often the round is begun anew");
    assert_eq!(written(&outcome), [pair("n39", 10)]);
}

/// A fold that looks up another row each time it runs.
struct Impure(std::sync::atomic::AtomicI64);

impl Projection for Impure {
    type Event = AccountEvent;
    type Row = Account;

    fn apply(
        &self,
        _: &annals_eventstore::Recorded<AccountEvent>,
        rows: &mut Rows<Account>,
    ) -> Result<(), crate::ProjectionError> {
        let id = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        rows.get(&id.to_string())?;
        Ok(())
    }
}

#[test]
fn a_fold_that_never_has_enough_is_stopped() {
    let given = given_events(vec![("a", AccountEvent::Opened), ("b", AccountEvent::Opened)]);
    let batch = Batch::decode(given.recorded(), &[Decoder::of::<AccountEvent>()]);
    let impure = Arc::new(Impure(Default::default()));
    let mut folding = Folding::of(Box::new(Fold::new(impure, None, &batch, Position::START, Slot::WHOLE)));
    let outcome = loop {
        match folding.step() {
            Step::Ready(outcome) => break *outcome,
            Step::Load(_) => folding.supply(Vec::new()),
        }
    };
    assert_eq!(outcome.applied, 0);
    assert!(matches!(outcome.stop.expect("it stopped").cause, StopCause::NeverSatisfied(_)));
}

#[test]
fn a_row_from_the_table_that_nobody_asked_for_is_refused() {
    let given = given_events(vec![("a", AccountEvent::Paid(1))]);
    let batch = Batch::decode(given.recorded(), &[Decoder::of::<AccountEvent>()]);
    let mut folding = Folding::of(Box::new(Fold::new(Arc::new(Accounts), None, &batch, Position::START, Slot::WHOLE)));
    assert!(matches!(folding.step(), Step::Load(_)));
    let other = Account::new("z", 1, jiff::Timestamp::UNIX_EPOCH).to_columns();
    folding.supply(vec![other]);
    let Step::Ready(outcome) = folding.step() else { panic!("it asks again") };
    let stop = outcome.stop.expect("it stopped");
    assert!(matches!(stop.cause, StopCause::Row(RowError::Foreign { .. })), "{stop:?}");
}

#[test]
fn changes_stand_in_the_order_of_their_keys() {
    let events = ["d", "b", "a", "c"].map(|id| (id, AccountEvent::Opened)).to_vec();
    let (outcome, _) = fold(events, &table(&[]));
    assert_eq!(written(&outcome).into_iter().map(|(id, _)| id).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
}

/// Asks for so many rows of its own, one after the other, as an event says.
struct InALoop;

impl Projection for InALoop {
    type Event = AccountEvent;
    type Row = Account;

    fn apply(
        &self,
        event: &annals_eventstore::Recorded<AccountEvent>,
        rows: &mut Rows<Account>,
    ) -> Result<(), crate::ProjectionError> {
        let AccountEvent::Paid(count) = event.event else { return Ok(()) };
        for n in 0..count {
            let id = format!("{}-{n}", event.stream.aggregate_id());
            rows.get_or_insert_with(&id, || Account::new(&id, 0, event.recorded_at))?.cents += 1;
        }
        Ok(())
    }
}

/// Folds events as one batch over an empty table; how many were applied and rows written, and in how many rounds.
fn fold_in_a_loop(events: Given<'_>) -> (usize, usize, usize) {
    let given = given_events(events);
    let batch = Batch::decode(given.recorded(), &[Decoder::of::<AccountEvent>()]);
    let mut folding = Folding::of(Box::new(Fold::new(Arc::new(InALoop), None, &batch, Position::START, Slot::WHOLE)));
    let mut rounds = 0;
    loop {
        match folding.step() {
            Step::Ready(outcome) => return (outcome.applied, outcome.changes.written.len(), rounds),
            Step::Load(_) => folding.supply(Vec::new()),
        }
        rounds += 1;
    }
}

/// An order of many lines must not stop a projection for ever.
#[test]
fn an_event_may_ask_for_more_than_a_thousand_rows_in_a_loop() {
    assert_eq!(fold_in_a_loop(vec![("a", AccountEvent::Paid(1_200))]), (1, 1_200, 1_200));
}

/// Else each batch is folded and committed many times over, in small parts.
#[test]
fn events_that_ask_for_rows_in_a_loop_are_folded_in_one_go() {
    let ids: Vec<String> = (0..200).map(|n| format!("n{n}")).collect();
    let events = ids.iter().map(|id| (id.as_str(), AccountEvent::Paid(50))).collect();
    assert_eq!(fold_in_a_loop(events), (200, 10_000, 50));
}
