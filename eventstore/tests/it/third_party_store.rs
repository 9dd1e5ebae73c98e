//! A store that uses only the public API of annals, as a third-party engine would. It keeps the whole
//! contract with a list behind a mutex; several handles share it, so that it counts as durable.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use annals_eventstore::conformance::{Backend, Capabilities, Setup};
use annals_eventstore::{
    After, Append, AppendError, Appended, AppendedStream, CheckedAppend, CheckedPart, Checkpoint, Clock, EventId,
    EventStore, Filter, Fingerprint, IdSource, Incarnation, Limits, ManualClock, Page, PageBudget, Position, ReadError,
    RecordedEvent, RequestKey, StreamFilter, StreamId, StreamInfo, StreamPage, StreamVersion, Tenant, TimeOrderedIds,
    page_limit,
};
use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

/// Where the store incarnations: what its handles share.
#[derive(Default)]
pub(crate) struct Elsewhere(Arc<Place>);

#[derive(Default)]
struct Place {
    log: Mutex<Log>,
    head: watch::Sender<Position>,
}

#[derive(Default)]
struct Log {
    /// The event at position `10 * p` has index `p - 1`: positions may skip numbers.
    events: Vec<RecordedEvent>,
    ids: HashMap<EventId, usize>,
    requests: HashMap<(Tenant, String), Remembered>,
}

struct Remembered {
    fingerprint: Fingerprint,
    answer: Appended,
    expires: Timestamp,
}

struct Handle {
    place: Arc<Place>,
    clock: Arc<ManualClock>,
    limits: Limits,
    closed: AtomicBool,
}

#[async_trait]
impl Backend for Elsewhere {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, clock: true, snapshots: false }
    }

    async fn open(&self, setup: &Setup) -> Arc<dyn EventStore> {
        Arc::new(Handle {
            place: Arc::clone(&self.0),
            clock: setup.clock.clone(),
            limits: setup.limits.clone(),
            closed: AtomicBool::new(false),
        })
    }
}

const INCARNATION: Incarnation = Incarnation(Uuid::from_u128(17));

fn position_of(index: usize) -> Position {
    Position::new(10 * (i64::try_from(index).unwrap() + 1)).unwrap()
}

impl Log {
    fn append(&mut self, append: CheckedAppend, now: Timestamp) -> Result<Appended, AppendError> {
        append.check_deadline()?;
        if let Some(request) = append.request()
            && let Some(answer) = self.find_request(append.tenant(), request, now)?
        {
            return Ok(answer);
        }
        if let Some(answer) = append.find_repeat(|id| self.ids.get(&id).map(|&index| &self.events[index]))? {
            return Ok(answer);
        }
        for part in append.parts() {
            let last = self.last(&part.stream);
            part.version_after(last.map_or(StreamVersion::NONE, |e| e.version), last.map(|e| e.event_id))?;
        }
        let counted_from = self.events.last().map_or(now, |event| event.recorded_at.max(now));
        let (tenant, request, append_id) = (append.tenant().clone(), append.request().cloned(), append.append_id());
        let streams = append.into_parts().into_iter().map(|part| self.store(part, append_id, now)).collect();
        let answer = Appended::new(streams, now, false);
        if let Some(request) = request {
            let (fingerprint, expires) = (request.fingerprint(), request.expires(counted_from));
            let remembered = Remembered { fingerprint, answer: answer.clone(), expires };
            self.requests.insert((tenant, request.key().to_owned()), remembered);
        }
        Ok(answer)
    }

    fn store(&mut self, part: CheckedPart, append_id: Option<Uuid>, now: Timestamp) -> AppendedStream {
        let mut version = self.last(&part.stream).map_or(StreamVersion::NONE, |event| event.version);
        let mut positions = Vec::new();
        for event in part.events {
            version = version.plus(1).unwrap();
            let index = self.events.len();
            self.ids.insert(event.event_id(), index);
            positions.push(position_of(index));
            let stream = part.stream.clone();
            let recorded = RecordedEvent::new(event.into(), stream, version, position_of(index), append_id, now);
            self.events.push(recorded);
        }
        AppendedStream { stream: part.stream, version, positions }
    }

    fn find_request(
        &self,
        tenant: &Tenant,
        request: &RequestKey,
        now: Timestamp,
    ) -> Result<Option<Appended>, AppendError> {
        match self.requests.get(&(tenant.clone(), request.key().to_owned())) {
            Some(known) if known.expires > now && known.fingerprint == request.fingerprint() => {
                Ok(Some(known.answer.again()))
            }
            Some(known) if known.expires > now => {
                Err(AppendError::RequestKeyReused { tenant: tenant.clone(), key: request.key().to_owned() })
            }
            _ => Ok(None),
        }
    }

