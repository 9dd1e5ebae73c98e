//! A command over two aggregates: one effect on both, or none, and the first answer, on every store.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use annals_eventstore::conformance::{Backend, Setup};
use annals_eventstore::testing::{Fault, FaultyStore};
use annals_eventstore::{
    AggregateStore, AppendError, Context, EventStore, EventStoreExt, Evolve, ExecuteError, Executed, Filter,
    Fingerprint, Limits, ManualClock, MemoryStore, Repository, RequestKey, StreamVersion, Tenant,
};
use annals_macros::{Aggregate, Event};
use futures::TryStreamExt;
use futures::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backends::{InMemory, OnDisk};

annals_eventstore::text_id! {
    /// An account.
    struct AccountId;
}

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
enum AccountEvent {
    #[event(name = "account.moved")]
    Moved { by: i64 },
}

#[derive(Aggregate, Clone, Debug, Default)]
#[aggregate(name = "account", id = AccountId, event = AccountEvent)]
struct Account {
    balance: i64,
}

impl Evolve for Account {
    fn evolve(&mut self, AccountEvent::Moved { by }: &AccountEvent) {
        self.balance += by;
    }
}

#[derive(Debug, PartialEq)]
struct TooLittle {
    missing: i64,
}

type Moves = (Option<AccountEvent>, Option<AccountEvent>);

/// Moves money; nothing at all for an amount of zero.
fn transfer(from: &Account, amount: i64) -> Result<Moves, TooLittle> {
    if from.balance < amount {
        return Err(TooLittle { missing: amount - from.balance });
    }
    let moved = |by| (amount != 0).then_some(AccountEvent::Moved { by });
    Ok((moved(-amount), moved(amount)))
}

fn account(name: &str) -> AccountId {
    AccountId::new(name).unwrap()
}

fn keyed(key: &str, content: &str) -> Context {
    let request = RequestKey::new(key, Fingerprint::of(&content).unwrap()).unwrap();
    Context::of(Tenant::new("north").unwrap()).with_request(request)
}

fn versions((first, second): &(Executed<Account>, Executed<Account>)) -> [i64; 2] {
    [first.version.get(), second.version.get()]
}

fn balances((first, second): &(Executed<Account>, Executed<Account>)) -> [i64; 2] {
    [first.state.balance, second.state.balance]
}

/// A store with 100 in each account of a tenant.
async fn opened(names: &[&str]) -> (MemoryStore, Repository<Account>) {
    let store = MemoryStore::new();
    let accounts = store.aggregate::<Account>();
    fill(&accounts, names).await;
    (store, accounts)
}

async fn fill(accounts: &Repository<Account>, names: &[&str]) {
    let accounts = accounts.with(Context::of(Tenant::new("north").unwrap()));
    for name in names {
        let filled = |_: &Account| Ok::<_, Infallible>(AccountEvent::Moved { by: 100 });
        accounts.execute(&account(name), filled).await.unwrap();
    }
}

#[tokio::test]
async fn a_request_that_is_sent_again_gets_its_first_answer_before_anything_is_decided() {
    let (store, accounts) = opened(&["a", "b"]).await;
    let (a, b) = (account("a"), account("b"));
    let context = keyed("r-1", "all of it");
    let pay = |from: &Account, _: &Account| transfer(from, 100);
    let first = store.execute_two(&context, (&accounts, &a), (&accounts, &b), pay).await.unwrap();
    assert_eq!((versions(&first), balances(&first), first.0.repeated), ([2, 2], [0, 200], false));
    // By now the account is empty, so a decision would be a rejection.
    let again = store.execute_two(&context, (&accounts, &a), (&accounts, &b), pay).await.unwrap();
    assert_eq!((versions(&again), again.0.repeated, again.1.repeated), ([2, 2], true, true));
    assert_eq!(balances(&again), [0, 200]);
    let events: Vec<_> = store.read_all(annals_eventstore::Position::START, Filter::all()).try_collect().await.unwrap();
    assert_eq!(events.len(), 4);
    for event in &events[2..] {
        assert_eq!(event.metadata.causation_id.as_ref().map(|cause| cause.as_str()), Some("r-1"));
        assert_eq!(event.stream.tenant().as_str(), "north");
    }
    // The same key for another pair is another request.
    let other = store.execute_two(&context, (&accounts, &a), (&accounts, &account("c")), pay).await;
    assert!(matches!(other, Err(ExecuteError::Append(AppendError::RequestKeyReused { .. }))), "{other:?}");
}

