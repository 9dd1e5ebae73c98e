//! Stream projections: a batch loads its rows at once, and rows of two streams never meet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use annals_eventstore::{AsOf, Position, Recorded, RecordedEvent, StreamId, Tenant};
use annals_macros::ReadModel;

use super::accounts::{Account, AccountEvent};
use super::fixture::Fixture;
use crate::batch::{Batch, Decoder};
use crate::changes::Changes;
use crate::column::ColumnValue;
use crate::error::StopCause;
use crate::folding::{Folding, Outcome, Step};
use crate::member::{AnyProjection, Typed};
use crate::memory_table::MemoryTable;
use crate::projection::Projection;
use crate::slot::Slot;
use crate::testing::{GivenEvent, given_events};
use crate::{ProjectionError, ReadModel, RowError, StreamKey, StreamProjection, StreamRow};

/// One account per stream, which counts how often it was asked to apply an event.
#[derive(Default)]
pub(super) struct PerAccount {
    pub(super) applied: Arc<AtomicUsize>,
}

impl StreamProjection for PerAccount {
    type Event = AccountEvent;
    type Row = Account;
    const AGGREGATES: &'static [&'static str] = &["account"];
    const NAME: &'static str = "accounts";

    fn apply(&self, event: &Recorded<AccountEvent>, row: &mut StreamRow<'_, Account>) -> Result<(), ProjectionError> {
        self.applied.fetch_add(1, Ordering::Relaxed);
        let new = Account::new(row.key(), 0, event.recorded_at);
        match &event.event {
            AccountEvent::Opened => row.insert(new),
            AccountEvent::Paid(cents) => row.get_or_insert_with(|| new).cents += cents,
            AccountEvent::PaidStrictly(cents) => row.require()?.cents += cents,
            AccountEvent::Linked(to) => {
                if let Some(row) = row.get_mut() {
                    row.next = Some(to.clone());
                }
            }
            AccountEvent::Closed => row.remove(),
            AccountEvent::ClosedIfEmpty if row.get().is_some_and(|row| row.cents == 0) => row.remove(),
            // What is half done when an event fails must leave no trace.
            AccountEvent::Refused => {
                row.get_or_insert_with(|| new).cents = -1;
                return Err(ProjectionError::new("the domain says no"));
            }
            AccountEvent::Panicking => {
                row.insert(Account { cents: -2, ..new });
                panic!("the fold has a fault");
            }
            AccountEvent::NotANumber => row.insert(Account { share: f64::NAN, ..new }),
            AccountEvent::Rekeyed(id) => row.insert(Account { id: id.clone(), ..new }),
            _ => {}
        }
        Ok(())
    }
}

pub(super) type Events<'a> = Vec<(&'a str, AccountEvent)>;

pub(super) fn recorded(events: Events<'_>) -> Vec<RecordedEvent> {
    let of_accounts = |(id, event): (&str, AccountEvent)| GivenEvent::of("account", id, event);
    given_events(events.into_iter().map(of_accounts)).recorded().to_vec()
}

pub(super) fn stream(id: &str) -> StreamId {
    StreamId::new(Tenant::default(), "account", id).unwrap()
}

/// Folds the events as one batch over a table, and says how many keys were asked for, round by round.
pub(super) fn fold(
    projection: impl Projection,
    events: &[RecordedEvent],
    table: &MemoryTable,
    parked: Option<&[&str]>,
) -> (Outcome, Vec<usize>) {
    let batch = Batch::decode(events, &[Decoder::of::<AccountEvent>()]);
    let mut folding = Folding::of(Typed::new(projection).fold(&batch, Position::START, Slot::WHOLE));
    if let Some(parked) = parked {
        folding = folding.parking(Arc::new(parked.iter().map(|id| (stream(id), Position::START)).collect()));
    }
    let mut asked = Vec::new();
    loop {
        match folding.step() {
            Step::Ready(outcome) => return (*outcome, asked),
            Step::Load(keys) => {
                asked.push(keys.len());
                folding.supply(table.load(&keys));
            }
        }
    }
}

pub(super) fn nothing() -> MemoryTable {
    MemoryTable::new(Account::TABLE)
}

pub(super) fn table(accounts: &[(&str, i64)]) -> MemoryTable {
    let row = |(id, cents): &(&str, i64)| Account::new(id, *cents, jiff::Timestamp::UNIX_EPOCH).to_columns();
    let mut table = nothing();
    table.write(&Changes { written: accounts.iter().map(row).collect(), ..Changes::default() });
    table
}

pub(super) fn written(outcome: &Outcome) -> Vec<(String, i64)> {
    let row = |columns: &Vec<ColumnValue>| Account::from_columns(&mut columns.clone().into_iter()).unwrap();
    outcome.changes.written.iter().map(row).map(|account| (account.id, account.cents)).collect()
}

