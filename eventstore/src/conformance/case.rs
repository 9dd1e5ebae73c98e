//! The test case of every clause: a store, and helpers to use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use jiff::Timestamp;
use serde_json::json;

use crate::append::{Append, Appended};
use crate::clock::{Clock, ManualClock};
use crate::conformance::backend::{Backend, Setup};
use crate::error::{AppendError, Invalid, ReadError};
use crate::event::{EventId, NewEvent, RecordedEvent};
use crate::filter::{Filter, StreamFilter};
use crate::limits::Limits;
use crate::payload::Payload;
use crate::position::{Checkpoint, Position};
use crate::read::EventStoreExt;
use crate::request::{Fingerprint, RequestKey};
use crate::store::{EventStore, StreamInfo};
use crate::stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};

/// A store under test and its environment. Clones are the same case.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) store: Arc<dyn EventStore>,
    backend: Arc<dyn Backend>,
    setup: Setup,
    events_made: Arc<AtomicU64>,
}

/// All that can be seen of a store.
#[derive(Debug, PartialEq)]
pub(super) struct Everything {
    pub(super) log: Vec<RecordedEvent>,
    pub(super) streams: Vec<StreamInfo>,
    pub(super) head: Checkpoint,
}

impl Case {
    pub(super) async fn open(backend: Arc<dyn Backend>) -> Self {
        let start = "2001-02-03T04:05:06.789012Z".parse::<Timestamp>().unwrap();
        let setup = Setup { clock: Arc::new(ManualClock::at(start)), limits: Limits::default() };
        Self { store: backend.open(&setup).await, backend, setup, events_made: Arc::default() }
    }

    /// The case with a handle that has other limits. Only for cases that have nothing stored yet.
    pub(super) async fn limited(self, limit: impl FnOnce(&mut Limits)) -> Self {
        let mut setup = self.setup.clone();
        limit(&mut setup.limits);
        self.store.close().await;
        Self { store: self.backend.open(&setup).await, setup, ..self }
    }

    /// The case with one more handle of the same store. `None` if the store is not durable, which is then checked.
    pub(super) async fn second_handle(&self) -> Option<Self> {
        let again = Self { store: self.backend.open(&self.setup).await, ..self.clone() };
        if self.backend.capabilities().durable {
            return Some(again);
        }
        assert_ne!(again.store.incarnation(), self.store.incarnation(), "not durable, but the same store again");
        assert_eq!(again.everything().await.log, [], "not durable, but events are there again");
        let checkpoint = Checkpoint::start(self.store.incarnation());
        let refused = again.store.check_checkpoint(&checkpoint).await;
        assert!(matches!(refused, Err(ReadError::StoreRewound { .. })), "{refused:?}");
        None
    }

    /// The case after its handle was closed and the store was opened again. `None` as of [`Case::second_handle`].
    pub(super) async fn reopened(&self) -> Option<Self> {
        self.store.close().await;
        self.second_handle().await
    }

    /// The store's clock. `None` if the store has its own clock, which is then checked.
    pub(super) async fn clock(&self) -> Option<&ManualClock> {
        if self.backend.capabilities().clock {
            return Some(&self.setup.clock);
        }
        let done = self.append("the-clock", ExpectedVersion::Any, 1).await;
        let apart = done.recorded_at.duration_since(self.setup.clock.now()).unsigned_abs();
        assert!(apart > Duration::from_secs(60), "no injected clock, but its time: {}", done.recorded_at);
        None
    }

    /// Whether the store declares a place for snapshots.
    pub(super) fn has_snapshots(&self) -> bool {
        self.backend.capabilities().snapshots
    }

    /// The stream of the default tenant's order `id`.
    pub(super) fn stream(&self, id: &str) -> StreamId {
        StreamId::new(Tenant::default(), "order", id).unwrap()
    }

    /// A new event that no other equals.
    pub(super) fn event(&self) -> NewEvent {
        self.named("order.placed")
    }

    /// A new event with this name that no other equals.
    pub(super) fn named(&self, name: &str) -> NewEvent {
        let n = self.events_made.fetch_add(1, Ordering::Relaxed);
        self.holding(name, Payload::of(&json!({ "n": n })).unwrap())
    }

    /// A new event with this payload.
    pub(super) fn holding(&self, name: &str, payload: Payload) -> NewEvent {
        NewEvent::raw(self.id(), name, 1, payload).unwrap()
    }

    pub(super) fn id(&self) -> EventId {
        EventId::new(self.store.ids().next_id()).unwrap()
    }

