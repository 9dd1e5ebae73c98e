//! One event as a writer or reader saw it, small enough to keep tens of millions of them.
//!
//! Everything that a filter asks for follows from the stream's number and the event's id. So the checker knows which
//! readers should have got an event.

use annals::engine::Payload;
use annals::{Append, CorrelationId, EventId, ExpectedVersion, Filter, NewEvent, RecordedEvent, StreamId, Tenant};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::Fault;

/// The stream of the last event of a run, which every reader waits for. All filters match it.
pub(crate) const LAST_STREAM: u32 = 7;

/// The streams of events that are never committed.
pub(crate) const ROLLED_BACK_STREAM: u32 = 2;
pub(crate) const UNCOMMITTED_STREAM: u32 = 4;

pub(crate) const COORDINATORS_STREAM: u32 = 3;

/// Streams that many writers append to at once.
pub(crate) const HOT_STREAMS: std::ops::Range<u32> = 1_000..1_064;

/// Streams that only units of work append to.
pub(crate) const UNIT_STREAMS: std::ops::RangeFrom<u32> = 2_000_000..;

/// How many streams only one writer appends to.
pub(crate) const OWN_STREAMS: u32 = 1_000;

/// The event name of a third of the events, by id, and of the others.
const THIRD: &str = "torture.third";
const OTHER: &str = "torture.other";

/// The correlation id of every seventh stream.
const CORRELATION: &str = "seventh";

/// The payload of every event.
pub(crate) const PAYLOAD: &str = r#"{"payment":"payment-000000000001","amount":1250,"currency":"EUR"}"#;

/// One event at its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) position: u64,
    pub(crate) stream: u32,
    pub(crate) version: u32,
    /// The end of the event's id, which is random.
    pub(crate) tail: u32,
}

impl Fact {
    /// From the answer of a store.
    ///
    /// # Errors
    /// If it is not an event of a torture run.
    pub(crate) fn new(position: i64, stream: u32, version: i64, id: Uuid) -> Result<Self, Fault> {
        Ok(Self { position: position.try_into()?, stream, version: version.try_into()?, tail: tail(id) })
    }

    pub(crate) fn of_event(event: &RecordedEvent) -> Result<Self, Fault> {
        let stream = stream_number(event.stream.aggregate_id())?;
        Self::new(event.position.get(), stream, event.version.get(), event.event_id.get())
    }

    /// From the columns position, aggregate_id, version and event_id.
    pub(crate) fn of_row(row: &PgRow) -> Result<Self, Fault> {
        Self::new(row.try_get(0)?, stream_number(row.try_get(1)?)?, row.try_get(2)?, row.try_get(3)?)
    }

    pub(crate) fn is_last(&self) -> bool {
        self.stream == LAST_STREAM
    }
}

/// Which events a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Wanted {
    All,
    /// Those of one aggregate type: of streams with an odd number.
    Odd,
    /// Those of one event name.
    Third,
    /// Those of one correlation id.
    Correlated,
}

impl Wanted {
    pub(crate) const EACH: [Self; 4] = [Self::All, Self::Odd, Self::Third, Self::Correlated];

    pub(crate) fn matches(self, fact: &Fact) -> bool {
        match self {
            Self::All => true,
            Self::Odd => fact.stream % 2 == 1,
            Self::Third => fact.tail.is_multiple_of(3),
            Self::Correlated => fact.stream.is_multiple_of(7),
        }
    }

    pub(crate) fn filter(self) -> Result<Filter, Fault> {
        let all = Filter::all();
        Ok(match self {
            Self::All => all,
            Self::Odd => all.aggregate_type(aggregate_type(1))?,
            Self::Third => all.event_name(THIRD)?,
            Self::Correlated => all.correlation(CorrelationId::new(CORRELATION)?),
        })
    }
}

pub(crate) fn tail(id: Uuid) -> u32 {
    let [.., a, b, c, d] = *id.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

pub(crate) fn stream_number(aggregate_id: &str) -> Result<u32, Fault> {
    Ok(aggregate_id.strip_prefix('s').ok_or("a stream that no writer has begun")?.parse()?)
}

pub(crate) fn aggregate_type(stream: u32) -> &'static str {
    if stream % 2 == 1 { "odd" } else { "even" }
}

pub(crate) fn aggregate_id(stream: u32) -> String {
    format!("s{stream}")
}

pub(crate) fn event_name(id: Uuid) -> &'static str {
    if tail(id).is_multiple_of(3) { THIRD } else { OTHER }
}

pub(crate) fn correlation(stream: u32) -> Option<&'static str> {
    stream.is_multiple_of(7).then_some(CORRELATION)
}

pub(crate) fn stream_id(stream: u32) -> Result<StreamId, Fault> {
    Ok(StreamId::new(Tenant::default(), aggregate_type(stream), aggregate_id(stream))?)
}

/// A new id that grows with time.
#[expect(clippy::disallowed_methods, reason = "a run needs no reproducible ids")]
pub(crate) fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// A new id whose event all filters by name match.
pub(crate) fn new_id_of_third() -> Uuid {
    loop {
        let id = new_id();
        if event_name(id) == THIRD {
            return id;
        }
    }
}

pub(crate) fn new_event(stream: u32, id: Uuid) -> Result<NewEvent, Fault> {
    let mut event = NewEvent::raw(EventId::new(id)?, event_name(id), 1, Payload::from_json(PAYLOAD)?)?;
    event.metadata.correlation_id = correlation(stream).map(CorrelationId::new).transpose()?;
    Ok(event)
}

/// One append to several streams; none if there are no streams.
pub(crate) fn append_to(
    streams: impl IntoIterator<Item = (u32, ExpectedVersion, Vec<NewEvent>)>,
) -> Result<Option<Append>, Fault> {
    let mut all: Option<Append> = None;
    for (stream, expected, events) in streams {
        let stream = stream_id(stream)?;
        all = Some(match all {
            None => Append::to(stream, expected, events),
            Some(append) => append.and(stream, expected, events),
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_matches_the_last_event() -> Result<(), Fault> {
        let last = Fact::new(1, LAST_STREAM, 1, new_id_of_third())?;
        assert!(last.is_last());
        assert!(Wanted::EACH.iter().all(|wanted| wanted.matches(&last)));
        Ok(())
    }

    #[test]
    fn the_checker_expects_what_the_filter_asks_for() -> Result<(), Fault> {
        for stream in [1, 2, 7, 14] {
            let event = new_event(stream, new_id())?;
            let fact = Fact::new(1, stream, 1, event.event_id.get())?;
            let odd = stream_id(stream)?.aggregate_type() == aggregate_type(1);
            assert_eq!(Wanted::Odd.matches(&fact), odd);
            assert_eq!(Wanted::Third.matches(&fact), &*event.name == THIRD);
            assert_eq!(Wanted::Correlated.matches(&fact), event.metadata.correlation_id.is_some());
        }
        Ok(())
    }
}
