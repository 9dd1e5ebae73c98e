mod account;
mod observed;
mod programs;
mod snapshots;
mod spy;
mod turns;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod within;

use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use account::{Account, Moved, Settle, Short};
use spy::{Call, Fault, Spy};

use super::cache::Known;
use super::{AggregateStore, ExecuteError, Executed, Repository};
use crate::aggregate::{Aggregate, Evolve, SnapshotPolicy};
use crate::append::{Append, Appended};
use crate::context::Context;
use crate::error::{AppendError, BackendError, ErrorFamily, Invalid, ReadError};
use crate::event::{EventId, NewEvent, RecordedEvent};
use crate::memory::MemoryStore;
use crate::metadata::{Actor, CausationId, CorrelationId, TraceParent};
use crate::position::{Incarnation, Position};
use crate::read::EventStoreExt;
use crate::request::{Fingerprint, RequestKey};
use crate::store::EventStore;
use crate::stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};

const LOAD_NOTHING: Call = Call::Load { after: 0, events: 0 };

fn stream(id: &str) -> StreamId {
    StreamId::new(Tenant::default(), "account", id).unwrap()
}

fn id() -> String {
    "a".to_owned()
}

/// An append of another writer.
fn rival(expected: ExpectedVersion, events: &[Moved]) -> Append {
    let new = |event| NewEvent::of(EventId::new(uuid::Uuid::from_u128(fastrand::u128(1..))).unwrap(), event).unwrap();
    Append::to(stream("a"), expected, events.iter().map(new).collect())
}

fn paid_in(amount: i64) -> Append {
    rival(ExpectedVersion::Any, &[Moved::In(amount)])
}

fn request(key: &str, body: &str) -> Context {
    Context::default().with_request(RequestKey::new(key, Fingerprint::of(body).unwrap()).unwrap())
}

fn deposit(amount: i64) -> impl Fn(&Account) -> Result<Moved, Infallible> {
    move |_| Ok(Moved::In(amount))
}

async fn stored(spy: &Spy) -> Vec<RecordedEvent> {
    spy.inner.load_page(&stream("a"), StreamVersion::NONE, 1_000).await.unwrap().events
}

/// A store in which account `a` has one deposit of 100, made through the repository, with no calls counted so far.
async fn opened() -> (Spy, Repository<Account>) {
    opened_on(Spy::new()).await
}

async fn opened_on(spy: Spy) -> (Spy, Repository<Account>) {
    let accounts = spy.aggregate::<Account>();
    accounts.execute(&id(), deposit(100)).await.unwrap();
    spy.calls();
    (spy, accounts)
}

fn version(n: i64) -> StreamVersion {
    StreamVersion::new(n).unwrap()
}

// ---- loading and the usual command

#[tokio::test]
async fn what_has_no_events_loads_as_the_default_state_at_version_0() {
    let spy = Spy::new();
    let loaded = spy.aggregate::<Account>().load(&id()).await.unwrap();
    assert_eq!(*loaded.state, Account::default());
    assert_eq!((loaded.version, loaded.exists()), (StreamVersion::NONE, false));
    assert_eq!(loaded.stream, stream("a"));
}

#[tokio::test]
async fn a_command_returns_what_it_did() {
    let (_, accounts) = opened().await;
    let done = accounts.execute(&id(), |_| Ok::<_, Infallible>([Moved::In(1), Moved::Out(2)])).await.unwrap();
    let Executed { stream: of, version: at, state, position, events, recorded_at, repeated } = done;
    assert_eq!((of, at, state.balance, events, repeated), (stream("a"), version(3), 99, 2, false));
    assert_eq!(position, Position::new(3).unwrap());
    assert!(recorded_at.is_some());
    assert_eq!(accounts.load(&id()).await.unwrap().state.balance, 99);
}

#[tokio::test]
async fn the_first_command_reads_and_the_usual_one_only_appends() {
    let spy = Spy::new();
    let accounts = spy.aggregate::<Account>();
    accounts.execute(&id(), deposit(100)).await.unwrap();
    assert_eq!(spy.calls(), [LOAD_NOTHING, Call::Append]);
    // A clone, and one bound to other circumstances, share the cache.
    accounts.clone().execute(&id(), |a| a.withdraw(30)).await.unwrap();
    accounts.with(Context::default()).execute(&id(), |a| a.withdraw(70)).await.unwrap();
    assert_eq!(spy.calls(), [Call::Append, Call::Append]);
}

#[tokio::test]
async fn load_always_reads_what_is_new_and_only_that() {
    let (spy, accounts) = opened().await;
    spy.inner.append_many(paid_in(5)).await.unwrap();
    let loaded = accounts.load(&id()).await.unwrap();
    assert_eq!((loaded.state.balance, loaded.version), (105, version(2)));
    // With the last event that was known, as the proof that what follows belongs to it.
    assert_eq!(spy.calls(), [Call::Load { after: 0, events: 2 }]);
    accounts.load(&id()).await.unwrap();
    assert_eq!(spy.calls(), [Call::Load { after: 1, events: 1 }]);
}

