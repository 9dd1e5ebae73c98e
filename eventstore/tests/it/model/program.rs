//! Random programs, and how a step of one runs on a store and on the model.

use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::conformance::{Backend, Setup};
use annals_eventstore::{
    After, Appended, CorrelationId, EventId, EventStore, EventStoreExt, ExpectedVersion, Filter, Fingerprint, Metadata,
    NewEvent, Payload, Position, ReadError, RecordedEvent, RequestKey, StreamFilter, StreamId, StreamVersion, Tenant,
};
use futures::TryStreamExt;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::oracle::{Asked, LIFETIME, Oracle, Verdict, fits};

type Outcome = Result<(), TestCaseError>;

const TENANTS: [&str; 2] = ["ours", "theirs"];
const TYPES: [&str; 2] = ["order", "payment"];
const NAMES: [&str; 3] = ["placed", "paid", "sent"];
const CORRELATIONS: [&str; 2] = ["c1", "c2"];

/// A step of a program. Numbers are taken modulo what there is, so that every shorter program makes sense too.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Append { tenant: usize, parts: Vec<(usize, Expectation, usize)>, request: Option<(usize, u8)> },
    Repeat { which: usize, change: Change },
    Load { stream: usize, after: usize, limit: usize },
    Read { after: usize, filter: Conditions, limit: usize },
    Beyond { by: i64 },
    Find { key: usize, body: u8 },
    Wait { seconds: u64 },
    Reopen,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Expectation {
    NoStream,
    Any,
    Exists,
    /// The stream's version and so many more.
    Off(i64),
    /// The stream's last event, or (if false) its first.
    LastEvent(bool),
}

/// The difference of a repeated append from the earlier one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Nothing,
    Expectation,
    DropLast,
    AddOne,
    Reverse,
    Content,
    Stream,
}

#[derive(Clone, Debug)]
pub(crate) struct Conditions {
    tenant: Option<usize>,
    types: Vec<usize>,
    names: Vec<usize>,
    correlation: Option<usize>,
}

impl Conditions {
    /// The model's own word on the filter, independent of the store's.
    fn matches(&self, event: &RecordedEvent) -> bool {
        let one_of =
            |chosen: &[usize], all: &[&str], found: &str| chosen.is_empty() || chosen.iter().any(|&n| all[n] == found);
        let correlation = event.metadata.correlation_id.as_ref().map(CorrelationId::as_str);
        self.tenant.is_none_or(|n| TENANTS[n] == event.stream.tenant().as_str())
            && one_of(&self.types, &TYPES, event.stream.aggregate_type())
            && one_of(&self.names, &NAMES, &event.name)
            && self.correlation.is_none_or(|n| Some(CORRELATIONS[n]) == correlation)
    }
}

pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    let expectation = prop_oneof![
        2 => Just(Expectation::Any),
        1 => Just(Expectation::NoStream),
        1 => Just(Expectation::Exists),
        4 => Just(Expectation::Off(0)),
        1 => (-2_i64..3).prop_map(Expectation::Off),
        3 => prop_oneof![4 => Just(true), 1 => Just(false)].prop_map(Expectation::LastEvent),
    ];
    let request = proptest::option::weighted(0.3, (0_usize..4, 0_u8..2));
    let change = prop_oneof![
        3 => Just(Change::Nothing),
        1 => Just(Change::Expectation),
        1 => Just(Change::DropLast),
        1 => Just(Change::AddOne),
        1 => Just(Change::Reverse),
        1 => Just(Change::Content),
        1 => Just(Change::Stream),
    ];
    let conditions = (
        proptest::option::of(0_usize..2),
        proptest::collection::vec(0_usize..2, 0..2),
        proptest::collection::vec(0_usize..3, 0..3),
        proptest::option::weighted(0.3, 0_usize..2),
    )
        .prop_map(|(tenant, types, names, correlation)| Conditions { tenant, types, names, correlation });
    prop_oneof![
        10 => (0_usize..2, proptest::collection::vec((0_usize..4, expectation, 1_usize..4), 1..4), request)
            .prop_map(|(tenant, parts, request)| Operation::Append { tenant, parts, request }),
        4 => (any::<usize>(), change).prop_map(|(which, change)| Operation::Repeat { which, change }),
        2 => (0_usize..8, 0_usize..6, 1_usize..8)
            .prop_map(|(stream, after, limit)| Operation::Load { stream, after, limit }),
        3 => (any::<usize>(), conditions, 1_usize..8)
            .prop_map(|(after, filter, limit)| Operation::Read { after, filter, limit }),
        1 => (1_i64..1_000).prop_map(|by| Operation::Beyond { by }),
        2 => (0_usize..4, 0_u8..2).prop_map(|(key, body)| Operation::Find { key, body }),
        1 => (0_u64..4).prop_map(|seconds| Operation::Wait { seconds }),
        1 => Just(Operation::Reopen),
    ]
}

