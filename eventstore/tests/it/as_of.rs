//! What was true then, on every store: a fold of a prefix of the log in whole appends, and the same when asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals_eventstore::conformance::{Backend, Setup};
use annals_eventstore::{
    AggregateStore, Append, AsOf, Clock, EventStore, EventStoreExt, Evolve, ExpectedVersion, Filter, Limits,
    ManualClock, MemoryStore, Position, ReadError, RecordedEvent, Repository, StreamId, StreamPage, StreamVersion,
    Tenant, forward_event_store,
};
use annals_macros::{Aggregate, Event};
use async_trait::async_trait;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::backends::{InMemory, OnDisk};

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub(crate) enum Counted {
    #[event(name = "counted")]
    Counted { n: u64 },
}

/// All that has happened, so that no two prefixes have the same state.
#[derive(Aggregate, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[aggregate(name = "counter", id = String, event = Counted, snapshot(every = 2))]
pub(crate) struct Counter {
    numbers: Vec<u64>,
    last: Option<u64>,
}

impl Evolve for Counter {
    fn evolve(&mut self, Counted::Counted { n }: &Counted) {
        self.numbers.push(*n);
        self.last = Some(*n);
    }
}

fn stream(id: &str) -> StreamId {
    StreamId::new(Tenant::default(), "counter", id).unwrap()
}

async fn log_of(store: &Arc<dyn EventStore>) -> Vec<RecordedEvent> {
    store.read_all(Position::START, Filter::all()).try_collect().await.unwrap()
}

/// The events of the prefix that `includes` the events at its beginning, in whole appends.
pub(crate) fn prefix(log: &[RecordedEvent], includes: impl Fn(&RecordedEvent) -> bool) -> &[RecordedEvent] {
    let mut end = log.iter().position(|event| !includes(event)).unwrap_or(log.len());
    loop {
        let (within, after) = log.split_at(end);
        let is_divided = |event: &RecordedEvent| {
            event.append_id.is_some() && after.iter().any(|later| later.append_id == event.append_id)
        };
        match within.iter().position(is_divided) {
            Some(first) => end = first,
            None => return within,
        }
    }
}

/// The state of an aggregate after those of the events that are of its stream, and how many they are.
fn folded(events: &[RecordedEvent], id: &str) -> (Counter, i64) {
    let own: Vec<_> = events.iter().filter(|event| event.stream == stream(id)).collect();
    let mut state = Counter::default();
    for event in own.iter().flat_map(|event| event.decode().unwrap()) {
        state.evolve(&event);
    }
    (state, i64::try_from(own.len()).unwrap())
}

/// A store with a history, and what was asked of it.
struct Past {
    store: Arc<dyn EventStore>,
    counters: Repository<Counter>,
    /// `None` if the store has its own.
    clock: Option<Arc<ManualClock>>,
    random: fastrand::Rng,
    counted: u64,
}

impl Past {
    async fn of(backend: &impl Backend, seed: u64) -> Self {
        let clock = Arc::new(ManualClock::at("2026-03-02T12:00:00Z".parse().unwrap()));
        let setup = Setup { clock: Arc::clone(&clock), limits: Limits::default() };
        let store = backend.open(&setup).await;
        Self {
            counters: store.aggregate(),
            store,
            clock: backend.capabilities().clock.then_some(clock),
            random: fastrand::Rng::with_seed(seed),
            counted: 0,
        }
    }

    /// Appends to one or more of three streams; before that the clock may stand, go on or go back.
    async fn append(&mut self) {
        if let Some(clock) = &self.clock {
            let step = [0, 0, 1, 60, -90, -1][self.random.usize(..6)];
            clock.set(clock.now() + SignedDuration::from_secs(step));
        }
        let mut ids = ["a", "b", "c"];
        self.random.shuffle(&mut ids);
        let mut append: Option<Append> = None;
        for id in &ids[..self.random.usize(1..=3)] {
            let events = (0..self.random.usize(1..=3)).map(|_| {
                self.counted += 1;
                self.store.new_event(&Counted::Counted { n: self.counted }).unwrap()
            });
            let events = events.collect();
            append = Some(match append {
                None => Append::to(stream(id), ExpectedVersion::Any, events),
                Some(append) => append.and(stream(id), ExpectedVersion::Any, events),
            });
        }
        self.store.append_many(append.unwrap()).await.unwrap();
    }

