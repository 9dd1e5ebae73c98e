//! The streams of events over a store that meets the contract only minimally: short pages, pages without events, an end that
//! is reported one page late, wakes without an event.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_eventstore::{
    After, Append, AppendError, Appended, BackendError, EventId, EventStore, EventStoreExt, ExpectedVersion, Filter,
    MemoryStore, NewEvent, Page, Payload, Position, ReadError, RecordedEvent, StreamFilter, StreamId, StreamInfo,
    StreamPage, StreamVersion, Tenant, forward_event_store,
};
use async_trait::async_trait;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Longer than anything but a missed wake takes; time is paused, so it costs no real time.
const SOON: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct MinimalStore {
    inner: MemoryStore,
    /// The most of anything in a page.
    most: usize,
    /// The limits of the reads.
    asked: Arc<Mutex<Vec<usize>>>,
    /// How many events another writer appends between the read of the end of the log and its answer. The first read there
    /// is answered at once, so each time it is the second, whose reader waits.
    concurrent_appends: Arc<AtomicU64>,
    looks_at_the_end: Arc<AtomicU64>,
    /// How many reads of the log fail, for now.
    failures: Arc<AtomicU64>,
    /// How many reads of the log are answered, and what happens to later ones.
    answers: Arc<AtomicU64>,
    after_last: AfterLast,
    /// How many unanswered reads were aborted.
    aborted: Arc<AtomicU64>,
    head: Arc<Mutex<Option<watch::Sender<Position>>>>,
}

#[derive(Clone, Copy)]
enum AfterLast {
    Hang,
    Panic,
}

/// Counts when it is dropped.
struct CountAborted(Arc<AtomicU64>);

impl Drop for CountAborted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl MinimalStore {
    fn new(most: usize) -> Self {
        Self {
            inner: MemoryStore::new(),
            most,
            asked: Arc::default(),
            concurrent_appends: Arc::default(),
            looks_at_the_end: Arc::default(),
            failures: Arc::default(),
            answers: Arc::new(AtomicU64::new(u64::MAX)),
            after_last: AfterLast::Hang,
            aborted: Arc::default(),
            head: Arc::new(Mutex::new(Some(watch::Sender::new(Position::START)))),
        }
    }

    /// A store that answers so many reads of the log.
    fn answering(answers: u64, after_last: AfterLast) -> Self {
        Self { answers: Arc::new(AtomicU64::new(answers)), after_last, ..Self::new(usize::MAX) }
    }

    fn asked(&self) -> Vec<usize> {
        self.asked.lock().unwrap().clone()
    }

    fn limit(&self, limit: usize) -> usize {
        self.asked.lock().unwrap().push(limit);
        limit.min(self.most)
    }

    /// Wakes waiting readers, whether there is an event or not.
    fn wake(&self) {
        if let Some(head) = &*self.head.lock().unwrap() {
            head.send_modify(|_| {});
        }
    }

    async fn fill(&self, id: &str, name: &str, count: usize) {
        for _ in 0..count {
            let event_id = EventId::new(self.inner.ids().next_id()).unwrap();
            let event = NewEvent::raw(event_id, name, 1, Payload::of(&0).unwrap()).unwrap();
            self.append(&stream(id), ExpectedVersion::Any, vec![event]).await.unwrap();
        }
    }
}

fn take_one(of: &AtomicU64) -> bool {
    of.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
}

#[async_trait]
impl EventStore for MinimalStore {
    forward_event_store!(self => self.inner; except append_many, load_page, read_page, streams_page, watch, close);

    async fn append_many(&self, append: Append) -> Result<Appended, AppendError> {
        let done = self.inner.append_many(append).await?;
        self.wake();
        Ok(done)
    }

    async fn load_page(&self, stream: &StreamId, after: StreamVersion, limit: usize) -> Result<StreamPage, ReadError> {
        let page = self.inner.load_page(stream, after, self.limit(limit)).await?;
        let end = page.events.is_empty();
        Ok(StreamPage::new(page.events, end))
    }