#[tokio::test]
async fn a_long_stream_is_read_to_its_end_page_by_page() {
    let spy = Spy::new().paged(2);
    spy.inner.append_many(rival(ExpectedVersion::Any, &[Moved::In(1), Moved::In(2), Moved::In(4)])).await.unwrap();
    spy.inner.append_many(rival(ExpectedVersion::Any, &[Moved::In(8), Moved::In(16)])).await.unwrap();
    let loaded = spy.aggregate::<Account>().load(&id()).await.unwrap();
    assert_eq!((loaded.state.balance, loaded.version), (31, version(5)));
    let pages = [(0, 2), (1, 2), (2, 2), (3, 2)].map(|(after, events)| Call::Load { after, events });
    assert_eq!(spy.calls(), pages);
}

#[tokio::test]
async fn without_a_cache_every_command_reads() {
    let (spy, accounts) = opened().await;
    let accounts = accounts.without_cache();
    for _ in 0..2 {
        accounts.execute(&id(), |a| a.withdraw(1)).await.unwrap();
    }
    let calls = spy.calls();
    assert_eq!(
        calls,
        [Call::Load { after: 0, events: 1 }, Call::Append, Call::Load { after: 0, events: 2 }, Call::Append]
    );
}

#[tokio::test]
async fn the_cache_is_bounded() {
    let spy = Spy::new();
    let accounts = spy.aggregate::<Account>().cache(3);
    for n in 0..50 {
        accounts.execute(&n.to_string(), deposit(1)).await.unwrap();
    }
    spy.calls();
    for n in 0..50 {
        accounts.execute(&n.to_string(), deposit(1)).await.unwrap();
    }
    let read = spy.calls().iter().filter(|c| **c != Call::Append).count();
    assert!(read >= 40, "only {read} of 50 were not in a cache of 3");
}

#[tokio::test]
async fn ids_that_no_store_could_hold_are_refused() {
    let (spy, accounts) = opened().await;
    for bad in ["", "a\0", "$all", &"x".repeat(201)] {
        let error = accounts.execute(&bad.to_owned(), deposit(1)).await.unwrap_err();
        assert!(matches!(&error, ExecuteError::Invalid(e) if e.field == "aggregate_id"), "{error}");
        assert!(
            matches!(accounts.load(&bad.to_owned()).await, Err(ReadError::Invalid(e)) if e.field == "aggregate_id")
        );
    }
    assert_eq!(spy.calls(), []);
}

#[tokio::test]
async fn a_kind_that_no_store_could_hold_is_refused() {
    #[derive(Clone, Debug, Default)]
    struct Nameless;
    impl Aggregate for Nameless {
        const TYPE: &'static str = "$all";
        const FOLD: u32 = 1;
        const SNAPSHOT: SnapshotPolicy = SnapshotPolicy::Never;
        type Id = String;
        type Event = Moved;
    }
    impl Evolve for Nameless {
        fn evolve(&mut self, _: &Moved) {}
    }
    let error = Spy::new().aggregate::<Nameless>().load(&id()).await.unwrap_err();
    assert!(matches!(error, ReadError::Invalid(e) if e.field == "aggregate_type"));
}

#[tokio::test]
async fn a_stream_with_a_gap_is_damaged_and_not_folded() {
    let (spy, _) = opened().await;
    spy.inner.append_many(rival(ExpectedVersion::Any, &[Moved::In(1), Moved::In(2)])).await.unwrap();
    let error = spy.without(2).aggregate::<Account>().load(&id()).await.unwrap_err();
    let ReadError::Damaged { position, what } = &error else { panic!("{error}") };
    assert_eq!(*position, Position::new(3).unwrap());
    assert_eq!(what, "`default/account/a` continues after version 1 with version 3");
}

// ---- rejections and decisions without events

#[tokio::test]
async fn a_rejection_on_a_cached_state_is_decided_again_on_what_is_new() {
    let (spy, accounts) = opened().await;
    spy.inner.append_many(paid_in(50)).await.unwrap();
    let done = accounts.execute(&id(), |a| a.withdraw(150)).await.unwrap();
    assert_eq!(done.version, version(3));
    assert_eq!(spy.calls(), [Call::Load { after: 0, events: 2 }, Call::Append]);
}

#[tokio::test]
async fn a_rejection_on_the_newest_state_is_returned_and_leaves_no_trace() {
    let (spy, accounts) = opened().await;
    let error = accounts.execute(&id(), |a| a.withdraw(150)).await.unwrap_err();
    assert_eq!(error.family(), None);
    assert_eq!(error.to_string(), "50 short");
    assert_eq!(error.rejection(), Some(Short { short: 50 }));
    assert_eq!(spy.calls(), [Call::Load { after: 0, events: 1 }]);
    assert_eq!(stored(&spy).await.len(), 1);
}

#[tokio::test]
async fn no_events_on_a_cached_state_is_decided_again_on_what_is_new() {
    let (spy, accounts) = opened().await;
    let idle = accounts.send(&id(), Settle(100)).await.unwrap();
    assert_eq!((idle.version, idle.events, idle.position, idle.recorded_at), (version(1), 0, Position::START, None));
    assert_eq!(spy.calls(), [Call::Load { after: 0, events: 1 }]);
    spy.inner.append_many(paid_in(1)).await.unwrap();
    let done = accounts.send(&id(), Settle(100)).await.unwrap();
    assert_eq!((done.version, done.events), (version(3), 1));
    assert_eq!(accounts.load(&id()).await.unwrap().state.balance, 100);
}

// ---- conflicts

