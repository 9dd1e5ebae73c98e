//! The queue without a store: which tasks are woken, and in which order appends are taken.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Bounds, Queue};
use crate::append::{Append, Appended};
use crate::clock::{IdSource, TimeOrderedIds};
use crate::error::AppendError;
use crate::event::{EventId, NewEvent};
use crate::limits::Limits;
use crate::payload::Payload;
use crate::stream::{ExpectedVersion, StreamId, Tenant};

/// Counts how often a task was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

fn append(tenant: &str, id: &str, events: usize) -> Append {
    let event = |_| {
        let id = EventId::new(TimeOrderedIds.next_id()).expect("not nil");
        NewEvent::raw(id, "counted", 1, Payload::from_json("{}").expect("it is JSON")).expect("a name")
    };
    let stream = StreamId::new(Tenant::new(tenant).expect("a name"), "counter", id).expect("a name");
    Append::to(stream, ExpectedVersion::Any, (0..events).map(event).collect())
}

/// Puts an append into the queue; it waits there for its answer.
fn queued(queue: &Arc<Queue>, append: Append) -> BoxFuture<'static, Result<Appended, AppendError>> {
    let queue = Arc::clone(queue);
    let append = append.check(&Limits::default()).expect("it is sound");
    let mut waiting = async move { queue.append(append, &Limits::default()).await }.boxed();
    assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    waiting
}

/// The streams of the next batch, in its order.
fn next(queue: &Queue) -> Vec<String> {
    let taken = queue.gather(&Limits::default());
    taken.appends.iter().map(|append| append.first_stream().aggregate_id().to_owned()).collect()
}

/// A writer that is not woken would sleep on a full queue until the next append comes.
#[test]
fn a_writer_that_waits_is_woken_by_an_append_and_by_the_end() {
    let queue = Arc::new(Queue::new(Bounds::default()));
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    for round in 1..=3 {
        let mut wait = pin!(queue.wait());
        assert!(wait.as_mut().poll(&mut context).is_pending());
        let _waiting = queued(&queue, append("t", "a", 1));
        assert_eq!(woken.0.load(Ordering::Acquire), round, "the writer was not woken");
        assert_eq!(wait.as_mut().poll(&mut context), std::task::Poll::Ready(true));
        assert_eq!(next(&queue), ["a"]);
    }
    // An append that comes before a writer waits is seen at once.
    let _waiting = queued(&queue, append("t", "a", 1));
    assert_eq!(pin!(queue.wait()).poll(&mut context), std::task::Poll::Ready(true));
    assert_eq!(next(&queue), ["a"]);

    let mut wait = pin!(queue.wait());
    assert!(wait.as_mut().poll(&mut context).is_pending());
    let before = woken.0.load(Ordering::Acquire);
    queue.close();
    assert_eq!(woken.0.load(Ordering::Acquire), before + 1, "the end did not wake the writer");
    assert_eq!(wait.as_mut().poll(&mut context), std::task::Poll::Ready(false));
}

/// An append for which a batch has no room stays the first of its tenant, or it would be overtaken by later ones.
#[test]
fn appends_of_one_tenant_are_taken_in_the_order_in_which_they_came() {
    let queue = Arc::new(Queue::new(Bounds::default()));
    // A batch has room for one of these.
    let _waiting: Vec<_> = ["1", "2", "3"].map(|id| queued(&queue, append("t", id, 3_000))).into();
    for id in ["1", "2", "3"] {
        assert_eq!(next(&queue), [id]);
    }
}

/// The order of tenants is kept too: the tenant whose append had no room is first in the next batch.
#[test]
fn a_tenant_whose_append_had_no_room_is_first_in_the_next_batch() {
    let queue = Arc::new(Queue::new(Bounds::default()));
    let of = |(tenant, id, events)| queued(&queue, append(tenant, id, events));
    let _waiting: Vec<_> =
        [("t", "t1", 3_000), ("u", "u1", 3_000), ("v", "v1", 1), ("u", "u2", 1), ("t", "t2", 1)].map(of).into();
    assert_eq!(next(&queue), ["t1"]);
    assert_eq!(next(&queue), ["u1", "v1", "t2", "u2"]);
    assert_eq!(next(&queue), Vec::<String>::new());
}

/// A writer that waits for its database must not take in appends without bound.
#[test]
fn an_append_that_a_writer_has_taken_counts_until_it_is_answered() {
    let queue = Arc::new(Queue::new(Bounds::default()));
    let limits = Limits { queued_appends: 2, ..Limits::default() };
    let try_one = |id: &str| {
        let (queue, limits) = (Arc::clone(&queue), limits.clone());
        let append = append("t", id, 1).check(&limits).expect("it is sound");
        let mut waiting = async move { queue.append(append, &limits).await }.boxed();
        let answered = waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        (waiting, answered)
    };
    let _waiting = [try_one("a"), try_one("b")].map(|(waiting, _)| waiting);
    let mut taken = queue.gather(&limits);
    assert_eq!(taken.appends.len(), 2);
    let refused = |answer| matches!(answer, std::task::Poll::Ready(Err(AppendError::Overloaded { .. })));
    assert!(refused(try_one("c").1));
    taken.replies.remove(0).send(Err(AppendError::Closed));
    let (_third, answer) = try_one("c");
    assert!(answer.is_pending());
    assert!(refused(try_one("d").1));
}

/// What a writer has taken may be stored at any time; the caller waits no longer than it said.
#[tokio::test(start_paused = true)]
async fn a_deadline_leaves_the_outcome_of_an_append_that_was_taken_unknown() {
    let queue = Arc::new(Queue::new(Bounds::default()));
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_millis(200);
    let (taken, queued) = (append("t", "a", 1).with_deadline(deadline), append("t", "b", 1).with_deadline(deadline));
    let (sent, waits) = (append_later(&queue, taken), append_later(&queue, queued));
    tokio::task::yield_now().await;
    // The second repeats nothing; it is put back by taking the first alone.
    let first = queue.gather(&Limits { batch_bytes: 1, ..Limits::default() });
    assert_eq!(first.appends.len(), 1);
    assert!(matches!(sent.await.expect("it ends"), Err(AppendError::OutcomeUnknown { .. })));
    assert!(matches!(waits.await.expect("it ends"), Err(AppendError::DeadlineExceeded { .. })));
    assert_eq!(tokio::time::Instant::now(), deadline);
}

fn append_later(queue: &Arc<Queue>, append: Append) -> tokio::task::JoinHandle<Result<Appended, AppendError>> {
    let queue = Arc::clone(queue);
    let append = append.check(&Limits::default()).expect("it is sound");
    tokio::spawn(async move { queue.append(append, &Limits::default()).await })
}