    fn last(&self, stream: &StreamId) -> Option<&RecordedEvent> {
        self.events.iter().rfind(|event| event.stream == *stream)
    }

    fn head(&self) -> Checkpoint {
        self.events.last().map_or(Checkpoint::start(INCARNATION), |event| event.checkpoint(INCARNATION))
    }

    fn load_page(&self, stream: &StreamId, after: StreamVersion, limit: usize) -> Result<StreamPage, ReadError> {
        let mut budget = PageBudget::new(limit)?;
        let mut rest = self.events.iter().filter(|event| event.stream == *stream && event.version > after).peekable();
        let mut events = Vec::new();
        while let Some(event) = rest.next_if(|event| budget.takes(event)) {
            events.push(event.clone());
        }
        Ok(StreamPage::new(events, rest.peek().is_none()))
    }

    fn read_page(&self, after: After, filter: &Filter, limit: usize) -> Result<Page, ReadError> {
        let mut budget = PageBudget::new(limit)?;
        after.check(INCARNATION, self.event_id_at(after.position))?;
        let after = after.position;
        if after > self.head().position {
            return Err(ReadError::AheadOfLog { after, head: self.head().position });
        }
        let mut rest = self.events.iter().skip_while(|event| event.position <= after).peekable();
        let (mut events, mut checkpoint) = (Vec::new(), None);
        while !budget.is_used_up()
            && let Some(event) = rest.next_if(|event| !filter.matches(event) || budget.takes(event))
        {
            events.extend(filter.matches(event).then(|| event.clone()));
            checkpoint = Some(event.checkpoint(INCARNATION));
        }
        Ok(Page::new(events, checkpoint, rest.peek().is_none()))
    }

    fn event_id_at(&self, position: Position) -> Option<EventId> {
        self.events.iter().find(|event| event.position == position).map(|event| event.event_id)
    }

    fn streams_page(
        &self,
        filter: &StreamFilter,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<StreamInfo>, ReadError> {
        let limit = page_limit(limit)?;
        let mut streams: HashMap<_, _> = HashMap::new();
        for event in self.events.iter().filter(|event| filter.matches(&event.stream) && Some(&event.stream) > after) {
            streams.insert(&event.stream, event.version);
        }
        let mut streams: Vec<_> =
            streams.into_iter().map(|(stream, version)| StreamInfo { stream: stream.clone(), version }).collect();
        streams.sort_by(|a, b| a.stream.cmp(&b.stream));
        streams.truncate(limit);
        Ok(streams)
    }
}

impl Handle {
    /// The log, unless the handle is closed.
    fn log(&self) -> Option<MutexGuard<'_, Log>> {
        (!self.closed.load(Ordering::Acquire)).then(|| self.place.log.lock().unwrap())
    }
}

#[async_trait]
impl EventStore for Handle {
    fn incarnation(&self) -> Incarnation {
        INCARNATION
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn ids(&self) -> &dyn IdSource {
        &TimeOrderedIds
    }

    async fn append_many(&self, append: Append) -> Result<Appended, AppendError> {
        let mut log = self.log().ok_or(AppendError::Closed)?;
        let done = log.append(append.check(&self.limits)?, self.clock.now())?;
        drop(log);
        self.place.head.send_if_modified(|head| {
            let grown = done.position > *head;
            *head = done.position.max(*head);
            grown
        });
        Ok(done)
    }

    async fn find_request(&self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError> {
        self.log().ok_or(AppendError::Closed)?.find_request(tenant, request, self.clock.now())
    }

    async fn load_page(&self, stream: &StreamId, after: StreamVersion, limit: usize) -> Result<StreamPage, ReadError> {
        self.log().ok_or(ReadError::Closed)?.load_page(stream, after, limit)
    }

    async fn read_page(&self, after: After, filter: &Filter, limit: usize) -> Result<Page, ReadError> {
        self.log().ok_or(ReadError::Closed)?.read_page(after, filter, limit)
    }

    async fn streams_page(
        &self,
        filter: &StreamFilter,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<StreamInfo>, ReadError> {
        self.log().ok_or(ReadError::Closed)?.streams_page(filter, after, limit)
    }

    async fn head(&self) -> Result<Checkpoint, ReadError> {
        Ok(self.log().ok_or(ReadError::Closed)?.head())
    }

    async fn check_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), ReadError> {
        let log = self.log().ok_or(ReadError::Closed)?;
        checkpoint.check(INCARNATION, log.event_id_at(checkpoint.position))
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.place.head.subscribe()
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.place.head.send_modify(|_| {});
    }
}
