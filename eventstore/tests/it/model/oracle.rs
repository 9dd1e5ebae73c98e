//! The model: what a store must answer, as simple as possible and independent of the stores' code.

use std::collections::{BTreeMap, HashMap, HashSet};

use annals_eventstore::{Append, AppendError, Appended, EventId, ExpectedVersion, Position, RecordedEvent, StreamId};

/// What makes two events the same one.
pub(crate) type Same = (EventId, StreamId, String, String);

/// One part of an append, as the program made it.
pub(crate) type Part = (StreamId, ExpectedVersion, Vec<annals_eventstore::NewEvent>);

/// An append as the program made it, so that the model need not read [`Append`].
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) parts: Vec<Part>,
    pub(crate) request: Option<(String, u8)>,
}

impl Asked {
    fn events(&self) -> Vec<Same> {
        let flat = self.parts.iter().flat_map(|(stream, _, events)| events.iter().map(move |e| (stream, e)));
        flat.map(|(s, e)| (e.event_id, s.clone(), e.name.to_string(), e.payload.as_str().to_owned())).collect()
    }

    pub(crate) fn append(&self, request: Option<annals_eventstore::RequestKey>) -> Append {
        let mut parts = self.parts.iter().cloned();
        let (stream, expected, events) = parts.next().expect("a program never makes an empty append");
        let append =
            parts.fold(Append::to(stream, expected, events), |append, part| append.and(part.0, part.1, part.2));
        match request {
            Some(request) => append.with_request(request),
            None => append,
        }
    }
}

/// The model's answer to an append.
#[derive(Debug)]
pub(crate) enum Verdict {
    Invalid,
    KeyReused,
    Again(Appended),
    Taken,
    /// Each stream whose version is not the expected one, with the version it has.
    Conflict(Vec<(StreamId, i64)>),
    New,
}

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// Every stored append, with its events in order and its first answer.
    appends: Vec<(Vec<Same>, Appended)>,
    versions: BTreeMap<StreamId, i64>,
    requests: HashMap<String, (u8, Appended, u64)>,
    pub(crate) log: BTreeMap<Position, RecordedEvent>,
    pub(crate) seconds: u64,
}

/// How long the programs' request keys live.
pub(crate) const LIFETIME: u64 = 5;

impl Oracle {
    pub(crate) fn version(&self, stream: &StreamId) -> i64 {
        self.versions.get(stream).copied().unwrap_or(0)
    }

    pub(crate) fn streams(&self) -> impl Iterator<Item = (&StreamId, i64)> {
        self.versions.iter().map(|(stream, version)| (stream, *version))
    }

    pub(crate) fn remembered(&self, key: &str) -> Option<&(u8, Appended, u64)> {
        self.requests.get(key).filter(|(_, _, since)| self.seconds < since + LIFETIME)
    }

    pub(crate) fn judge(&self, asked: &Asked) -> Verdict {
        let events = asked.events();
        let owners: HashSet<_> = asked.parts.iter().map(|(stream, ..)| stream.tenant()).collect();
        let streams: HashSet<_> = asked.parts.iter().map(|(stream, ..)| stream).collect();
        let ids: HashSet<_> = events.iter().map(|event| event.0).collect();
        let empty = asked.parts.iter().any(|(_, _, events)| events.is_empty());
        if owners.len() > 1 || streams.len() < asked.parts.len() || ids.len() < events.len() || empty {
            return Verdict::Invalid;
        }
        if let Some((key, body)) = &asked.request
            && let Some((first_body, answer, _)) = self.remembered(key)
        {
            return if first_body == body { Verdict::Again(answer.clone()) } else { Verdict::KeyReused };
        }
        if let Some((_, answer)) = self.appends.iter().find(|(stored, _)| *stored == events) {
            return Verdict::Again(answer.clone());
        }
        if self.log.values().any(|stored| ids.contains(&stored.event_id)) {
            return Verdict::Taken;
        }
        let actual = |stream: &StreamId| self.version(stream);
        let wrong = asked.parts.iter().filter(|(stream, expected, _)| match expected {
            ExpectedVersion::NoStream => actual(stream) != 0,
            ExpectedVersion::Exact(version) => actual(stream) != version.get(),
            ExpectedVersion::LastEvent { version, event_id } => {
                let last = self.log.values().rfind(|event| event.stream == *stream);
                last.is_none_or(|last| (last.version, last.event_id) != (*version, *event_id))
            }
            ExpectedVersion::Any => false,
            ExpectedVersion::StreamExists => actual(stream) == 0,
        });
        let wrong: Vec<_> = wrong.map(|(stream, ..)| (stream.clone(), actual(stream))).collect();
        if wrong.is_empty() { Verdict::New } else { Verdict::Conflict(wrong) }
    }

    /// Takes a new append into the model, with the answer that the store has given.
    pub(crate) fn store(&mut self, asked: &Asked, answer: Appended, stored: Vec<RecordedEvent>) {
        for (stream, _, events) in &asked.parts {
            *self.versions.entry(stream.clone()).or_default() += i64::try_from(events.len()).unwrap();
        }
        self.log.extend(stored.into_iter().map(|event| (event.position, event)));
        if let Some((key, body)) = &asked.request {
            self.requests.insert(key.clone(), (*body, answer.clone(), self.seconds));
        }
        self.appends.push((asked.events(), answer));
    }

    pub(crate) fn read(&self, after: Position, wants: impl Fn(&RecordedEvent) -> bool) -> Vec<RecordedEvent> {
        self.log.values().filter(|event| event.position > after && wants(event)).cloned().collect()
    }

    pub(crate) fn load(&self, stream: &StreamId, after: i64) -> Vec<RecordedEvent> {
        let of_stream = |event: &&RecordedEvent| event.stream == *stream && event.version.get() > after;
        self.log.values().filter(of_stream).cloned().collect()
    }

    pub(crate) fn head(&self) -> Position {
        self.log.keys().last().copied().unwrap_or(Position::START)
    }
}

/// Whether the error is the one that the model expects.
pub(crate) fn fits(error: &AppendError, verdict: &Verdict) -> bool {
    match (error, verdict) {
        (AppendError::Invalid(_), Verdict::Invalid)
        | (AppendError::RequestKeyReused { .. }, Verdict::KeyReused)
        | (AppendError::EventIdTaken { .. }, Verdict::Taken) => true,
        (AppendError::WrongExpectedVersion { stream, actual, .. }, Verdict::Conflict(wrong)) => {
            wrong.contains(&(stream.clone(), actual.get()))
        }
        _ => false,
    }
}