#[tokio::test]
async fn a_conflict_reads_only_what_is_new_and_decides_again() {
    let (spy, accounts) = opened().await;
    spy.next([Fault::Rival(paid_in(7)), Fault::Rival(paid_in(3))]);
    let seen = std::sync::Mutex::new(Vec::new());
    let done = accounts
        .execute(&id(), |a| {
            seen.lock().unwrap().push(a.balance);
            a.withdraw(60)
        })
        .await
        .unwrap();
    assert_eq!(*seen.lock().unwrap(), [100, 107, 110]);
    assert_eq!(done.version, version(4));
    let again = |after| Call::Load { after, events: 2 };
    assert_eq!(spy.calls(), [Call::Append, again(0), Call::Append, again(1), Call::Append]);
}

#[tokio::test]
async fn a_conflict_may_turn_the_decision_into_a_rejection() {
    let (spy, accounts) = opened().await;
    spy.next([Fault::Rival(rival(ExpectedVersion::Any, &[Moved::Out(90)]))]);
    let error = accounts.execute(&id(), |a| a.withdraw(60)).await.unwrap_err();
    assert_eq!(error.rejection(), Some(Short { short: 50 }));
    assert_eq!(stored(&spy).await.len(), 2);
}

#[tokio::test]
async fn conflicts_are_returned_after_a_bounded_number_of_attempts() {
    for (attempts, limited) in [(10, false), (3, true), (1, true)] {
        let (spy, accounts) = opened().await;
        let accounts = if limited { accounts.attempts(attempts) } else { accounts };
        spy.next((0..20).map(|_| Fault::Rival(paid_in(1))));
        let decided = Cell::new(0);
        let error = accounts
            .execute(&id(), |a| {
                decided.set(decided.get() + 1);
                a.withdraw(1)
            })
            .await
            .unwrap_err();
        assert_eq!(error.family(), Some(ErrorFamily::Conflict));
        assert_eq!(decided.get(), attempts);
        assert_eq!(spy.calls().iter().filter(|c| **c == Call::Append).count(), attempts as usize);
    }
}

#[tokio::test]
async fn concurrent_commands_all_take_effect_once() {
    let spy = Spy::new();
    let accounts = spy.aggregate::<Account>().attempts(100);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let accounts = accounts.clone();
            tokio::spawn(async move { accounts.execute(&id(), deposit(2)).await.unwrap() })
        })
        .collect();
    let mut versions = Vec::new();
    for task in tasks {
        versions.push(task.await.unwrap().version.get());
    }
    versions.sort_unstable();
    assert_eq!(versions, (1..=50).collect::<Vec<_>>());
    assert_eq!(accounts.load(&id()).await.unwrap().state.balance, 100);
}

// ---- the cache never lies

#[tokio::test]
async fn an_older_state_never_replaces_a_newer_one() {
    let (spy, accounts) = opened().await;
    let cache = &accounts.cache;
    let incarnation = spy.incarnation();
    let newer = cache.get(incarnation, &stream("a")).unwrap();
    let older = Known { state: Arc::new(Account::default()), ..newer.clone() };
    accounts.execute(&id(), deposit(1)).await.unwrap();
    cache.put(incarnation, &stream("a"), &newer);
    cache.put(incarnation, &stream("a"), &older);
    let kept = cache.get(incarnation, &stream("a")).unwrap();
    assert_eq!((kept.version, kept.state.balance), (version(2), 101));
}

#[tokio::test]
async fn the_cached_state_is_that_of_a_load_even_for_fields_that_are_not_stored() {
    let (_, accounts) = opened().await;
    let noted = |_: &Account| Ok::<_, Infallible>(Moved::Noted { amount: 1, note: "lost".to_owned() });
    accounts.execute(&id(), noted).await.unwrap();
    let cached = accounts.load(&id()).await.unwrap();
    let read = accounts.without_cache().load(&id()).await.unwrap();
    assert_eq!(cached.state, read.state);
    assert_eq!(read.state.notes, [""]);
}

#[tokio::test]
async fn states_of_another_incarnation_of_the_store_are_not_used() {
    let (spy, accounts) = opened().await;
    *spy.incarnation.lock().unwrap() = Incarnation(uuid::Uuid::from_u128(7));
    accounts.execute(&id(), |a| a.withdraw(1)).await.unwrap();
    assert_eq!(spy.calls(), [Call::Load { after: 0, events: 1 }, Call::Append]);
}

#[tokio::test]
async fn a_later_state_of_another_incarnation_is_replaced_by_one_of_this() {
    let (spy, accounts) = opened().await;
    let later =
        Known { state: Arc::new(Account::default()), version: version(9), last_event: None, bytes: 0, is_due: false };
    accounts.cache.put(spy.incarnation(), &stream("a"), &later);
    *spy.incarnation.lock().unwrap() = Incarnation(uuid::Uuid::from_u128(7));
    accounts.execute(&id(), |a| a.withdraw(1)).await.unwrap();
    spy.calls();
    accounts.execute(&id(), |a| a.withdraw(1)).await.unwrap();
    assert_eq!(spy.calls(), [Call::Append], "it is known by now");
}

