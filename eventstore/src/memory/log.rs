//! The state of a memory store and every step on it: no waiting, no locks.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::append::{Appended, AppendedStream, CheckedAppend, CheckedEvent, CheckedPart};
use crate::clock::{Clock, whole_micros};
use crate::error::{AppendError, Invalid, ReadError};
use crate::event::{EventId, RecordedEvent};
use crate::filter::{Filter, StreamFilter};
use crate::limits::{PageBudget, page_limit};
use crate::memory::requests::Requests;
use crate::metadata::Metadata;
use crate::position::{Checkpoint, Incarnation, Position};
use crate::repeat::{StoredEvent, judge};
use crate::request::RequestKey;
use crate::store::{Page, StreamInfo, StreamPage};
use crate::stream::{StreamId, StreamVersion, Tenant};

#[derive(Default)]
pub(super) struct Log {
    /// The event at position `p` has index `p - 1`.
    events: Vec<RecordedEvent>,
    /// The event with version `v` of a stream has the index at `v - 1`. In the order of a listing.
    streams: BTreeMap<StreamId, Vec<usize>>,
    ids: HashMap<EventId, usize>,
    requests: Requests,
    pub(super) closed: bool,
}

impl Log {
    pub(super) fn append(&mut self, append: CheckedAppend, clock: &dyn Clock) -> Result<Appended, AppendError> {
        if self.closed {
            return Err(AppendError::Closed);
        }
        if append.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(AppendError::DeadlineExceeded { stream: append.first_stream() });
        }
        let now = whole_micros(clock.now());
        if let Some(request) = &append.request
            && let Some(answer) = self.requests.find(&append.tenant, request, now)?
        {
            return Ok(answer);
        }
        if let Some(answer) = judge(&append, &self.stored(&append))? {
            return Ok(answer);
        }
        for part in &append.parts {
            self.check_version(part)?;
        }
        // From here on nothing can fail, so that no append is ever stored by half.
        let CheckedAppend { tenant, parts, append_id, request, .. } = append;
        let streams = parts.into_iter().map(|part| self.store(part, append_id, now)).collect();
        let answer = Appended::new(streams, now, false);
        if let Some(request) = request {
            self.requests.remember(&tenant, &request, answer.clone(), now);
        }
        Ok(answer)
    }

    /// What is stored under the ids of an append.
    fn stored(&self, append: &CheckedAppend) -> HashMap<EventId, StoredEvent> {
        append
            .events()
            .filter_map(|(_, event)| self.ids.get(&event.event_id))
            .map(|&index| {
                let event = &self.events[index];
                let stored = StoredEvent {
                    stream: event.stream.clone(),
                    version: event.version,
                    position: event.position,
                    name: event.name.clone(),
                    schema_version: event.schema_version,
                    payload: event.payload.clone(),
                    append_id: event.append_id,
                    recorded_at: event.recorded_at,
                };
                (event.event_id, stored)
            })
            .collect()
    }

    fn check_version(&self, part: &CheckedPart) -> Result<(), AppendError> {
        let actual = self.version(&part.stream);
        if !part.expected.holds(actual) {
            return Err(AppendError::WrongExpectedVersion {
                stream: part.stream.clone(),
                expected: part.expected,
                actual,
            });
        }
        match actual.plus(part.events.len()) {
            Some(_) => Ok(()),
            None => Err(AppendError::StreamFull { stream: part.stream.clone(), actual }),
        }
    }

    fn version(&self, stream: &StreamId) -> StreamVersion {
        self.streams.get(stream).map_or(StreamVersion::NONE, |indexes| version_of(indexes.len()))
    }

    fn store(&mut self, part: CheckedPart, append_id: Option<uuid::Uuid>, recorded_at: Timestamp) -> AppendedStream {
        let CheckedPart { stream, events, .. } = part;
        let mut positions = Vec::with_capacity(events.len());
        let indexes = self.streams.entry(stream.clone()).or_default();
        for event in events {
            let index = self.events.len();
            indexes.push(index);
            positions.push(position_of(index));
            self.ids.insert(event.event_id, index);
            let version = version_of(indexes.len());
            self.events.push(recorded(event, &stream, version, position_of(index), append_id, recorded_at));
        }
        AppendedStream { version: version_of(indexes.len()), stream, positions }
    }

    pub(super) fn find_request(
        &self,
        tenant: &Tenant,
        request: &RequestKey,
        clock: &dyn Clock,
    ) -> Result<Option<Appended>, AppendError> {
        if self.closed {
            return Err(AppendError::Closed);
        }
        self.requests.find(tenant, request, whole_micros(clock.now()))
    }

    pub(super) fn load_page(
        &self,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<StreamPage, ReadError> {
        self.check_open()?;
        let limit = page_limit(limit)?;
        let indexes = self.streams.get(stream).map_or(&[][..], Vec::as_slice);
        let rest = usize::try_from(after.get()).ok().and_then(|skip| indexes.get(skip..)).unwrap_or_default();
        let mut budget = PageBudget::of(limit);
        let events: Vec<_> =
            rest.iter().map(|&index| &self.events[index]).take_while(|event| budget.takes(event)).cloned().collect();
        let end = events.len() == rest.len();
        Ok(StreamPage::new(events, end))
    }

    pub(super) fn read_page(
        &self,
        incarnation: Incarnation,
        after: Position,
        filter: &Filter,
        limit: usize,
    ) -> Result<Page, ReadError> {
        self.check_open()?;
        let limit = page_limit(limit)?;
        let ahead = || ReadError::AheadOfLog { after, head: self.last().map_or(Position::START, |e| e.position) };
        let rest = usize::try_from(after.get()).ok().and_then(|skip| self.events.get(skip..)).ok_or_else(ahead)?;
        let mut budget = PageBudget::of(limit);
        let mut events = Vec::new();
        let mut looked_at = 0;
        for event in rest {
            if filter.wants(event) {
                if !budget.takes(event) {
                    break;
                }
                events.push(event.clone());
            }
            looked_at += 1;
            if budget.is_used_up() {
                break;
            }
        }
        let upto = rest[..looked_at].last().map(|event| checkpoint_at(incarnation, event));
        Ok(Page::new(events, upto, looked_at == rest.len()))
    }

    pub(super) fn streams_page(
        &self,
        filter: &StreamFilter,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<StreamInfo>, ReadError> {
        self.check_open()?;
        let limit = page_limit(limit)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self
            .streams
            .range((from, Bound::Unbounded))
            .filter(|(stream, _)| filter.wants(stream))
            .take(limit)
            .map(|(stream, indexes)| StreamInfo { stream: stream.clone(), version: version_of(indexes.len()) })
            .collect())
    }

    pub(super) fn head(&self, incarnation: Incarnation) -> Result<Checkpoint, ReadError> {
        self.check_open()?;
        Ok(self.last().map_or_else(|| Checkpoint::start(incarnation), |event| checkpoint_at(incarnation, event)))
    }

    pub(super) fn check_checkpoint(&self, incarnation: Incarnation, checkpoint: &Checkpoint) -> Result<(), ReadError> {
        self.check_open()?;
        if checkpoint.event_id.is_none() && checkpoint.position != Position::START {
            return Err(Invalid::new("checkpoint", "has a position but no event id", "store both").into());
        }
        let found = match usize::try_from(checkpoint.position.get()) {
            Ok(0) => Some(Checkpoint::start(incarnation)),
            Ok(n) => self.events.get(n - 1).map(|event| checkpoint_at(incarnation, event)),
            Err(_) => None,
        };
        if found == Some(*checkpoint) {
            return Ok(());
        }
        Err(ReadError::StoreRewound { position: checkpoint.position, incarnation: checkpoint.incarnation })
    }

    fn last(&self) -> Option<&RecordedEvent> {
        self.events.last()
    }

    fn check_open(&self) -> Result<(), ReadError> {
        if self.closed { Err(ReadError::Closed) } else { Ok(()) }
    }
}

fn recorded(
    event: CheckedEvent,
    stream: &StreamId,
    version: StreamVersion,
    position: Position,
    append_id: Option<uuid::Uuid>,
    recorded_at: Timestamp,
) -> RecordedEvent {
    let correlation_id = event.correlation_id.map(|id| id.as_str().into());
    let causation_id = event.causation_id.map(|id| id.as_str().into());
    RecordedEvent {
        position,
        event_id: event.event_id,
        stream: stream.clone(),
        version,
        name: event.name,
        schema_version: event.schema_version,
        payload: event.payload,
        metadata: Metadata::from_stored(&event.metadata, correlation_id, causation_id)
            .expect("metadata that `check` has just written can be read"),
        append_id,
        recorded_at,
    }
}

fn checkpoint_at(incarnation: Incarnation, event: &RecordedEvent) -> Checkpoint {
    Checkpoint { incarnation, position: event.position, event_id: Some(event.event_id) }
}

fn position_of(index: usize) -> Position {
    Position::stored(i64::try_from(index).expect("memory ends before i64 does") + 1)
}

fn version_of(events: usize) -> StreamVersion {
    StreamVersion::stored(i64::try_from(events).expect("memory ends before i64 does"))
}