pub(super) fn pair(id: &str, cents: i64) -> (String, i64) {
    (id.to_owned(), cents)
}

#[test]
fn all_rows_of_a_batch_are_loaded_at_once_and_none_before_the_first_event_of_its_stream() {
    let begin = ["a", "b", "c"].iter().flat_map(|id| [(*id, AccountEvent::Paid(1)), (*id, AccountEvent::Paid(1))]);
    let more = [("a", AccountEvent::PaidStrictly(4)), ("b", AccountEvent::Paid(5)), ("c", AccountEvent::Closed)];
    let mut begin = recorded(begin.chain(more).chain([("a", AccountEvent::Paid(6))]).collect());
    let later = begin.split_off(6);
    let (outcome, asked) = fold(PerAccount::default(), &begin, &nothing(), None);
    assert_eq!(asked, [0; 0], "streams that begin have no rows yet");
    assert_eq!(written(&outcome), [pair("a", 2), pair("b", 2), pair("c", 2)]);

    let applied = Arc::default();
    let counted = PerAccount { applied: Arc::clone(&applied) };
    let (outcome, asked) = fold(counted, &later, &table(&[("a", 2), ("b", 2), ("c", 2)]), None);
    assert_eq!(asked, [3], "one round, each row once");
    assert_eq!((written(&outcome), outcome.changes.removed.len()), (vec![pair("a", 12), pair("b", 7)], 1));
    assert_eq!(applied.load(Ordering::Relaxed), 4, "the fold never runs without its row");
}

/// Says why the projection stops at the event with this number, from 0; with and without parking, as the declaration is wrong.
fn undeclared(events: &[RecordedEvent], at: usize) -> String {
    let parks = fold(PerAccount::default(), events, &nothing(), Some(&[])).0;
    let outcome = fold(PerAccount::default(), events, &nothing(), None).0;
    assert_eq!((outcome.applied, parks.applied, parks.parked.len()), (at, at, 0));
    let StopCause::Undeclared(invalid) = outcome.stop.unwrap().cause else { panic!("it must be the declaration") };
    assert!(matches!(parks.stop.unwrap().cause, StopCause::Undeclared(other) if other == invalid));
    invalid.to_string()
}

/// An order and a payment may have one id: the row would be a mixture of both.
#[test]
fn a_stream_of_another_aggregate_type_never_gets_into_the_row_of_one_with_the_same_id() {
    let events =
        [GivenEvent::of("account", "7", AccountEvent::Paid(1)), GivenEvent::of("loan", "7", AccountEvent::Paid(2))];
    assert_eq!(
        undeclared(given_events(events).recorded(), 1),
        "`aggregate_type` `loan` is not one of those that `accounts` has rows for: [\"account\"]; leave the event out of the \
         projection's type of events, or name the aggregate type in `AGGREGATES`, with a key that has it"
    );
}

#[test]
fn a_stream_of_another_tenant_never_gets_into_the_row_of_one_with_the_same_id() {
    let north = || Tenant::new("north").unwrap();
    let paid = || GivenEvent::of("account", "7", AccountEvent::Paid(1));
    let events = given_events([paid(), paid().tenant(north())]);
    assert_eq!(
        undeclared(events.recorded(), 1),
        "`tenant` `north` is not the default tenant, whose streams alone have rows in `accounts`; declare the read model \
         `per_tenant`, or give the projection one tenant by `tenant` or `for_tenant`"
    );

    // One tenant that the runner has chosen is as good as the default tenant.
    let mut typed = Typed::new(PerAccount::default());
    typed.set_tenant(north());
    let batch = Batch::decode(events.recorded(), &[Decoder::of::<AccountEvent>()]);
    let Step::Ready(outcome) = Folding::of(typed.fold(&batch, Position::START, Slot::WHOLE)).step() else {
        panic!("the stream begins, so nothing is loaded");
    };
    assert_eq!((written(&outcome), outcome.stop.is_none()), (vec![pair("7", 1)], true));
}