pub(crate) struct Run<H> {
    backend: H,
    setup: Setup,
    store: Arc<dyn EventStore>,
    oracle: Oracle,
    asked: Vec<Asked>,
    made: u64,
}

fn stream(tenant: usize, n: usize) -> StreamId {
    StreamId::new(Tenant::new(TENANTS[tenant]).unwrap(), TYPES[n % 2], ["x", "y"][n / 2 % 2]).unwrap()
}

fn request_key(key: usize, body: u8) -> RequestKey {
    let fingerprint = Fingerprint::of_bytes(&[body]);
    RequestKey::new(format!("k{key}"), fingerprint).unwrap().with_lifetime(Duration::from_secs(LIFETIME))
}

/// Whether `end` of a page is right: at the end it may be false only for a full page.
fn end_is_right(end: bool, is_end: bool, full: bool) -> bool {
    end == is_end || (is_end && full)
}

/// The first answer, as it is returned for a duplicate.
fn again(first: &Appended) -> Appended {
    let mut again = first.clone();
    again.repeated = true;
    again
}

/// Keys belong to a tenant, so the model's key has it in front.
fn model_key(tenant: &Tenant, key: usize) -> String {
    format!("{tenant}/k{key}")
}

impl<H: Backend> Run<H> {
    pub(crate) async fn begin(backend: H, setup: Setup) -> Self {
        let store = backend.open(&setup).await;
        Self { backend, setup, store, oracle: Oracle::default(), asked: Vec::new(), made: 0 }
    }

    /// Closes and opens the store if it is durable.
    pub(crate) async fn reopen(&mut self) {
        if self.backend.capabilities().durable {
            self.store.close().await;
            self.store = self.backend.open(&self.setup).await;
        }
    }

    pub(crate) async fn step(&mut self, operation: Operation) -> Outcome {
        match operation {
            Operation::Append { tenant, parts, request } => {
                let parts = parts.into_iter().map(|(n, expectation, count)| {
                    let stream = stream(tenant, n);
                    let expected = self.expected_version(&stream, expectation);
                    (stream, expected, (0..count).map(|_| self.event()).collect())
                });
                let parts = parts.collect();
                let owner = Tenant::new(TENANTS[tenant]).unwrap();
                let key = request.map(|(key, body)| (model_key(&owner, key), body));
                self.append(Asked { parts, request: key }, request.map(|(key, body)| request_key(key, body))).await
            }
            Operation::Repeat { which, change } => {
                let Some(earlier) = self.asked.get(which % self.asked.len().max(1)).cloned() else { return Ok(()) };
                let asked = self.changed(earlier, change);
                self.append(asked, None).await
            }
            Operation::Load { stream: n, after, limit } => {
                let stream = stream(n / 4, n % 4);
                let version = StreamVersion::new(i64::try_from(after).unwrap()).unwrap();
                let page = self.store.load_page(&stream, version, limit).await.unwrap();
                let expected = self.oracle.load(&stream, version.get());
                prop_assert_eq!(&page.events[..], &expected[..page.events.len().min(expected.len())]);
                prop_assert!(page.events.len() <= limit);
                let all = page.events.len() == expected.len();
                prop_assert!(end_is_right(page.end, all, page.events.len() == limit));
                Ok(())
            }
            Operation::Read { after, filter, limit } => self.read(after, &filter, limit).await,
            Operation::Beyond { by } => {
                let after = Position::new(self.oracle.head().get() + by).unwrap();
                let refused = self.store.read_page(after.into(), &Filter::all(), 5).await;
                prop_assert!(matches!(refused, Err(ReadError::AheadOfLog { .. })), "{:?}", refused);
                Ok(())
            }
            Operation::Find { key, body } => {
                let tenant = Tenant::new(TENANTS[0]).unwrap();
                let found = self.store.find_request(&tenant, &request_key(key, body)).await;
                match self.oracle.remembered(&model_key(&tenant, key)) {
                    None => prop_assert_eq!(found.unwrap(), None),
                    Some((first, answer, _)) if *first == body => {
                        prop_assert_eq!(found.unwrap(), Some(again(answer)));
                    }
                    Some(_) => prop_assert!(found.is_err_and(|error| fits(&error, &Verdict::KeyReused))),
                }
                Ok(())
            }
            Operation::Wait { seconds } => {
                if self.backend.capabilities().clock {
                    self.setup.clock.advance(Duration::from_secs(seconds));
                    self.oracle.seconds += seconds;
                }
                Ok(())
            }
            Operation::Reopen => {
                self.reopen().await;
                Ok(())
            }
        }
    }