#[tokio::test]
async fn a_request_without_events_is_remembered_and_a_rejection_is_not() {
    let (store, accounts) = opened(&["a", "b"]).await;
    let (a, b) = (account("a"), account("b"));
    let decided = AtomicU32::new(0);
    for repeated in [false, true] {
        let nothing = |from: &Account, _: &Account| {
            decided.fetch_add(1, Ordering::Relaxed);
            transfer(from, 0)
        };
        let done = store.execute_two(&keyed("r-1", "0"), (&accounts, &a), (&accounts, &b), nothing).await.unwrap();
        assert_eq!((done.0.repeated, done.0.events, done.1.events), (repeated, 0, 0));
    }
    // Once on what was cached and once on what was read; never for the repeat.
    assert_eq!(decided.into_inner(), 2);
    let too_much = |from: &Account, _: &Account| transfer(from, 101);
    let refused = store.execute_two(&keyed("r-2", "101"), (&accounts, &a), (&accounts, &b), too_much).await;
    assert_eq!(refused.unwrap_err().rejection(), Some(TooLittle { missing: 1 }));
    fill(&accounts, &["a"]).await;
    let done = store.execute_two(&keyed("r-2", "101"), (&accounts, &a), (&accounts, &b), too_much).await.unwrap();
    assert_eq!((versions(&done), done.0.repeated), ([3, 2], false));
}

/// Both repositories have the accounts cached; another one changes the first or the second of them.
#[tokio::test]
async fn a_conflict_on_either_aggregate_is_decided_again_on_what_is_new() {
    for changed in ["a", "b"] {
        let (store, accounts) = opened(&["a", "b"]).await;
        let context = Context::of(Tenant::new("north").unwrap());
        let (a, b) = (account("a"), account("b"));
        accounts.with(context.clone()).load(&a).await.unwrap();
        accounts.with(context.clone()).load(&b).await.unwrap();
        fill(&store.aggregate(), &[changed]).await;
        let decided = AtomicU32::new(0);
        let sum = |first: &Account, second: &Account| {
            decided.fetch_add(1, Ordering::Relaxed);
            let by = first.balance + second.balance;
            Ok::<_, Infallible>((AccountEvent::Moved { by }, AccountEvent::Moved { by }))
        };
        let done = store.execute_two(&context, (&accounts, &a), (&accounts, &b), sum).await.unwrap();
        assert_eq!(decided.into_inner(), 2, "{changed}");
        assert_eq!(versions(&done).iter().sum::<i64>(), 5);
        let balance = accounts.with(context).load(&account(changed)).await.unwrap().state.balance;
        assert_eq!(balance, 200 + 300, "{changed}");
    }
}

/// An append proves only the states of the streams that it goes to.
#[tokio::test]
async fn a_command_that_changes_one_of_them_is_decided_on_the_newest_state_of_both() {
    let (store, accounts) = opened(&["a", "b"]).await;
    let context = Context::of(Tenant::new("north").unwrap());
    let (a, b) = (account("a"), account("b"));
    for id in [&a, &b] {
        accounts.with(context.clone()).load(id).await.unwrap();
    }
    fill(&store.aggregate(), &["b"]).await;
    let copy = |_: &Account, second: &Account| {
        Ok::<_, Infallible>((AccountEvent::Moved { by: second.balance }, Vec::<AccountEvent>::new()))
    };
    let done = store.execute_two(&context, (&accounts, &a), (&accounts, &b), copy).await.unwrap();
    assert_eq!((versions(&done), done.0.events, done.1.events), ([2, 2], 1, 0));
    assert_eq!(accounts.with(context).load(&a).await.unwrap().state.balance, 300);
}

#[tokio::test]
async fn one_aggregate_twice_and_another_stores_repository_are_refused() {
    let (store, accounts) = opened(&["a"]).await;
    let (_, foreign) = opened(&["b"]).await;
    let (a, b) = (account("a"), account("b"));
    let context = Context::default();
    let none = |_: &Account, _: &Account| transfer(&Account::default(), 0);
    for (field, error) in [
        ("second", store.execute_two(&context, (&accounts, &a), (&accounts, &a), none).await),
        ("repository", store.execute_two(&context, (&accounts, &a), (&foreign, &b), none).await),
        ("repository", store.execute_two(&context, (&foreign, &b), (&accounts, &a), none).await),
    ] {
        assert!(matches!(&error, Err(ExecuteError::Invalid(e)) if e.field == field), "{error:?}");
    }
}