#[tokio::test]
async fn a_stream_shorter_than_what_is_known_is_read_from_its_beginning() {
    let (spy, accounts) = opened().await;
    let foreign = Known {
        state: Arc::new(Account { balance: 1_000, notes: vec![] }),
        version: version(9),
        last_event: Some(EventId::new(uuid::Uuid::from_u128(9)).unwrap()),
        bytes: 0,
        is_due: false,
    };
    accounts.cache.put(spy.incarnation(), &stream("a"), &foreign);
    let error = accounts.execute(&id(), |a| a.withdraw(500)).await.unwrap_err();
    assert_eq!(error.rejection(), Some(Short { short: 400 }));
    let read = |after, events| Call::Load { after, events };
    assert_eq!(spy.calls(), [Call::Append, read(8, 0), read(0, 1)]);
    // The state of the longer stream does not prevent caching that of the shorter one.
    accounts.execute(&id(), |a| a.withdraw(1)).await.unwrap();
    assert_eq!(spy.calls(), [Call::Append]);
}

/// Histories that account `a` may have after a failover, with the balance of each: shorter than the one that was lost, as
/// long, and longer.
async fn other_histories() -> Vec<(MemoryStore, i64)> {
    let mut histories = Vec::new();
    for events in [vec![], vec![Moved::In(5)], vec![Moved::In(5), Moved::In(6)], vec![Moved::In(1); 40]] {
        let store = MemoryStore::new();
        let balance = events.iter().map(|event| if let Moved::In(amount) = event { *amount } else { 0 }).sum();
        if !events.is_empty() {
            store.append_many(rival(ExpectedVersion::Any, &events)).await.unwrap();
        }
        histories.push((store, balance));
    }
    histories
}

/// The store fails over to a server that lacks the last events, and others are written there: a decision on
/// the lost ones must not be stored.
#[tokio::test]
async fn a_command_that_was_decided_on_a_lost_history_is_decided_again() {
    for page in [1, 2, 100] {
        for (history, balance) in other_histories().await {
            let (spy, accounts) = opened_on(Spy::new().paged(page)).await;
            spy.next([Fault::FailOver(history.clone())]);
            let error = accounts.execute(&id(), |a| a.withdraw(60)).await.unwrap_err();
            assert_eq!(error.rejection(), Some(Short { short: 60 - balance }), "{page}");
            // By the same handle, whose cache is right from then on.
            assert_eq!(accounts.load(&id()).await.unwrap().state.balance, balance);
            accounts.execute(&id(), |_| Ok::<_, Infallible>(Moved::In(1))).await.unwrap();
            assert_eq!(accounts.load(&id()).await.unwrap().state.balance, balance + 1);
        }
    }
}

#[tokio::test]
async fn a_cached_state_is_not_extended_by_the_events_of_another_history() {
    for page in [1, 2, 100] {
        for (history, balance) in other_histories().await {
            let (spy, accounts) = opened_on(Spy::new().paged(page)).await;
            spy.fail_over(history);
            // By a load, by a rejection, and by a decision without events.
            let loaded = accounts.clone().load(&id()).await.unwrap();
            assert_eq!(loaded.state.balance, balance);
            assert_eq!(loaded.last_event.is_some(), loaded.exists());
            let idle = accounts.send(&id(), Settle(balance)).await.unwrap();
            assert_eq!((idle.events, idle.version), (0, loaded.version));
        }
        for (history, balance) in other_histories().await {
            let (spy, accounts) = opened_on(Spy::new().paged(page)).await;
            spy.fail_over(history);
            let error = accounts.execute(&id(), |a| a.withdraw(101)).await.unwrap_err();
            assert_eq!(error.rejection(), Some(Short { short: 101 - balance }));
        }
    }
}

/// With one attempt nothing is read after a conflict.
#[tokio::test]
async fn a_conflict_that_was_returned_is_not_returned_again() {
    let (spy, accounts) = opened().await;
    let accounts = accounts.attempts(1);
    spy.inner.append_many(paid_in(1)).await.unwrap();
    let error = accounts.execute(&id(), |a| a.withdraw(1)).await.unwrap_err();
    assert_eq!(error.family(), Some(ErrorFamily::Conflict));
    assert_eq!(accounts.execute(&id(), |a| a.withdraw(1)).await.unwrap().version, version(3));
}

#[tokio::test]
async fn a_loaded_state_stays_as_it_was() {
    let (_, accounts) = opened().await;
    let before = accounts.load(&id()).await.unwrap();
    accounts.execute(&id(), deposit(1)).await.unwrap();
    assert_eq!(before.state.balance, 100);
}

// ---- what is stored

#[tokio::test]
async fn events_that_could_not_be_read_back_are_refused_before_they_are_stored() {
    let (spy, accounts) = opened().await;
    let error = accounts.execute(&id(), |_| Ok::<_, Infallible>([Moved::In(1), Moved::Odd(1)])).await.unwrap_err();
    let ExecuteError::Invalid(e) = &error else { panic!("{error}") };
    assert_eq!(e.field, "payload");
    assert!(e.problem.contains("`odd`") && e.problem.contains("reads nothing"), "{e}");
    assert_eq!(stored(&spy).await.len(), 1);
}

/// Without a repository, events are created in one way only.
#[tokio::test]
async fn an_event_that_could_not_be_read_back_is_refused_on_every_way_to_the_store() {
    let (spy, accounts) = opened().await;
    let lossy = || Moved::Annotated { notes: Vec::new() };
    let error = accounts.execute(&id(), |_| Ok::<_, Infallible>(lossy())).await.unwrap_err();
    let ExecuteError::Invalid(by_command) = error else { panic!("{error}") };
    let made = spy.new_event(&lossy()).unwrap_err();
    let named = NewEvent::of(EventId::new(uuid::Uuid::from_u128(1)).unwrap(), &lossy()).unwrap_err();
    for error in [by_command, made, named] {
        assert_eq!(error.field, "payload");
        assert!(error.problem.contains("`annotated`") && error.problem.contains("missing field `notes`"), "{error}");
    }
    let whole = Moved::Annotated { notes: vec!["n".to_owned()] };
    let event = spy.new_event(&whole).unwrap();
    spy.append(&stream("a"), ExpectedVersion::Any, vec![event]).await.unwrap();
    assert_eq!(stored(&spy).await[1].decode::<Moved>().unwrap().as_slice(), [whole]);
}