    /// Has snapshots taken at the present versions, and waits for them.
    async fn take_snapshots(&self) {
        let mut due = 0;
        for id in ["a", "b", "c"] {
            let loaded = self.counters.load(&id.to_owned()).await.unwrap();
            due += u64::from(loaded.version.get() >= 2);
        }
        while self.counters.snapshot_stats().saved < due {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Compares the answer of the repository with the fold of the prefix.
    async fn check(&self, log: &[RecordedEvent], as_of: AsOf) -> Option<(AsOf, Position)> {
        let events = match as_of {
            AsOf::Position(position) => prefix(log, |event| event.position <= position),
            AsOf::Time(time) => prefix(log, |event| event.recorded_at <= time),
            _ => unreachable!("a log has no versions"),
        };
        let end = events.last().map_or(Position::START, |event| event.position);
        for id in ["a", "b", "c"] {
            let answer = match self.counters.as_of(&id.to_owned(), as_of).await {
                Ok(answer) => answer,
                Err(ReadError::Invalid(invalid)) => {
                    assert_eq!(invalid.field, "time");
                    assert_eq!(events.len(), log.len(), "{as_of} is over: {invalid}");
                    return None;
                }
                Err(other) => panic!("{as_of}: {other:?}"),
            };
            let found = (Counter::clone(&answer.state), answer.version.get());
            assert_eq!((found, answer.position), (folded(events, id), end), "`{id}` as of {as_of}");
        }
        Some((as_of, end))
    }
}

/// Random histories on one store after the other.
async fn check_histories<B: Backend>(rounds: usize, backend: impl Fn() -> B) {
    let seed =
        std::env::var("ANNALS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("ANNALS_SEED={seed}");
    for round in 0..rounds {
        let backend = backend();
        let mut past = Past::of(&backend, seed.wrapping_add(u64::try_from(round).unwrap())).await;
        for _ in 0..past.random.usize(1..12) {
            past.append().await;
        }
        let log = log_of(&past.store).await;
        let last = log.last().unwrap().position.get();
        let mut asked: Vec<AsOf> = (0..=last).map(|at| AsOf::position(Position::new(at).unwrap())).collect();
        for time in log.iter().map(|event| event.recorded_at) {
            let micro = Duration::from_micros(1);
            asked.extend([time - micro, time, time + micro].map(AsOf::time));
        }
        let mut answers = Vec::new();
        for as_of in asked {
            answers.extend(past.check(&log, as_of).await);
        }
        // The clock is not set back past what was asked.
        if let Some(clock) = &past.clock {
            clock.set(log.iter().map(|event| event.recorded_at).max().unwrap() + Duration::from_secs(1_000));
        }
        for _ in 0..3 {
            past.append().await;
        }
        if round % 3 == 0 {
            past.take_snapshots().await;
            past.append().await;
        }
        let log = log_of(&past.store).await;
        for (as_of, end) in answers {
            let again = past.check(&log, as_of).await.unwrap();
            assert_eq!(again.1, end, "{as_of} again");
        }
        for id in ["a", "b", "c"] {
            check_versions(&past.counters, &log, id).await;
        }
        past.store.close().await;
    }
}

/// Every version, and the history, of one stream.
async fn check_versions(counters: &Repository<Counter>, log: &[RecordedEvent], id: &str) {
    let own: Vec<_> = log.iter().filter(|event| event.stream == stream(id)).cloned().collect();
    let history = counters.history(&id.to_owned()).await.unwrap();
    assert_eq!(history.iter().map(|step| &step.event).collect::<Vec<_>>(), own.iter().collect::<Vec<_>>());
    for version in 0..=own.len() {
        let expected = folded(&own[..version], id);
        let answer = counters.as_of(&id.to_owned(), AsOf::version(expected.1)).await.unwrap();
        assert_eq!((Counter::clone(&answer.state), answer.version.get()), expected);
        assert_eq!(answer.existed(), version > 0);
        let position = own[..version].last().map_or(Position::START, |event| event.position);
        assert_eq!(answer.position, position);
        if let Some(step) = version.checked_sub(1).map(|index| &history[index]) {
            assert_eq!(*step.state, expected.0);
            let before = folded(&own[..version - 1], id).0;
            assert_eq!(step.changed.len(), 2);
            assert_eq!(step.changed[0].field, "last");
            assert_eq!(step.changed[0].before, Some(serde_json::json!(before.last)));
            assert_eq!(step.changed[1].after, Some(serde_json::json!(expected.0.numbers)));
        }
    }
}

#[tokio::test]
async fn every_past_of_a_memory_store_is_the_fold_of_a_prefix() {
    check_histories(60, || InMemory).await;
}

#[tokio::test]
async fn every_past_of_an_sqlite_store_is_the_fold_of_a_prefix() {
    check_histories(6, OnDisk::new).await;
    check_histories(2, OnDisk::by_the_clock_of_the_machine).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn every_past_of_a_postgres_store_is_the_fold_of_a_prefix() {
    check_histories(4, crate::backends::InPostgres::default).await;
}

/// Versions and positions that are not there, on a stream of one event.
async fn check_absent(backend: impl Backend) {
    let past = Past::of(&backend, 7).await;
    let event = |n| past.store.new_event(&Counted::Counted { n }).unwrap();
    let done = past.store.append(&stream("a"), ExpectedVersion::NoStream, vec![event(1)]).await.unwrap();
    let (a, unknown) = ("a".to_owned(), "unknown".to_owned());
    let refused = async |id, as_of| match past.counters.as_of(id, as_of).await {
        Err(ReadError::Invalid(invalid)) => invalid.to_string(),
        other => panic!("{as_of}: {other:?}"),
    };
    let beyond = "`version` is 2, but `default/counter/a` is at version 1; ask for one up to 1";
    assert_eq!(refused(&a, AsOf::version(2)).await, beyond);
    let never = "`version` is 1, but `default/counter/unknown` is at version 0; ask for one up to 0";
    assert_eq!(refused(&unknown, AsOf::version(1)).await, never);
    let negative = "`version` is -1, but versions count from 1; use 0 for the state before the first event";
    assert_eq!(refused(&a, AsOf::version(-1)).await, negative);
    let next = Position::new(done.position.get() + 1).unwrap();
    let beyond = format!("`position` is {next}, but the log ends at {0}; ask for a position up to {0}", done.position);
    assert_eq!(refused(&a, AsOf::position(next)).await, beyond);
    assert!(refused(&a, AsOf::time(Timestamp::MAX)).await.contains("but the clock of the store shows"));

    let before_the_first = AsOf::time(done.recorded_at - Duration::from_micros(1));
    for (id, as_of) in [
        (&a, AsOf::version(0)),
        (&a, AsOf::position(Position::START)),
        (&a, before_the_first),
        (&unknown, AsOf::version(0)),
        (&unknown, AsOf::position(done.position)),
        (&unknown, before_the_first),
    ] {
        let answer = past.counters.as_of(id, as_of).await.unwrap();
        assert!(!answer.existed() && *answer.state == Counter::default(), "{as_of}: {answer:?}");
    }
    assert!(past.counters.history(&unknown).await.unwrap().is_empty());
    assert_eq!(past.counters.as_of(&a, AsOf::version(1)).await.unwrap().state.numbers, [1]);
    assert_eq!(past.counters.as_of(&a, AsOf::position(done.position)).await.unwrap().state.numbers, [1]);
}

#[tokio::test]
async fn a_past_that_is_not_there_is_refused_and_one_before_the_first_event_is_empty() {
    check_absent(InMemory).await;
    check_absent(OnDisk::new()).await;
    #[cfg(feature = "postgres")]
    check_absent(crate::backends::InPostgres::default()).await;
}

/// 250 events; the clock is set back by an hour for event 120, and 200 to 210 have equal times.
#[tokio::test]
async fn times_that_do_not_rise_divide_the_log_at_the_first_event_after_them() {
    for backend in [&InMemory as &dyn Backend, &OnDisk::new()] {
        let clock = Arc::new(ManualClock::at("2026-03-02T12:00:00Z".parse().unwrap()));
        let store = backend.open(&Setup { clock: Arc::clone(&clock), limits: Limits::default() }).await;
        let counters: Repository<Counter> = store.aggregate();
        let hour = SignedDuration::from_hours(1);
        for n in 1..=250 {
            let now = clock.now();
            let step = if (201..=210).contains(&n) { 0 } else { 1 };
            clock.set(now + SignedDuration::from_secs(step) - if n == 120 { hour } else { SignedDuration::ZERO });
            let event = store.new_event(&Counted::Counted { n }).unwrap();
            store.append(&stream("a"), ExpectedVersion::Any, vec![event]).await.unwrap();
            clock.set(now + SignedDuration::from_secs(step));
        }
        clock.advance(Duration::from_secs(1));
        let log = log_of(&store).await;
        for time in log.iter().map(|event| event.recorded_at) {
            let events = prefix(&log, |event| event.recorded_at <= time);
            for _ in 0..2 {
                let answer = counters.as_of(&"a".to_owned(), AsOf::time(time)).await.unwrap();
                assert_eq!(Counter::clone(&answer.state), folded(events, "a").0, "as of {time}");
            }
        }
        assert!(!counters.as_of(&"a".to_owned(), AsOf::time(log[119].recorded_at)).await.unwrap().existed());
        let equal = counters.as_of(&"a".to_owned(), AsOf::time(log[204].recorded_at)).await.unwrap();
        assert_eq!(equal.version.get(), 210);
        let history = counters.history(&"a".to_owned()).await.unwrap();
        assert!(history.iter().map(|step| step.event.version.get()).eq(1..=250));
    }
}

/// Cutting off the digits below a microsecond gives a later time before 1970, so that an event after the time was included.
#[tokio::test]
async fn times_between_microseconds_end_before_the_next_event_also_before_1970() {
    for backend in [&InMemory as &dyn Backend, &OnDisk::new()] {
        let clock = Arc::new(ManualClock::at("1969-12-31T23:59:59.999990Z".parse().unwrap()));
        let store = backend.open(&Setup { clock: Arc::clone(&clock), limits: Limits::default() }).await;
        for n in 0..20 {
            let event = store.new_event(&Counted::Counted { n }).unwrap();
            store.append(&stream("a"), ExpectedVersion::Any, vec![event]).await.unwrap();
            clock.advance(Duration::from_micros(1));
        }
        let log = log_of(&store).await;
        for nanos in (-12_000_i128..9_000).step_by(250) {
            let time = Timestamp::from_nanosecond(nanos).unwrap();
            let answer = store.log_as_of(AsOf::time(time)).await.unwrap();
            let expected = prefix(&log, |event| event.recorded_at <= time);
            assert_eq!(answer.position, expected.last().map_or(Position::START, |event| event.position), "{time}");
        }
    }
}

/// Gives three events of one history, and from then on another one, as a failover between two pages does.
struct Replaced {
    first: MemoryStore,
    then: MemoryStore,
    is_replaced: AtomicBool,
}

#[async_trait]
impl EventStore for Replaced {
    forward_event_store!(self => self.then; except load_page);

    async fn load_page(&self, stream: &StreamId, after: StreamVersion, limit: usize) -> Result<StreamPage, ReadError> {
        match self.is_replaced.swap(true, Ordering::SeqCst) {
            false => self.first.load_page(stream, after, 3).await,
            true => self.then.load_page(stream, after, limit).await,
        }
    }
}

#[tokio::test]
async fn a_history_that_is_replaced_while_it_is_read_is_only_the_new_one() {
    let (first, then) = (MemoryStore::new(), MemoryStore::new());
    for (store, numbers) in [(&first, 1..=5), (&then, 11..=14)] {
        let events = numbers.map(|n| store.new_event(&Counted::Counted { n }).unwrap()).collect();
        store.append(&stream("a"), ExpectedVersion::NoStream, events).await.unwrap();
    }
    let store = Arc::new(Replaced { first, then, is_replaced: AtomicBool::new(false) });
    let counters = Repository::<Counter>::new(store);
    let history = counters.history(&"a".to_owned()).await.unwrap();
    let steps: Vec<(i64, String)> =
        history.iter().map(|step| (step.event.version.get(), step.changed[0].to_string())).collect();
    let last = ["null -> 11", "11 -> 12", "12 -> 13", "13 -> 14"].map(|change| format!("last: {change}"));
    assert_eq!(steps, (1..=4).zip(last).collect::<Vec<_>>());
}