/// `007` and `7` are two streams and one number.
#[test]
fn two_ids_that_are_read_as_the_same_never_share_a_row() {
    let of = |id: &str| StreamId::new(Tenant::default(), "account", id).unwrap();
    assert_eq!(u32::of_stream(&of("7")), Ok(7));
    assert_eq!(
        u32::of_stream(&of("007")).unwrap_err().to_string(),
        "`aggregate_id` `007` is read as the u32 `7`, which names another stream; make the key a type that reads the id and \
         displays it as it was, `String` say"
    );
    assert!(u32::of_stream(&of("o-7")).unwrap_err().to_string().contains("`o-7` is not a u32"));
    let id = uuid::Uuid::from_u128(0xab);
    assert_eq!(uuid::Uuid::of_stream(&of(&id.to_string())), Ok(id));
    assert!(uuid::Uuid::of_stream(&of(&id.to_string().to_uppercase())).is_err());
    assert!(uuid::Uuid::of_stream(&of(&id.simple().to_string())).is_err());
    assert_eq!(<(Tenant, String, u32)>::of_stream(&of("7")), Ok((Tenant::default(), "account".to_owned(), 7)));
}

#[test]
fn the_key_of_a_row_leads_back_to_its_stream() {
    let north = Tenant::new("north").unwrap();
    let stream = StreamId::new(north.clone(), "loan", "7").unwrap();
    fn check<K: StreamKey>(stream: &StreamId, tenant: &Tenant, aggregate_type: &str) {
        let led = K::of_stream(stream).unwrap().to_stream(tenant, aggregate_type).unwrap();
        assert_eq!(led, *stream, "{}", std::any::type_name::<K>());
    }
    check::<u32>(&stream, &north, "loan");
    check::<(String, u32)>(&stream, &north, "account");
    check::<(Tenant, u32)>(&stream, &Tenant::default(), "loan");
    check::<(Tenant, String, u32)>(&stream, &Tenant::default(), "account");
    let refused = String::new().to_stream(&north, "loan").unwrap_err();
    assert_eq!(refused.field, "aggregate_id");
}

#[test]
fn a_row_with_the_key_of_another_stream_is_never_written() {
    let events =
        vec![("a", AccountEvent::Opened), ("b", AccountEvent::Rekeyed("a".into())), ("a", AccountEvent::Paid(1))];
    let (outcome, _) = fold(PerAccount::default(), &recorded(events), &nothing(), None);
    assert_eq!((outcome.applied, written(&outcome)), (1, vec![pair("a", 0)]));
    let StopCause::Row(error @ RowError::OfAnotherStream { .. }) = outcome.stop.unwrap().cause else {
        panic!("it must be the key")
    };
    assert_eq!(
        error.to_string(),
        "a row with another key than that of its stream was inserted into `accounts`; take the key from `StreamRow::key`"
    );
}

/// What happens to each stream, whatever it is of: a key with all parts of a stream's name.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "activity", key("of", "kind", "id"))]
struct Activity {
    of: Tenant,
    kind: String,
    id: String,
    events: i64,
}

struct Activities;

impl StreamProjection for Activities {
    type Event = AccountEvent;
    type Row = Activity;
    const AGGREGATES: &'static [&'static str] = &["account", "loan"];

    fn apply(&self, _: &Recorded<AccountEvent>, row: &mut StreamRow<'_, Activity>) -> Result<(), ProjectionError> {
        let (of, kind, id) = row.key().clone();
        row.get_or_insert_with(|| Activity { of, kind, id, events: 0 }).events += 1;
        Ok(())
    }
}

#[test]
fn streams_that_differ_in_any_part_of_their_names_have_rows_of_their_own_if_the_key_has_it() {
    let paid = |kind: &str, id: &str| GivenEvent::of(kind, id, AccountEvent::Paid(1));
    let north = || Tenant::new("north").unwrap();
    let row = |of: Tenant, kind: &str, id: &str, events| Activity { of, kind: kind.into(), id: id.into(), events };
    given_events([paid("account", "7"), paid("loan", "7"), paid("account", "7").tenant(north()), paid("loan", "7")])
        .with(Activities.slots(64))
        .then_rows([
            row(Tenant::default(), "account", "7", 1),
            row(Tenant::default(), "loan", "7", 2),
            row(north(), "account", "7", 1),
        ]);
}

pub(super) async fn a_stream_projection_runs_reads_and_waits_as_any_other(shop: Fixture) {
    let views = shop.projections().with(PerAccount::default().slots(4)).start().await.unwrap();
    for n in 0..20 {
        shop.append(&format!("a{n:02}"), [AccountEvent::Opened, AccountEvent::Paid(n)]).await;
    }
    let at = shop.append("a07", [AccountEvent::Closed]).await;
    views.wait_for_one::<PerAccount>(at, shop.soon()).await.unwrap();
    let expected: Vec<_> = (0..20).filter(|n| *n != 7).map(|n| pair(&format!("a{n:02}"), n)).collect();
    assert_eq!(shop.rows::<PerAccount>().await, expected, "no slot is left out");
    assert_eq!(views.as_of::<PerAccount>(AsOf::position(at)).await.unwrap().rows.len(), 19);
    views.close().await;
}
