//! The state of a memory store and every step on it: no waiting, no locks.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use jiff::Timestamp;

use crate::append::{Appended, AppendedStream, CheckedAppend, CheckedPart};
use crate::as_of::{AsOf, beyond_log, not_of_the_log, not_over};
use crate::clock::{Clock, whole_micros};
use crate::error::{AppendError, ReadError};
use crate::event::{EventId, RecordedEvent};
use crate::filter::{Filter, StreamFilter};
use crate::limits::{PageBudget, page_limit};
use crate::memory::requests::Requests;
use crate::memory::snapshots::Saved;
use crate::position::{After, Checkpoint, Incarnation, Position};
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
    /// The latest time up to each event, which increases with positions as times need not.
    latest_up_to: Vec<Timestamp>,
    requests: Requests,
    pub(super) saved: Saved,
    /// The latest time that the clock has shown to an append.
    latest: Timestamp,
    pub(super) closed: bool,
}

impl Log {
    pub(super) fn append(&mut self, append: CheckedAppend, clock: &dyn Clock) -> Result<Appended, AppendError> {
        if self.closed {
            return Err(AppendError::Closed);
        }
        append.check_deadline()?;
        let now = whole_micros(clock.now());
        if let Some(request) = &append.request
            && let Some(answer) = self.requests.find(&append.tenant, request, now)?
        {
            return Ok(answer);
        }
        if let Some(answer) = append.find_repeat(|id| self.ids.get(&id).map(|&index| &self.events[index]))? {
            return Ok(answer);
        }
        for part in &append.parts {
            let (version, last_event) = self.end_of(&part.stream);
            part.version_after(version, last_event)?;
        }
        // If the clock is earlier than the last event, it may be corrected while the key is stored.
        self.latest = self.latest.max(now);
        let begins = self.latest;
        // From here on nothing can fail, so that no append is ever stored by half.
        let CheckedAppend { tenant, parts, append_id, request, about, .. } = append;
        let streams = parts.into_iter().map(|part| self.store(part, append_id, now)).chain(about).collect();
        let answer = Appended::new(streams, now, false);
        if let Some(request) = request {
            self.requests.remember(&tenant, &request, answer.clone(), begins, now);
        }
        Ok(answer)
    }

    /// The version of a stream, and the id of its last event.
    fn end_of(&self, stream: &StreamId) -> (StreamVersion, Option<EventId>) {
        let indexes = self.streams.get(stream).map_or(&[][..], Vec::as_slice);
        (version_of(indexes.len()), indexes.last().map(|&index| self.events[index].event_id))
    }

    /// The event of a stream at a version.
    pub(super) fn event_at(&self, stream: &StreamId, version: StreamVersion) -> Option<EventId> {
        let index = usize::try_from(version.get()).ok()?.checked_sub(1)?;
        Some(self.events[*self.streams.get(stream)?.get(index)?].event_id)
    }

    /// How many events a stream has at or before a position.
    pub(super) fn version_at(&self, stream: &StreamId, position: Position) -> StreamVersion {
        let indexes = self.streams.get(stream).map(Vec::as_slice).unwrap_or_default();
        version_of(indexes.partition_point(|&index| position_of(index) <= position))
    }