#[tokio::test]
async fn the_context_lands_in_the_metadata_and_in_the_tenant() {
    let spy = Spy::new();
    let accounts = spy.aggregate::<Account>();
    let context = Context::of(Tenant::new("acme").unwrap())
        .with_correlation(CorrelationId::new("correlation-1").unwrap())
        .with_causation(CausationId::new("cause").unwrap())
        .with_actor(Actor::new("ann").unwrap())
        .with_trace_parent(TraceParent::new("00-trace").unwrap())
        .with_note("ip", "none");
    accounts.with(context.clone()).execute(&id(), |_| Ok::<_, Infallible>([Moved::In(1), Moved::In(2)])).await.unwrap();
    let acme = StreamId::new(Tenant::new("acme").unwrap(), "account", "a").unwrap();
    let events = spy.inner.load_page(&acme, StreamVersion::NONE, 10).await.unwrap().events;
    assert_eq!(events.len(), 2);
    for event in events {
        assert_eq!(event.metadata, *context.metadata());
    }
    // The other tenant's account of the same id is another account, in the cache too.
    assert!(!accounts.load(&id()).await.unwrap().exists());
}

#[tokio::test]
async fn a_request_key_is_the_cause_if_no_other_is_given() {
    let (spy, accounts) = opened().await;
    accounts.with(request("r-1", "x")).execute(&id(), deposit(1)).await.unwrap();
    let with_causation = request("r-2", "x").with_causation(CausationId::new("other").unwrap());
    accounts.with(with_causation).execute(&id(), deposit(1)).await.unwrap();
    let causes: Vec<_> = stored(&spy).await.into_iter().map(|e| e.metadata.causation_id).collect();
    let cause = |text| Some(CausationId::new(text).unwrap());
    assert_eq!(causes, [None, cause("r-1"), cause("other")]);
}

// ---- request keys

#[tokio::test]
async fn a_repeated_request_is_not_decided_again_and_gets_the_first_answer() {
    let (spy, accounts) = opened().await;
    let keyed = accounts.with(request("r-1", "all"));
    let first = keyed.execute(&id(), |a| a.withdraw(100)).await.unwrap();
    assert_eq!(spy.calls(), [Call::FindRequest, Call::Append]);
    let again = keyed.execute(&id(), |_| -> Result<Moved, Short> { panic!("decided again") }).await.unwrap();
    assert_eq!(spy.calls(), [Call::FindRequest, Call::Load { after: 1, events: 1 }]);
    assert!(again.repeated && !first.repeated);
    assert_eq!(Executed { repeated: false, ..again }, first);
    assert_eq!(stored(&spy).await.len(), 2);
}

/// A repeated request gets the same answer, whatever others did since.
#[tokio::test]
async fn the_state_of_an_answer_is_that_after_its_events_also_for_a_repeat_that_others_followed() {
    let (spy, accounts) = opened().await;
    let context = request("r-1", "x");
    let first = accounts.with(context.clone()).execute(&id(), |a| a.withdraw(60)).await.unwrap();
    assert_eq!((first.version, first.state.balance), (version(2), 40));
    for _ in 0..3 {
        spy.inner.append_many(paid_in(5)).await.unwrap();
    }
    for accounts in [accounts.clone(), accounts.without_cache()] {
        let again = accounts.with(context.clone()).execute(&id(), |a| a.withdraw(60)).await.unwrap();
        assert_eq!((again.version, again.state.balance, again.repeated), (version(2), 40, true));
        assert_eq!(accounts.load(&id()).await.unwrap().state.balance, 55);
    }
}

#[tokio::test]
async fn a_request_key_with_another_body_or_for_another_aggregate_is_refused() {
    let (spy, accounts) = opened().await;
    accounts.with(request("r-1", "x")).execute(&id(), deposit(1)).await.unwrap();
    let other_body = accounts.with(request("r-1", "y")).execute(&id(), deposit(1)).await.unwrap_err();
    let other_id = accounts.with(request("r-1", "x")).execute(&"b".to_owned(), deposit(1)).await.unwrap_err();
    for error in [other_body, other_id] {
        assert!(matches!(error, ExecuteError::Append(AppendError::RequestKeyReused { ref key, .. }) if key == "r-1"));
    }
    assert_eq!(stored(&spy).await.len(), 2);
}

#[tokio::test]
async fn a_command_without_events_records_its_key() {
    let (spy, accounts) = opened().await;
    let keyed = accounts.with(request("r-1", "x"));
    let first = keyed.send(&id(), Settle(100)).await.unwrap();
    assert_eq!((first.version, first.events, first.repeated), (version(1), 0, false));
    assert!(first.recorded_at.is_some());
    spy.inner.append_many(paid_in(1)).await.unwrap();
    // Decided now, it would lead to an event.
    let again = keyed.send(&id(), Settle(100)).await.unwrap();
    assert_eq!((again.version, again.events, again.repeated), (version(1), 0, true));
    assert_eq!((again.state.balance, again.recorded_at), (100, first.recorded_at));
    assert_eq!(stored(&spy).await.len(), 2);
}