    async fn read_page(&self, after: After, filter: &Filter, limit: usize) -> Result<Page, ReadError> {
        if take_one(&self.failures) {
            return Err(ReadError::Unavailable { source: BackendError::new("not now") });
        }
        if !take_one(&self.answers) {
            let _given_up = CountAborted(Arc::clone(&self.aborted));
            match self.after_last {
                AfterLast::Hang => std::future::pending::<()>().await,
                AfterLast::Panic => panic!("the store has a fault"),
            }
        }
        // Reads a few events, whether they match the filter or not.
        let mut page = self.inner.read_page(after, &Filter::all(), self.limit(limit)).await?;
        page.events.retain(|event| filter.matches(event));
        page.end = page.checkpoint.is_none();
        if page.end
            && self.looks_at_the_end.fetch_add(1, Ordering::AcqRel) % 2 == 1
            && take_one(&self.concurrent_appends)
        {
            self.fill("other", "n", 1).await;
        }
        Ok(page)
    }

    async fn streams_page(
        &self,
        filter: &StreamFilter,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<StreamInfo>, ReadError> {
        self.inner.streams_page(filter, after, self.limit(limit)).await
    }

    fn watch(&self) -> watch::Receiver<Position> {
        match &*self.head.lock().unwrap() {
            Some(head) => head.subscribe(),
            None => watch::channel(Position::START).1,
        }
    }

    async fn close(&self) {
        self.inner.close().await;
        self.wake();
    }
}

fn stream(id: &str) -> StreamId {
    StreamId::new(Tenant::default(), "order", id).unwrap()
}

fn positions(events: &[RecordedEvent]) -> Vec<i64> {
    events.iter().map(|event| event.position.get()).collect()
}

#[tokio::test(start_paused = true)]
async fn short_and_empty_pages_end_no_read_before_its_end() {
    for most in [1, 2, 3] {
        timeout(SOON, reads_in_pages_of(most)).await.expect("every read ends");
    }
}

async fn reads_in_pages_of(most: usize) {
    let store = MinimalStore::new(most);
    for n in 0..7 {
        store.fill(&format!("s{n}"), "other", 3).await;
    }
    store.fill("s3", "matching", 1).await;
    store.fill("s6", "other", 4).await;
    store.fill("s3", "matching", 1).await;
    let all: Vec<_> = store.read_all(Position::START, Filter::all()).try_collect().await.unwrap();
    assert_eq!(positions(&all), (1..=27).collect::<Vec<_>>());
    let filter = Filter::all().event_name("matching").unwrap();
    let some: Vec<_> = store.read_all(Position::START, filter.clone()).try_collect().await.unwrap();
    assert_eq!(positions(&some), [22, 27]);
    let live: Vec<_> = store.subscribe(Position::START, filter).take(2).try_collect().await.unwrap();
    assert_eq!(positions(&live), [22, 27]);
    let one: Vec<_> = store.load(&stream("s3")).try_collect().await.unwrap();
    assert_eq!(one.iter().map(|event| event.version.get()).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let streams: Vec<_> = store.streams(StreamFilter::all()).try_collect().await.unwrap();
    let versions: Vec<_> = streams.iter().map(|info| info.version.get()).collect();
    assert_eq!(versions, [3, 3, 3, 5, 3, 3, 7]);
}

#[tokio::test(start_paused = true)]
async fn pages_grow_to_four_thousand_events_and_no_further() {
    let store = MinimalStore::new(usize::MAX);
    let events = |count: usize| {
        let new = || EventId::new(store.ids().next_id()).unwrap();
        (0..count).map(|n| NewEvent::raw(new(), "n", 1, Payload::of(&n).unwrap()).unwrap()).collect::<Vec<_>>()
    };
    for _ in 0..10 {
        store.append(&stream("a"), ExpectedVersion::Any, events(1_000)).await.unwrap();
    }
    let log = store.read_all(Position::START, Filter::all()).try_collect::<Vec<_>>();
    let log = timeout(SOON, log).await.expect("it ends").unwrap();
    // The page with `end` follows the last event.
    assert_eq!((log.len(), store.asked()), (10_000, vec![64, 256, 1_024, 4_096, 4_096, 4_096, 4_096]));
    store.asked.lock().unwrap().clear();
    let one: Vec<_> = store.load(&stream("a")).try_collect().await.unwrap();
    // Here the last event is read again, and then the next ones.
    assert_eq!((one.len(), store.asked()), (10_000, vec![256, 1_024, 4_096, 4_096, 4_096, 4_096, 4_096]));
    for n in 0..400 {
        store.append(&stream(&format!("s{n}")), ExpectedVersion::NoStream, events(1)).await.unwrap();
    }
    store.asked.lock().unwrap().clear();
    let streams: Vec<_> = store.streams(StreamFilter::all()).try_collect().await.unwrap();
    assert_eq!((streams.len(), store.asked()), (401, vec![64, 256, 1_024, 1_024]));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_comes_between_a_look_and_the_wait_is_not_missed() {
    let store = MinimalStore::new(usize::MAX);
    store.concurrent_appends.store(20, Ordering::Release);
    let mut events = store.subscribe(Position::START, Filter::all());
    for n in 1..=20 {
        let next = timeout(SOON, events.next()).await.expect("the wake was not missed");
        assert_eq!(next.unwrap().unwrap().position.get(), n);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wake_for_nothing_gives_nothing_and_the_next_failure_waits_no_longer_than_the_first() {
    let store = MinimalStore::new(usize::MAX);
    let mut events = store.subscribe(Position::START, Filter::all());
    assert!(events.next().now_or_never().is_none());
    for round in 0..10 {
        store.failures.store(4, Ordering::Release);
        store.wake();
        let begun = Instant::now();
        assert!(timeout(Duration::from_secs(30), events.next()).await.is_err(), "there is no event");
        assert_eq!(store.failures.load(Ordering::Acquire), 0, "round {round}");
        // 50, 100, 200 and 400 ms at most, starting again each time.
        store.failures.store(4, Ordering::Release);
        store.wake();
        assert!(timeout(Duration::from_millis(760), events.next()).await.is_err());
        assert_eq!(store.failures.load(Ordering::Acquire), 0, "round {round}, {:?}", begun.elapsed());
    }
    store.fill("a", "n", 1).await;
    assert_eq!(events.next().await.unwrap().unwrap().position.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_without_notifications_gets_the_present_events_and_ends() {
    let store = MinimalStore::new(usize::MAX);
    store.fill("a", "n", 2).await;
    let mut events = store.subscribe(Position::START, Filter::all());
    for n in 1..=2 {
        assert_eq!(events.next().await.unwrap().unwrap().position.get(), n);
    }
    assert!(timeout(Duration::from_secs(1), events.next()).await.is_err(), "it waits");
    // An event without a notification, and then no notifications at all.
    let head = store.head.lock().unwrap().take();
    store.fill("a", "n", 1).await;
    drop(head);
    let next = timeout(SOON, events.next()).await.expect("it does not wait");
    assert_eq!(next.unwrap().unwrap().position.get(), 3);
    let last = timeout(SOON, events.next()).await.expect("it does not wait");
    assert!(matches!(last, Some(Err(ReadError::Closed))), "{last:?}");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_dropped_read_is_aborted() {
    let store = MinimalStore::answering(1, AfterLast::Hang);
    store.fill("a", "n", 100).await;
    let mut events = store.read_all(Position::START, Filter::all());
    for _ in 0..64 {
        events.next().await.unwrap().unwrap();
    }
    assert!(events.next().now_or_never().is_none(), "the second page never comes");
    tokio::task::yield_now().await;
    assert_eq!(store.aborted.load(Ordering::Acquire), 0, "it is still in use");
    drop(events);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.aborted.load(Ordering::Acquire), 1);
}

#[tokio::test]
async fn a_panic_of_the_store_reaches_the_reader() {
    let store = MinimalStore::answering(1, AfterLast::Panic);
    store.fill("a", "n", 100).await;
    let mut events = store.subscribe(Position::START, Filter::all());
    for _ in 0..64 {
        events.next().await.unwrap().unwrap();
    }
    let panic = std::panic::AssertUnwindSafe(events.next()).catch_unwind().await.expect_err("it panics");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"the store has a fault"));
}