    fn store(&mut self, part: CheckedPart, append_id: Option<uuid::Uuid>, recorded_at: Timestamp) -> AppendedStream {
        let CheckedPart { stream, events, .. } = part;
        let mut positions = Vec::with_capacity(events.len());
        let indexes = self.streams.entry(stream.clone()).or_default();
        for event in events {
            let index = self.events.len();
            indexes.push(index);
            self.latest_up_to.push(self.latest_up_to.last().map_or(recorded_at, |latest| recorded_at.max(*latest)));
            positions.push(position_of(index));
            self.ids.insert(event.event_id, index);
            let version = version_of(indexes.len());
            let position = position_of(index);
            self.events.push(RecordedEvent::new(
                event.into(),
                stream.clone(),
                version,
                position,
                append_id,
                recorded_at,
            ));
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
        let mut budget = PageBudget::new(limit)?;
        let indexes = self.streams.get(stream).map_or(&[][..], Vec::as_slice);
        let rest = usize::try_from(after.get()).ok().and_then(|skip| indexes.get(skip..)).unwrap_or_default();
        let events: Vec<_> =
            rest.iter().map(|&index| &self.events[index]).take_while(|event| budget.takes(event)).cloned().collect();
        let end = events.len() == rest.len();
        Ok(StreamPage::new(events, end))
    }

    pub(super) fn read_page(
        &self,
        incarnation: Incarnation,
        after: After,
        filter: &Filter,
        limit: usize,
    ) -> Result<Page, ReadError> {
        self.check_open()?;
        let mut budget = PageBudget::new(limit)?;
        after.check(incarnation, self.event_id_at(after.position))?;
        let after = after.position;
        let ahead = || ReadError::AheadOfLog { after, head: self.last().map_or(Position::START, |e| e.position) };
        let rest = usize::try_from(after.get()).ok().and_then(|skip| self.events.get(skip..)).ok_or_else(ahead)?;
        let mut events = Vec::new();
        let mut looked_at = 0;
        for event in rest {
            if filter.matches(event) {
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
        let checkpoint = rest[..looked_at].last().map(|event| event.checkpoint(incarnation));
        Ok(Page::new(events, checkpoint, looked_at == rest.len()))
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
            .filter(|(stream, _)| filter.matches(stream))
            .take(limit)
            .map(|(stream, indexes)| StreamInfo { stream: stream.clone(), version: version_of(indexes.len()) })
            .collect())
    }

    pub(super) fn head(&self, incarnation: Incarnation) -> Result<Checkpoint, ReadError> {
        self.check_open()?;
        Ok(self.last().map_or_else(|| Checkpoint::start(incarnation), |event| event.checkpoint(incarnation)))
    }

    pub(super) fn as_of(
        &self,
        incarnation: Incarnation,
        as_of: AsOf,
        clock: &dyn Clock,
    ) -> Result<Checkpoint, ReadError> {
        self.check_open()?;
        let mut events = match as_of {
            AsOf::Version(version) => return Err(not_of_the_log(version)),
            AsOf::Position(position) => usize::try_from(position.get())
                .ok()
                .filter(|events| *events <= self.events.len())
                .ok_or_else(|| beyond_log(position, self.last().map_or(Position::START, |last| last.position)))?,
            AsOf::Time(time) => self.latest_up_to.partition_point(|latest| *latest <= time),
        };
        if let AsOf::Time(time) = as_of
            && events == self.events.len()
        {
            let now = whole_micros(clock.now());
            if now <= time {
                return Err(not_over(time, now));
            }
        }
        // The events of an append follow each other.
        if let Some(after) = self.events.get(events)
            && after.append_id.is_some()
        {
            let whole = self.events[..events].iter().rposition(|event| event.append_id != after.append_id);
            events = whole.map_or(0, |last| last + 1);
        }
        let last = events.checked_sub(1).map(|index| &self.events[index]);
        Ok(last.map_or_else(|| Checkpoint::start(incarnation), |event| event.checkpoint(incarnation)))
    }

    pub(super) fn check_checkpoint(&self, incarnation: Incarnation, checkpoint: &Checkpoint) -> Result<(), ReadError> {
        self.check_open()?;
        checkpoint.check(incarnation, self.event_id_at(checkpoint.position))
    }

    fn event_id_at(&self, position: Position) -> Option<EventId> {
        let index = usize::try_from(position.get()).ok()?.checked_sub(1)?;
        self.events.get(index).map(|event| event.event_id)
    }

    fn last(&self) -> Option<&RecordedEvent> {
        self.events.last()
    }

    fn check_open(&self) -> Result<(), ReadError> {
        if self.closed { Err(ReadError::Closed) } else { Ok(()) }
    }
}

fn position_of(index: usize) -> Position {
    Position::stored(i64::try_from(index).expect("memory ends before i64 does") + 1)
}

fn version_of(events: usize) -> StreamVersion {
    StreamVersion::stored(i64::try_from(events).expect("memory ends before i64 does"))
}