    fn expected_version(&self, stream: &StreamId, expectation: Expectation) -> ExpectedVersion {
        match expectation {
            Expectation::NoStream => ExpectedVersion::NoStream,
            Expectation::Any => ExpectedVersion::Any,
            Expectation::Exists => ExpectedVersion::StreamExists,
            Expectation::LastEvent(right) => {
                let mut events = self.oracle.log.values().filter(|event| event.stream == *stream);
                match if right { events.next_back() } else { events.next() } {
                    Some(event) => ExpectedVersion::from(event),
                    None => ExpectedVersion::NoStream,
                }
            }
            Expectation::Off(by) => {
                ExpectedVersion::Exact(StreamVersion::new((self.oracle.version(stream) + by).max(0)).unwrap())
            }
        }
    }

    fn event(&mut self) -> NewEvent {
        self.made += 1;
        let n = self.made;
        let name = NAMES[usize::try_from(n * 7 % 3).unwrap()];
        let id = EventId::new(self.store.ids().next_id()).unwrap();
        let mut metadata = Metadata::default();
        if !n.is_multiple_of(3) {
            metadata.correlation_id =
                Some(CorrelationId::new(CORRELATIONS[usize::try_from(n / 3 % 2).unwrap()]).unwrap());
        }
        NewEvent::raw(id, name, 1, Payload::of(&n).unwrap()).unwrap().with_metadata(metadata)
    }

    fn changed(&mut self, mut asked: Asked, change: Change) -> Asked {
        asked.request = None;
        let extra = self.event();
        let part = asked.parts.last_mut().unwrap();
        match change {
            Change::Nothing => {}
            Change::Expectation => part.1 = ExpectedVersion::NoStream,
            Change::DropLast => drop(part.2.pop()),
            Change::AddOne => part.2.push(extra),
            Change::Reverse => part.2.reverse(),
            Change::Content => part.2[0].payload = extra.payload,
            Change::Stream => part.0 = StreamId::new(part.0.tenant().clone(), "elsewhere", "z").unwrap(),
        }
        asked
    }

    /// Appends on the store, runs the model, and compares.
    async fn append(&mut self, asked: Asked, request: Option<RequestKey>) -> Outcome {
        let verdict = self.oracle.judge(&asked);
        let answer = self.store.append_many(asked.append(request)).await;
        match (answer, verdict) {
            (Ok(answer), Verdict::Again(first)) => {
                prop_assert_eq!(answer, again(&first));
            }
            (Ok(answer), Verdict::New) => {
                let stored = self.check_new(&asked, &answer).await?;
                self.oracle.store(&asked, answer, stored);
                self.asked.push(asked);
            }
            (Err(error), verdict) => prop_assert!(fits(&error, &verdict), "{:?}, but {:?}", error, verdict),
            (Ok(answer), verdict) => prop_assert!(false, "{:?}, but {:?}", answer, verdict),
        }
        Ok(())
    }