/// It was answered as done, and nothing ran: the key of a command without events belonged to no aggregate.
#[tokio::test]
async fn the_key_of_a_command_without_events_is_refused_for_another_aggregate() {
    let (spy, accounts) = opened().await;
    let keyed = accounts.with(request("r-1", "x"));
    keyed.send(&id(), Settle(100)).await.unwrap();
    let error = keyed.execute(&"b".to_owned(), deposit(1)).await.unwrap_err();
    assert!(matches!(error, ExecuteError::Append(AppendError::RequestKeyReused { ref key, .. }) if key == "r-1"));
    // Nor for a third one, if the command was about two.
    let (context, both) = (request("r-2", "x"), [id(), "b".to_owned()]);
    let pair = spy.execute_two(&context, (&accounts, &both[0]), (&accounts, &both[1]), |_, _| {
        Ok::<_, Infallible>((None::<Moved>, None::<Moved>))
    });
    pair.await.unwrap();
    let error = accounts.with(context).execute(&"c".to_owned(), deposit(1)).await.unwrap_err();
    assert!(matches!(error, ExecuteError::Append(AppendError::RequestKeyReused { .. })), "{error:?}");
    assert_eq!(stored(&spy).await.len(), 1);
}

#[tokio::test]
async fn a_rejection_or_a_conflict_records_no_key() {
    let (spy, accounts) = opened().await;
    let keyed = accounts.with(request("r-1", "x")).attempts(1);
    keyed.execute(&id(), |a| a.withdraw(101)).await.unwrap_err().rejection().unwrap();
    spy.next([Fault::Rival(paid_in(1))]);
    let error = keyed.execute(&id(), |a| a.withdraw(1)).await.unwrap_err();
    assert_eq!(error.family(), Some(ErrorFamily::Conflict));
    let done = keyed.execute(&id(), |a| a.withdraw(101)).await.unwrap();
    assert!(!done.repeated);
}

#[tokio::test]
async fn of_two_concurrent_requests_one_runs_and_both_get_its_answer() {
    let (spy, accounts) = opened().await;
    let context = request("r-1", "x");
    // The other one is stored after our look for the key, before our append.
    let twin = paid_in(50).with_request(context.request().unwrap().clone());
    spy.after_next_find(twin.clone());
    let done = accounts.with(context.clone()).execute(&id(), deposit(50)).await.unwrap();
    assert_eq!((done.version, done.repeated), (version(2), true));
    let loaded = accounts.load(&id()).await.unwrap();
    assert_eq!((loaded.state.balance, loaded.version), (150, version(2)));
}

#[tokio::test]
async fn the_later_of_two_concurrent_requests_is_not_rejected_for_what_the_first_did() {
    let (spy, accounts) = opened().await;
    let context = request("r-1", "x");
    let twin = rival(ExpectedVersion::Any, &[Moved::Out(100)]).with_request(context.request().unwrap().clone());
    spy.after_next_find(twin);
    // Without the cache it decides on the state in which the twin has taken everything.
    let done = accounts.with(context).without_cache().execute(&id(), |a| a.withdraw(100)).await.unwrap();
    assert_eq!((done.version, done.events, done.repeated), (version(2), 1, true));
}

#[tokio::test]
async fn of_two_concurrent_requests_without_events_both_get_the_same_answer() {
    let (spy, accounts) = opened().await;
    let context = request("r-1", "x");
    spy.after_next_find(Append::request_only(Tenant::default(), context.request().unwrap().clone()));
    let keyed = accounts.with(context);
    let second = keyed.send(&id(), Settle(100)).await.unwrap();
    assert!(second.repeated);
    assert_eq!(keyed.send(&id(), Settle(100)).await.unwrap(), second);
}

// ---- failures of the store

