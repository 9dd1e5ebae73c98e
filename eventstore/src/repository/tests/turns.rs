//! Commands on one aggregate take turns, and nobody else waits for them.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use async_trait::async_trait;
use futures::future::{join_all, poll_immediate};
use tokio::sync::Semaphore;

use super::*;
use crate::limits::Limits;

/// A store whose appends to account `a` are stored once they are let through, one by one. It counts them.
#[derive(Clone)]
struct Gated {
    inner: MemoryStore,
    gate: Arc<Semaphore>,
    arrived: Arc<AtomicUsize>,
}

#[async_trait]
impl EventStore for Gated {
    crate::forward_event_store!(self => self.inner; except append_many);

    async fn append_many(&self, append: Append) -> Result<Appended, AppendError> {
        if append.parts().iter().any(|part| part.stream == stream("a")) {
            self.arrived.fetch_add(1, Ordering::Relaxed);
            self.gate.acquire().await.unwrap().forget();
        }
        self.inner.append_many(append).await
    }
}

impl Gated {
    fn new() -> Self {
        Self::on(MemoryStore::new())
    }

    fn on(inner: MemoryStore) -> Self {
        Self { inner, gate: Arc::new(Semaphore::new(0)), arrived: Arc::default() }
    }

    fn arrived(&self) -> usize {
        self.arrived.load(Ordering::Relaxed)
    }
}

fn until(deadline: Instant) -> Context {
    Context::default().with_deadline(deadline)
}

fn is_late<R>(error: &ExecuteError<R>) -> bool {
    matches!(error, ExecuteError::Append(AppendError::DeadlineExceeded { .. }))
}

/// Before, of 200 commands at once most ended with a conflict, although no other process wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_commands_at_once_on_one_aggregate_all_succeed_without_a_conflict() {
    let spy = Spy::new();
    let accounts = spy.aggregate::<Account>().attempts(1);
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            // Each in circumstances of its own, as in a web service.
            let accounts = accounts.with(Context::default());
            tokio::spawn(async move { accounts.execute(&id(), deposit(1)).await.unwrap().version.get() })
        })
        .collect();
    let mut versions: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=200).collect::<Vec<_>>());
    assert_eq!(spy.calls().iter().filter(|call| **call == Call::Append).count(), 200);
}

#[tokio::test]
async fn commands_on_one_aggregate_append_one_after_the_other_and_those_on_another_do_not_wait() {
    let store = Gated::new();
    let accounts = store.aggregate::<Account>();
    let id = id();
    let mut first = pin!(accounts.execute(&id, deposit(1)));
    let mut second = pin!(accounts.execute(&id, deposit(2)));
    assert!(poll_immediate(&mut first).await.is_none());
    assert!(poll_immediate(&mut second).await.is_none());
    assert_eq!(store.arrived(), 1);
    accounts.execute(&"b".to_owned(), deposit(5)).await.unwrap();
    let north = accounts.with(Context::of(Tenant::new("north").unwrap()));
    store.gate.add_permits(1);
    assert_eq!(first.await.unwrap().version, version(1));
    assert!(poll_immediate(&mut second).await.is_none());
    assert_eq!(store.arrived(), 2);
    // The same id of another tenant is another aggregate.
    north.execute(&id, deposit(1)).await.unwrap();
    store.gate.add_permits(1);
    assert_eq!(second.await.unwrap().version, version(2));
}

#[tokio::test]
async fn a_command_that_is_dropped_gives_its_turn_to_the_next_wherever_it_is_dropped() {
    let store = Gated::new();
    let accounts = store.aggregate::<Account>();
    let id = id();
    let mut holder = Box::pin(accounts.execute(&id, deposit(1)));
    let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(accounts.execute(&id, deposit(2)))).collect();
    assert!(poll_immediate(&mut holder).await.is_none());
    for command in &mut waiting {
        assert!(poll_immediate(command).await.is_none());
    }
    // One in the middle of the queue, then the one that appends, then the one that was just given the turn and has not run.
    drop(waiting.remove(1));
    drop(holder);
    drop(waiting.remove(0));
    assert!(poll_immediate(&mut waiting[1]).await.is_none());
    assert_eq!(store.arrived(), 1);
    assert!(poll_immediate(&mut waiting[0]).await.is_none());
    assert_eq!(store.arrived(), 2);
    store.gate.add_permits(2);
    for done in join_all(waiting).await {
        done.unwrap();
    }
    assert_eq!(accounts.load(&id).await.unwrap().version, version(2));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_waits_for_its_turn_ends_with_its_deadline_and_others_wait_on() {
    let store = Gated::new();
    let accounts = store.aggregate::<Account>();
    let id = id();
    let mut holder = pin!(accounts.execute(&id, deposit(1)));
    assert!(poll_immediate(&mut holder).await.is_none());
    let deadline = Instant::now() + Duration::from_millis(200);
    let late = accounts.with(until(deadline));
    let mut third = pin!(accounts.execute(&id, deposit(3)));
    let mut late = pin!(late.execute(&id, deposit(2)));
    assert!(poll_immediate(&mut late).await.is_none());
    assert!(poll_immediate(&mut third).await.is_none());
    let error = late.await.unwrap_err();
    assert!(is_late(&error), "{error:?}");
    assert_eq!(Instant::now(), deadline);
    store.gate.add_permits(2);
    holder.await.unwrap();
    assert_eq!(third.await.unwrap().state.balance, 4);
}