    /// Checks the answer to a new append, and gives the events as they must be stored.
    async fn check_new(&self, asked: &Asked, answer: &Appended) -> Result<Vec<RecordedEvent>, TestCaseError> {
        prop_assert!(!answer.repeated);
        prop_assert_eq!(answer.streams.len(), asked.parts.len());
        let stored: Vec<RecordedEvent> =
            self.store.read_all(self.oracle.head(), Filter::all()).try_collect().await.unwrap();
        prop_assert_eq!(stored.len(), asked.parts.iter().map(|part| part.2.len()).sum::<usize>());
        for ((stream, _, events), answered) in asked.parts.iter().zip(&answer.streams) {
            prop_assert_eq!(&answered.stream, stream);
            let here: Vec<_> = stored.iter().filter(|event| event.stream == *stream).collect();
            prop_assert_eq!(here.len(), events.len());
            let before = self.oracle.version(stream);
            for (n, (event, new)) in here.iter().zip(events).enumerate() {
                prop_assert_eq!(event.event_id, new.event_id);
                prop_assert_eq!(&event.name, &new.name);
                prop_assert_eq!(&event.payload, &new.payload);
                prop_assert_eq!(&event.metadata, &new.metadata);
                prop_assert_eq!(event.version.get(), before + i64::try_from(n).unwrap() + 1);
                prop_assert_eq!(event.position, answered.positions[n]);
                prop_assert_eq!(event.recorded_at, answer.recorded_at);
            }
            prop_assert_eq!(answered.version.get(), before + i64::try_from(events.len()).unwrap());
        }
        prop_assert_eq!(Some(answer.position), stored.last().map(|event| event.position));
        Ok(stored)
    }

    async fn read(&self, after: usize, conditions: &Conditions, limit: usize) -> Outcome {
        let mut filter = Filter::all();
        if let Some(tenant) = conditions.tenant {
            filter = filter.tenant(Tenant::new(TENANTS[tenant]).unwrap());
        }
        for &kind in &conditions.types {
            filter = filter.aggregate_type(TYPES[kind]).unwrap();
        }
        for &name in &conditions.names {
            filter = filter.event_name(NAMES[name]).unwrap();
        }
        if let Some(correlation) = conditions.correlation {
            filter = filter.correlation(CorrelationId::new(CORRELATIONS[correlation]).unwrap());
        }
        let places: Vec<_> = std::iter::once(Position::START).chain(self.oracle.log.keys().copied()).collect();
        let after = places[after % places.len()];
        let event_id = self.oracle.log.get(&after).map(|event| event.event_id);
        let page = self.store.read_page(After { position: after, event_id }, &filter, limit).await.unwrap();
        let checkpoint = page.checkpoint.map_or(after, |checkpoint| checkpoint.position);
        let mut all = self.oracle.read(after, |event| conditions.matches(event));
        all.retain(|event| event.position <= checkpoint);
        prop_assert!(page.events.len() <= limit);
        let full = page.events.len() == limit;
        prop_assert_eq!(page.events, all);
        let at_head = checkpoint == self.oracle.head();
        prop_assert!(end_is_right(page.end, at_head, full));
        prop_assert!(page.end || page.checkpoint.is_some());
        Ok(())
    }

    pub(crate) async fn check_everything(&self) -> Outcome {
        let log: Vec<_> = self.store.read_all(Position::START, Filter::all()).try_collect().await.unwrap();
        prop_assert_eq!(&log, &self.oracle.read(Position::START, |_| true));
        let listed: Vec<_> = self.store.streams(StreamFilter::all()).try_collect().await.unwrap();
        let listed: Vec<_> = listed.iter().map(|info| (&info.stream, info.version.get())).collect();
        prop_assert_eq!(listed, self.oracle.streams().collect::<Vec<_>>());
        for (stream, _) in self.oracle.streams() {
            let loaded: Vec<_> = self.store.load(stream).try_collect().await.unwrap();
            prop_assert_eq!(loaded, self.oracle.load(stream, 0));
        }
        let head = self.store.head().await.unwrap();
        prop_assert_eq!(head.position, self.oracle.head());
        self.store.check_checkpoint(&head).await.unwrap();
        Ok(())
    }
}