#[tokio::test]
async fn a_transient_error_is_returned_and_the_command_may_be_retried() {
    let (spy, accounts) = opened().await;
    spy.next([Fault::Unavailable]);
    let error = accounts.execute(&id(), deposit(1)).await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(spy.calls(), [Call::Append]);
    accounts.execute(&id(), deposit(1)).await.unwrap();
    assert_eq!(accounts.load(&id()).await.unwrap().state.balance, 101);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_settled_by_sending_the_same_ids_again() {
    for stored_first in [true, false] {
        let (spy, accounts) = opened().await;
        let lost = || Fault::AnswerLost { stored: stored_first };
        spy.next([lost(), lost(), Fault::Unavailable]);
        let done = accounts.execute(&id(), deposit(1)).await.unwrap();
        assert_eq!((done.version, done.events, done.repeated), (version(2), 1, stored_first));
        assert_eq!(spy.calls(), [Call::Append, Call::Append, Call::Append, Call::Append]);
        assert_eq!(stored(&spy).await.len(), 2);
        // The unknown outcome has evicted the state, unless settling it has proved a newer one.
        accounts.execute(&id(), deposit(1)).await.unwrap();
        let read = spy.calls().contains(&Call::Load { after: 0, events: 2 });
        assert_eq!(read, stored_first);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_append_that_a_rival_has_overtaken_is_decided_again() {
    let (spy, accounts) = opened().await;
    let overtaken = |by| [Fault::AnswerLost { stored: false }, Fault::Rival(rival(ExpectedVersion::Any, &[by]))];
    spy.next(overtaken(Moved::Out(90)));
    let error = accounts.execute(&id(), |a| a.withdraw(60)).await.unwrap_err();
    assert_eq!(error.rejection(), Some(Short { short: 50 }));
    spy.next(overtaken(Moved::In(5)));
    let done = accounts.execute(&id(), |a| a.withdraw(10)).await.unwrap();
    assert_eq!((done.version, done.repeated), (version(4), false));
    assert_eq!(accounts.load(&id()).await.unwrap().state.balance, 5);
}

#[tokio::test(start_paused = true)]
async fn what_stays_unknown_is_returned_with_a_token_that_settles_it_once() {
    for stored_first in [true, false] {
        let (spy, accounts) = opened().await;
        let lost = || Fault::AnswerLost { stored: stored_first };
        spy.next((0..7).map(|_| lost()));
        let began = Instant::now();
        let error = accounts.execute(&id(), deposit(1)).await.unwrap_err();
        assert_eq!(error.family(), Some(ErrorFamily::OutcomeUnknown));
        assert!(began.elapsed() < Duration::from_secs(3));
        assert_eq!(error.source().unwrap().to_string(), "connection lost");
        let ExecuteError::OutcomeUnknown { token, stream: of, .. } = error else { panic!("{error}") };
        assert_eq!((&of, token.stream()), (&stream("a"), &stream("a")));
        assert_eq!(spy.calls().len(), 7);
        spy.next([lost()]);
        let still = accounts.settle(&token).await.unwrap_err();
        assert_eq!(still.family(), Some(ErrorFamily::OutcomeUnknown));
        let done = accounts.settle(&token).await.unwrap();
        assert_eq!((done.version, done.events, done.repeated), (version(2), 1, stored_first));
        assert!(spy.settle(&token).await.unwrap().repeated);
        assert_eq!(stored(&spy).await.len(), 2);
    }
}

/// The answer was lost, and the repeated append meets a read-only server, an unreadable row, or another error that does not
/// concern the events: they are stored in each case.
#[tokio::test(start_paused = true)]
async fn only_an_answer_about_its_events_ends_an_unknown_outcome() {
    let refusals: [fn() -> AppendError; 8] = [
        || AppendError::Closed,
        || AppendError::ReadOnly { reason: "a standby".to_owned() },
        || AppendError::Broken { what: "a row".to_owned(), remedy: "look".to_owned() },
        || AppendError::Unavailable { source: BackendError::new("away") },
        || AppendError::StorageFull { source: BackendError::new("full") },
        || AppendError::RequestKeyReused { tenant: Tenant::default(), key: "k".to_owned() },
        || AppendError::DeadlineExceeded { stream: stream("a") },
        || Invalid::new("payload", "is too large", "make it smaller").into(),
    ];
    for again in refusals {
        let refusal = again();
        let (spy, accounts) = opened().await;
        spy.next([Fault::AnswerLost { stored: true }]);
        spy.next((0..7).map(|_| Fault::Refused(again())));
        let error = accounts.execute(&id(), deposit(1)).await.unwrap_err();
        let ExecuteError::OutcomeUnknown { token, source, .. } = error else { panic!("{refusal}: {error}") };
        assert_eq!(source.to_string(), refusal.to_string());
        let error = accounts.settle(&token).await.unwrap_err();
        assert_eq!(error.family(), Some(ErrorFamily::OutcomeUnknown), "{refusal}");
        spy.next([Fault::Refused(again())]);
        let error = spy.settle(&token).await.unwrap_err();
        assert_eq!(error.family(), ErrorFamily::OutcomeUnknown, "{refusal}");
        assert_eq!(error.source().unwrap().to_string(), refusal.to_string());
        let done = accounts.settle(&token).await.unwrap();
        assert_eq!((done.version, done.repeated), (version(2), true));
        assert_eq!(stored(&spy).await.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_about_its_events_ends_an_unknown_outcome() {
    let (spy, accounts) = opened().await;
    spy.next((0..7).map(|_| Fault::AnswerLost { stored: false }));
    let error = accounts.execute(&id(), deposit(1)).await.unwrap_err();
    let ExecuteError::OutcomeUnknown { token, .. } = error else { panic!("{error}") };
    spy.inner.append_many(paid_in(1)).await.unwrap();
    let error = accounts.settle(&token).await.unwrap_err();
    let ExecuteError::Append(error) = error else { panic!("{error}") };
    assert!(error.settles_outcome() && error.family() == ErrorFamily::Conflict, "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_append_without_events_is_settled_too() {
    let (spy, accounts) = opened().await;
    spy.next([Fault::AnswerLost { stored: true }]);
    let done = accounts.with(request("r-1", "x")).send(&id(), Settle(100)).await.unwrap();
    assert_eq!((done.events, done.repeated), (0, true));
}

#[tokio::test(start_paused = true)]
async fn settling_ends_with_the_deadline() {
    let (spy, accounts) = opened().await;
    spy.next((0..7).map(|_| Fault::AnswerLost { stored: true }));
    let deadline = Instant::now() + Duration::from_millis(100);
    let error = accounts.with(Context::default().with_deadline(deadline)).execute(&id(), deposit(1)).await.unwrap_err();
    assert!(Instant::now() < deadline);
    let ExecuteError::OutcomeUnknown { token, .. } = error else { panic!("{error}") };
    assert!(spy.calls().len() < 7);
    // The token outlives the deadline.
    tokio::time::advance(Duration::from_secs(60)).await;
    while accounts.settle(&token).await.is_err() {}
    assert_eq!(stored(&spy).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_command_after_its_deadline_is_withdrawn() {
    let (spy, accounts) = opened().await;
    let late = accounts.with(Context::default().with_deadline(Instant::now()));
    let error = late.execute(&id(), deposit(1)).await.unwrap_err();
    assert!(matches!(error, ExecuteError::Append(AppendError::DeadlineExceeded { .. })));
    assert_eq!(stored(&spy).await.len(), 1);
}

/// A store that never tells whether a request was executed.
struct Silent(MemoryStore);

#[async_trait::async_trait]
impl EventStore for Silent {
    crate::forward_event_store!(self => self.0; except find_request);

    async fn find_request(&self, _: &Tenant, _: &RequestKey) -> Result<Option<Appended>, AppendError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_whose_request_key_is_not_looked_up_in_time_ends_with_its_deadline() {
    let accounts = Repository::<Account>::new(Arc::new(Silent(MemoryStore::new())));
    let deadline = Instant::now() + Duration::from_millis(200);
    let late = accounts.with(request("r-1", "x").with_deadline(deadline));
    let id = id();
    let answer = tokio::time::timeout(Duration::from_secs(1), late.execute(&id, deposit(1))).await;
    let error = answer.expect("it ends at the deadline").unwrap_err();
    assert!(matches!(error, ExecuteError::Append(AppendError::DeadlineExceeded { .. })), "{error:?}");
    assert_eq!(Instant::now(), deadline);
}

#[tokio::test]
async fn a_repeat_whose_events_are_gone_is_reported_and_not_answered_with_an_older_state() {
    let (spy, accounts) = opened().await;
    let context = request("r-1", "x");
    accounts.with(context.clone()).execute(&id(), deposit(1)).await.unwrap();
    let accounts = spy.without(2).aggregate::<Account>().with(context);
    let error = accounts.execute(&id(), deposit(1)).await.unwrap_err();
    assert!(matches!(error, ExecuteError::Read(ReadError::Damaged { .. })), "{error:?}");
}

#[tokio::test]
async fn a_panic_in_decide_or_evolve_stores_nothing_and_poisons_nothing() {
    let (spy, accounts) = opened().await;
    let clone = accounts.clone();
    let decide = tokio::spawn(async move {
        clone.execute(&id(), |_| -> Result<Moved, Infallible> { panic!("decide") }).await.unwrap();
    });
    let clone = accounts.clone();
    let evolve = tokio::spawn(async move {
        clone.execute(&id(), |_| Ok::<_, Infallible>([Moved::In(1), Moved::Poison])).await.unwrap();
    });
    assert!(decide.await.unwrap_err().is_panic());
    assert!(evolve.await.unwrap_err().is_panic());
    assert_eq!(stored(&spy).await.len(), 1);
    accounts.execute(&id(), |a| a.withdraw(100)).await.unwrap();
    assert_eq!(spy.calls(), [Call::Append]);
    assert_eq!(accounts.load(&id()).await.unwrap().state.balance, 0);
}

#[tokio::test]
async fn an_event_that_cannot_be_read_stops_load_and_command_and_is_named() {
    let (spy, accounts) = opened().await;
    let unknown = NewEvent::raw(
        EventId::new(uuid::Uuid::from_u128(9)).unwrap(),
        "unheard.of",
        1,
        crate::Payload::from_json("{}").unwrap(),
    );
    spy.inner.append(&stream("a"), ExpectedVersion::Any, vec![unknown.unwrap()]).await.unwrap();
    let error = accounts.load(&id()).await.unwrap_err();
    assert!(
        matches!(&error, ReadError::Undecodable { name, version: at, .. } if name == "unheard.of" && *at == version(2))
    );
    let error = accounts.execute(&id(), deposit(1)).await.unwrap_err();
    assert_eq!(error.family(), Some(ErrorFamily::Broken));
    assert_eq!(stored(&spy).await.len(), 2);
}

#[tokio::test]
async fn any_store_in_a_pointer_has_aggregates() {
    let store: Arc<dyn EventStore> = Arc::new(Spy::new());
    store.aggregate::<Account>().execute(&id(), deposit(1)).await.unwrap();
    assert_eq!(store.aggregate::<Account>().load(&id()).await.unwrap().state.balance, 1);
}

/// A count alone bounds nothing: states may have any size.
#[tokio::test]
async fn cached_states_have_a_bound_in_bytes_and_one_in_number() {
    let large = || Moved::Annotated { notes: vec!["x".repeat(100_000)] };
    for (states, bytes, most) in [(1_000, 1 << 20, 10), (3, 1 << 30, 3)] {
        let (_, accounts) = opened().await;
        let accounts = accounts.cache_bytes(states, bytes);
        for n in 0..30 {
            let id = format!("large-{n}");
            accounts.execute(&id, |_| Ok::<_, Infallible>(large())).await.unwrap();
            accounts.execute(&id, |_| Ok::<_, Infallible>(Moved::In(1))).await.unwrap();
        }
        let kept = accounts.cache.count();
        assert!((2..=most).contains(&kept), "{kept}");
    }
}