/// A caller that polls its command no more, such as one in a buffered stream, must not stop the others for ever.
#[tokio::test(start_paused = true)]
async fn a_command_that_is_polled_no_more_loses_its_turn_after_a_while() {
    let store = Gated::new();
    let accounts = store.aggregate::<Account>();
    let id = id();
    let mut forgotten = pin!(accounts.execute(&id, deposit(1)));
    assert!(poll_immediate(&mut forgotten).await.is_none());
    store.gate.add_permits(3);
    let begun = Instant::now();
    let both = join_all([2, 3].map(|amount| accounts.execute(&id, deposit(amount)))).await;
    assert!(both.into_iter().all(|done| done.is_ok()));
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    // It is a stranger now: it loses the race, and decides again.
    store.gate.add_permits(1);
    assert_eq!(forgotten.await.unwrap().state.balance, 6);
    assert_eq!(accounts.execute(&"b".to_owned(), deposit(1)).await.unwrap().version, version(1));
}

#[tokio::test]
async fn how_many_commands_of_a_tenant_wait_is_bounded() {
    let limits = Limits { queued_appends: 2, ..Limits::default() };
    let store = Gated::on(MemoryStore::builder().limits(limits).build());
    let accounts = store.aggregate::<Account>();
    let id = id();
    let mut commands: Vec<_> = (0..3).map(|_| Box::pin(accounts.execute(&id, deposit(1)))).collect();
    for command in &mut commands {
        assert!(poll_immediate(command).await.is_none());
    }
    let refused = || async { accounts.execute(&id, deposit(1)).await.unwrap_err().to_string() };
    let full = "2 commands of tenant `default` wait already, the most is 2";
    assert_eq!(refused().await, full);
    // One that leaves makes room, and is counted once.
    drop(commands.pop());
    commands.push(Box::pin(accounts.execute(&id, deposit(1))));
    assert!(matches!(futures::poll!(&mut commands[2]), Poll::Pending));
    assert_eq!(refused().await, full);
    store.gate.add_permits(4);
    for done in join_all(commands).await {
        done.unwrap();
    }
    assert_eq!(accounts.execute(&id, deposit(1)).await.unwrap().version, version(4));
}

/// A store that lets others run before each append.
#[derive(Clone)]
struct Yielding(MemoryStore);

#[async_trait]
impl EventStore for Yielding {
    crate::forward_event_store!(self => self.0; except append_many);

    async fn append_many(&self, append: Append) -> Result<Appended, AppendError> {
        tokio::task::yield_now().await;
        self.0.append_many(append).await
    }
}

#[tokio::test]
async fn commands_over_two_aggregates_take_both_turns_and_never_block_each_other() {
    let store = Yielding(MemoryStore::new());
    let (ones, others) = (store.aggregate::<Account>().attempts(1), store.aggregate::<Account>().attempts(1));
    let (a, b) = (id(), "b".to_owned());
    let context = Context::default();
    let both = |_: &Account, _: &Account| Ok::<_, Infallible>((Moved::In(1), Moved::In(1)));
    let commands = (0..100).map(|n| {
        let (store, context, ones, others, a, b) = (&store, &context, &ones, &others, &a, &b);
        async move {
            // One repository for each of the streams, whichever is named first.
            match n % 2 {
                0 => store.execute_two(context, (ones, a), (others, b), both).await,
                _ => store.execute_two(context, (others, b), (ones, a), both).await,
            }
        }
    });
    let done = tokio::time::timeout(Duration::from_secs(20), join_all(commands)).await.expect("nobody waits for ever");
    assert!(done.into_iter().all(|done| done.is_ok()));
    assert_eq!(ones.load(&a).await.unwrap().version, version(100));
}
