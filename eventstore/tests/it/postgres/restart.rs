//! A server that is stopped and started under writers and readers.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_eventstore::{
    Append, Appended, ErrorFamily, EventId, EventStore, EventStoreExt, ExpectedVersion, Filter, Position,
    PostgresOptions, PostgresStore, RecordedEvent, StreamVersion,
};
use annals_scratch::{Server, Stop};
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};

use super::{event_for, stream};

const WRITERS: usize = 12;

/// How long any task may take to continue after the server has restarted.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// What the writers have found out together.
#[derive(Default)]
struct Known {
    over: AtomicBool,
    /// How many appends were answered.
    answered: AtomicUsize,
    /// How many appends were unknown at first, and how many of those turned out to be stored.
    unknown: AtomicUsize,
    found: AtomicUsize,
    acknowledged: Mutex<Vec<(Vec<EventId>, Appended)>>,
}

/// Appends until the end; each append is repeated until its outcome is known, as `ErrorFamily` requires.
async fn write(store: PostgresStore, writer: usize, known: Arc<Known>) {
    let mut round = 0;
    while !known.over.load(Ordering::Acquire) {
        // Alone and in groups, outside of the groups, to several streams.
        let count = [1, 3, 30][(writer + round) % 3];
        let events: Vec<_> = (0..count).map(|_| event_for(&store)).collect();
        let mut ids: Vec<EventId> = events.iter().map(|event| event.event_id).collect();
        let mut append = Append::to(stream(&format!("w{writer}")), ExpectedVersion::Any, events);
        if round % 4 == 0 {
            let more = event_for(&store);
            ids.push(more.event_id);
            append = append.and(stream("shared"), ExpectedVersion::Any, vec![more]);
        }
        let mut unknown = false;
        let appended = loop {
            match store.append_many(append.clone()).await {
                Ok(appended) => break appended,
                Err(error) => match error.family() {
                    ErrorFamily::OutcomeUnknown => unknown = true,
                    ErrorFamily::Transient => {}
                    _ => panic!("{error:?}"),
                },
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        // An append with a transient error was not stored.
        assert!(unknown || !appended.repeated, "{appended:?}");
        known.unknown.fetch_add(usize::from(unknown), Ordering::AcqRel);
        known.found.fetch_add(usize::from(appended.repeated), Ordering::AcqRel);
        known.acknowledged.lock().unwrap().push((ids, appended));
        known.answered.fetch_add(1, Ordering::AcqRel);
        round += 1;
    }
}

/// Loads streams until it is over: each load is as long as the one before, or longer.
async fn load(store: PostgresStore, known: Arc<Known>) {
    let mut seen = 0;
    while !known.over.load(Ordering::Acquire) {
        match store.load_page(&stream("w0"), StreamVersion::new(seen).unwrap(), 1000).await {
            Ok(page) => seen = page.events.last().map_or(seen, |event| event.version.get()),
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Subscribes until the event with this id has come.
async fn subscribe(store: PostgresStore, filter: Filter, last: Arc<Mutex<Option<EventId>>>) -> Vec<RecordedEvent> {
    let mut subscription = store.subscribe(Position::START, filter);
    let mut seen = Vec::new();
    loop {
        let event = subscription.next().await.unwrap().unwrap();
        let id = event.event_id;
        seen.push(event);
        if *last.lock().unwrap() == Some(id) {
            return seen;
        }
    }
}

/// Waits until writers have got further than they were.
async fn continues(known: &Known) {
    let target = known.answered.load(Ordering::Acquire) + 4 * WRITERS;
    let continues = async {
        while known.answered.load(Ordering::Acquire) < target {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(MAX_WAIT, continues).await.expect("writers continue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_restart_under_writers_and_readers_loses_and_doubles_nothing() {
    let server = Server::start(&[]);
    let store = PostgresOptions::new(server.url("postgres")).migrate().open().await.unwrap();
    let other = PostgresOptions::new(server.url("postgres")).open().await.unwrap();
    let known = Arc::new(Known::default());
    let last = Arc::new(Mutex::new(None));
    let filtered = Filter::all().aggregate_type("order").unwrap();
    let readers = [Filter::all(), filtered].map(|filter| {
        // Not the handle of most writers, so that it needs notifications or polling.
        tokio::spawn(subscribe(other.clone(), filter, last.clone()))
    });
    let loading = tokio::spawn(load(other.clone(), known.clone()));
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| tokio::spawn(write(if n == 0 { other.clone() } else { store.clone() }, n, known.clone())))
        .collect();
    continues(&known).await;
    for how in [Stop::Fast, Stop::Immediate] {
        tokio::task::block_in_place(|| server.restart(how));
        continues(&known).await;
    }
    known.over.store(true, Ordering::Release);
    for ended in join_all(writers).await {
        ended.unwrap();
    }
    loading.await.unwrap();
    let end = event_for(&store);
    *last.lock().unwrap() = Some(end.event_id);
    store.append(&stream("end"), ExpectedVersion::NoStream, vec![end.clone()]).await.unwrap();

    let log = store.read_all(Position::START, Filter::all()).try_collect::<Vec<_>>().await.unwrap();
    let ids: Vec<_> = log.iter().map(|event| event.event_id).collect();
    let by_id: HashMap<_, _> = log.iter().map(|event| (event.event_id, event)).collect();
    assert_eq!(by_id.len(), log.len());
    let mut sent = HashSet::from([end.event_id]);
    for (ids, appended) in known.acknowledged.lock().unwrap().iter() {
        sent.extend(ids);
        let stored: Vec<_> =
            ids.iter().map(|id| by_id.get(id).expect("what was acknowledged is there").position).collect();
        let answered: Vec<_> = appended.streams.iter().flat_map(|stream| stream.positions.clone()).collect();
        assert_eq!(stored, answered);
    }
    assert_eq!(sent.len(), log.len(), "nothing else is there");
    let mut versions: HashMap<_, i64> = HashMap::new();
    for event in &log {
        let version = versions.entry(&event.stream).or_default();
        *version += 1;
        assert_eq!(event.version.get(), *version, "{}", event.stream);
    }
    for reader in readers {
        let seen = tokio::time::timeout(MAX_WAIT, reader).await.expect("subscribers continue").unwrap();
        assert_eq!(seen.iter().map(|event| event.event_id).collect::<Vec<_>>(), ids);
    }
    let unknown = known.unknown.load(Ordering::Acquire);
    let all = known.answered.load(Ordering::Acquire);
    println!("{unknown} of {all} appends were unknown, {} of them stored", known.found.load(Ordering::Acquire));
    assert!(unknown > 0, "no append was under way when the server went");
}