    pub(super) fn events(&self, count: usize) -> Vec<NewEvent> {
        (0..count).map(|_| self.event()).collect()
    }

    /// Appends `count` events to the default tenant's order `id`.
    pub(super) async fn append(&self, id: &str, expected: ExpectedVersion, count: usize) -> Appended {
        self.store.append(&self.stream(id), expected, self.events(count)).await.unwrap()
    }

    /// Appends one event with this name to the stream.
    pub(super) async fn append_named(&self, stream: &StreamId, name: &str) -> Appended {
        self.store.append(stream, ExpectedVersion::Any, vec![self.named(name)]).await.unwrap()
    }

    pub(super) async fn load(&self, stream: &StreamId) -> Vec<RecordedEvent> {
        self.store.load(stream).try_collect().await.unwrap()
    }

    pub(super) async fn log(&self) -> Vec<RecordedEvent> {
        self.read(Filter::all()).await
    }

    pub(super) async fn read(&self, filter: Filter) -> Vec<RecordedEvent> {
        self.store.read_all(Position::START, filter).try_collect().await.unwrap()
    }

    pub(super) async fn streams(&self, filter: StreamFilter) -> Vec<StreamInfo> {
        self.store.streams(filter).try_collect().await.unwrap()
    }

    pub(super) async fn everything(&self) -> Everything {
        Everything {
            log: self.log().await,
            streams: self.streams(StreamFilter::all()).await,
            head: self.store.head().await.unwrap(),
        }
    }

    /// Appends what the store must refuse; afterwards nothing is there that was not there before.
    pub(super) async fn refused_without_trace(&self, append: Append) -> AppendError {
        let before = self.everything().await;
        let error = match self.store.append_many(append).await {
            Err(error) => error,
            Ok(done) => panic!("an append was taken that must be refused: {done:?}"),
        };
        assert_eq!(self.everything().await, before, "a refused append left a trace ({error})");
        error
    }

    /// Appends what breaks the rule of `field`: refused, naming the field and what to do, without a trace.
    pub(super) async fn invalid_without_trace(&self, append: Append, field: &str) {
        match self.refused_without_trace(append).await {
            AppendError::Invalid(invalid) => names_the_field(&invalid, field),
            other => panic!("expected an error about `{field}`: {other:?}"),
        }
    }
}

/// Checks that an error names the field and a fix.
pub(super) fn names_the_field(invalid: &Invalid, field: &str) {
    assert_eq!(invalid.field, field, "{invalid}");
    assert!(!invalid.problem.is_empty() && !invalid.fix.is_empty(), "{invalid:?}");
}

pub(super) fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap()
}

pub(super) fn exact(version: i64) -> ExpectedVersion {
    ExpectedVersion::Exact(StreamVersion::new(version).unwrap())
}

pub(super) fn version(version: i64) -> StreamVersion {
    StreamVersion::new(version).unwrap()
}

/// A request key whose fingerprint is that of `body`.
pub(super) fn request(key: &str, body: &str) -> RequestKey {
    RequestKey::new(key, Fingerprint::of(body).unwrap()).unwrap()
}

/// Checks that an append was refused as a conflict about this stream.
pub(super) fn is_conflict(error: &AppendError, about: &StreamId, expected_by_writer: ExpectedVersion, found: i64) {
    match error {
        AppendError::WrongExpectedVersion { stream, expected, actual } => {
            assert_eq!((stream, *expected, actual.get()), (about, expected_by_writer, found));
        }
        other => panic!("expected a conflict: {other:?}"),
    }
}

pub(super) fn versions(events: &[RecordedEvent]) -> Vec<i64> {
    events.iter().map(|event| event.version.get()).collect()
}

pub(super) fn positions(events: &[RecordedEvent]) -> Vec<Position> {
    events.iter().map(|event| event.position).collect()
}

pub(super) fn ids(events: &[RecordedEvent]) -> Vec<EventId> {
    events.iter().map(|event| event.event_id).collect()
}

pub(super) fn new_ids(events: &[NewEvent]) -> Vec<EventId> {
    events.iter().map(|event| event.event_id).collect()
}

/// Checks that positions increase strictly.
pub(super) fn increases(positions: &[Position]) {
    assert!(positions.is_sorted_by(|a, b| a < b), "positions do not increase: {positions:?}");
}

/// The seed of a random clause: `ANNALS_SEED` if set, else a random one. It is printed, so that it is shown if the clause fails.
pub(super) fn seed() -> u64 {
    let seed =
        std::env::var("ANNALS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("ANNALS_SEED={seed}");
    seed
}