/// Racing transfers, each sent several times under its key, while calls of the store fail before or after they had their
/// effect. Every transfer has one effect on both accounts or none, and all its answers are the first one.
async fn check(backend: impl Backend, rounds: usize, seed: u64) {
    let names = ["a", "b", "c"];
    let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
    let store = backend.open(&Setup { clock, limits: Limits::default() }).await;
    fill(&store.aggregate(), &names).await;
    let store = FaultyStore::new(store);
    let repositories = [(); 2].map(|()| store.aggregate::<Account>());
    let mut random = fastrand::Rng::with_seed(seed);
    let mut transfers = Vec::new();
    for n in 0..rounds {
        let (from, by) = (random.usize(..3), random.usize(1..3));
        let amount = random.i64(0..60);
        if random.u8(..4) == 0 {
            let fault = if random.bool() { Fault::Before } else { Fault::After };
            store.fail_call(store.calls() + random.u64(1..200), fault);
        }
        for _ in 0..random.usize(1..4) {
            transfers.push((n, from, (from + by) % 3, amount));
        }
    }
    random.shuffle(&mut transfers);
    let run = async |(n, from, to, amount): (usize, usize, usize, i64)| {
        let context = keyed(&format!("r-{n}"), "transfer");
        let [first, second] = [&account(names[from]), &account(names[to])];
        let accounts = &repositories[n % 2];
        loop {
            let pay = |from: &Account, _: &Account| transfer(from, amount);
            match store.execute_two(&context, (accounts, first), (accounts, second), pay).await {
                Ok(done) => return (n, Some((versions(&done), balances(&done), done.0.position)), amount),
                Err(ExecuteError::Rejected(_)) => return (n, None, amount),
                // Under its key it can be sent again, whatever its outcome was.
                Err(e) if e.is_transient() || matches!(e, ExecuteError::OutcomeUnknown { .. }) => {}
                Err(ExecuteError::Append(AppendError::WrongExpectedVersion { .. })) => {}
                Err(e) => panic!("seed {seed}: {e:?}"),
            }
        }
    };
    let mut answers = Vec::new();
    for some in transfers.chunks(8) {
        answers.extend(join_all(some.iter().map(|transfer| run(*transfer))).await);
    }
    let log: Vec<_> =
        store.inner().read_all(annals_eventstore::Position::START, Filter::all()).try_collect().await.unwrap();
    let mut sum = 0;
    for n in 0..rounds {
        let key = format!("r-{n}");
        let caused = log.iter().filter(|e| e.metadata.causation_id.as_ref().is_some_and(|c| c.as_str() == key));
        let positions: Vec<_> = caused.map(|event| event.position).collect();
        let of_it: Vec<_> = answers.iter().filter(|(of, ..)| *of == n).collect();
        let accepted: Vec<_> = of_it.iter().filter_map(|(_, answer, _)| *answer).collect();
        let amount = of_it[0].2;
        // A rejected one may be accepted when it is sent again, and then is never rejected any more.
        let effects = if accepted.is_empty() || amount == 0 { 0 } else { 2 };
        assert_eq!(positions.len(), effects, "seed {seed}, {key}");
        if effects == 2 {
            let first = (accepted[0].0, accepted[0].1, *positions.last().unwrap());
            assert!(accepted.iter().all(|answer| *answer == first), "seed {seed}, {key}: {accepted:?}");
        }
    }
    for name in names {
        let accounts = store.inner().aggregate::<Account>().with(Context::of(Tenant::new("north").unwrap()));
        let loaded = accounts.load(&account(name)).await.unwrap();
        assert!(loaded.state.balance >= 0 && loaded.version > StreamVersion::NONE, "seed {seed}");
        sum += loaded.state.balance;
    }
    assert_eq!(sum, 300, "seed {seed}");
    store.close().await;
}

fn seed() -> u64 {
    std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..))
}

#[tokio::test(start_paused = true)]
async fn racing_transfers_in_memory_have_one_effect_and_the_first_answer() {
    check(InMemory, 100, seed()).await;
}

#[tokio::test]
async fn racing_transfers_on_sqlite_have_one_effect_and_the_first_answer() {
    check(OnDisk::new(), 60, seed()).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn racing_transfers_on_postgres_have_one_effect_and_the_first_answer() {
    check(crate::backends::InPostgres::default(), 60, seed()).await;
}
