//! One event as somebody saw it, small enough to keep tens of millions of them.
//!
//! Everything that a filter asks for follows from the stream's number and the event's id, so that the judge knows who
//! should have got an event without keeping more of it.

use annals::engine::Payload;
use annals::{CorrelationId, EventId, Filter, NewEvent, RecordedEvent, StreamId, Tenant};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::torture::Fault;

/// The stream of the last event of a run, which every reader waits for. All filters want it.
pub(crate) const LAST_STREAM: u32 = 7;

/// The streams of events that are never committed.
pub(crate) const UNDONE_STREAM: u32 = 2;
pub(crate) const HELD_STREAM: u32 = 4;

/// The stream of the leading process.
pub(crate) const LEADERS_STREAM: u32 = 3;

/// Streams that many writers append to at once.
pub(crate) const HOT_STREAMS: std::ops::Range<u32> = 1_000..1_064;

/// Streams that only units of work append to.
pub(crate) const UNIT_STREAMS: std::ops::RangeFrom<u32> = 2_000_000..;

/// How many streams a writer has for itself.
pub(crate) const OWN_STREAMS: u32 = 1_000;

/// The name of every third event, by its id, and of the others.
pub(crate) const THIRD: &str = "torture.third";
pub(crate) const OTHER: &str = "torture.other";

/// The story of every seventh stream.
pub(crate) const STORY: &str = "story";

/// One event, at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) position: u64,
    pub(crate) stream: u32,
    pub(crate) version: u32,
    /// The end of the event's id, which is random.
    pub(crate) tail: u32,
}

impl Fact {
    /// From what a store has said.
    ///
    /// # Errors
    /// If it is not an event of a torture run.
    pub(crate) fn new(position: i64, stream: u32, version: i64, id: Uuid) -> Result<Self, Fault> {
        Ok(Self { position: position.try_into()?, stream, version: version.try_into()?, tail: tail(id) })
    }

    pub(crate) fn of_event(event: &RecordedEvent) -> Result<Self, Fault> {
        let stream = number(event.stream.aggregate_id())?;
        Self::new(event.position.get(), stream, event.version.get(), event.event_id.get())
    }

    /// From the columns position, aggregate_id, version and event_id.
    pub(crate) fn of_row(row: &PgRow) -> Result<Self, Fault> {
        Self::new(row.try_get(0)?, number(row.try_get(1)?)?, row.try_get(2)?, row.try_get(3)?)
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
    /// Those of one name.
    Third,
    /// Those of one story.
    Story,
}

impl Wanted {
    pub(crate) const EACH: [Self; 4] = [Self::All, Self::Odd, Self::Third, Self::Story];

    pub(crate) fn wants(self, fact: &Fact) -> bool {
        match self {
            Self::All => true,
            Self::Odd => fact.stream % 2 == 1,
            Self::Third => fact.tail.is_multiple_of(3),
            Self::Story => fact.stream.is_multiple_of(7),
        }
    }

    pub(crate) fn filter(self) -> Result<Filter, Fault> {
        let all = Filter::all();
        Ok(match self {
            Self::All => all,
            Self::Odd => all.aggregate_type(aggregate_type(1))?,
            Self::Third => all.event_name(THIRD)?,
            Self::Story => all.correlation(CorrelationId::new(STORY)?),
        })
    }
}

pub(crate) fn tail(id: Uuid) -> u32 {
    let [.., a, b, c, d] = *id.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

fn number(aggregate_id: &str) -> Result<u32, Fault> {
    Ok(aggregate_id.strip_prefix('s').ok_or("a stream that no writer has begun")?.parse()?)
}

pub(crate) fn aggregate_type(stream: u32) -> &'static str {
    if stream % 2 == 1 { "odd" } else { "even" }
}

pub(crate) fn aggregate_id(stream: u32) -> String {
    format!("s{stream}")
}

pub(crate) fn name(id: Uuid) -> &'static str {
    if tail(id).is_multiple_of(3) { THIRD } else { OTHER }
}

pub(crate) fn correlation(stream: u32) -> Option<&'static str> {
    stream.is_multiple_of(7).then_some(STORY)
}

pub(crate) fn stream_id(stream: u32) -> Result<StreamId, Fault> {
    Ok(StreamId::new(Tenant::default(), aggregate_type(stream), aggregate_id(stream))?)
}

/// A new event for the stream.
pub(crate) fn new_event(stream: u32, id: Uuid) -> Result<NewEvent, Fault> {
    let mut event = NewEvent::raw(EventId::new(id)?, name(id), 1, Payload::from_json(PAYLOAD)?)?;
    event.metadata.correlation_id = correlation(stream).map(CorrelationId::new).transpose()?;
    Ok(event)
}

/// What every event says.
pub(crate) const PAYLOAD: &str = r#"{"payment":"payment-000000000001","amount":1250,"currency":"EUR"}"#;

/// An id that every filter by name wants.
pub(crate) fn id_of_third() -> Uuid {
    loop {
        let id = crate::sample::id();
        if name(id) == THIRD {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_is_wanted_by_all() -> Result<(), Fault> {
        let last = Fact::new(1, LAST_STREAM, 1, id_of_third())?;
        assert!(last.is_last());
        assert!(Wanted::EACH.iter().all(|wanted| wanted.wants(&last)));
        Ok(())
    }

    #[test]
    fn what_the_judge_expects_is_what_the_filter_asks_for() -> Result<(), Fault> {
        for stream in [1, 2, 7, 14] {
            let event = new_event(stream, crate::sample::id())?;
            let fact = Fact::new(1, stream, 1, event.event_id.get())?;
            let odd = stream_id(stream)?.aggregate_type() == aggregate_type(1);
            assert_eq!(Wanted::Odd.wants(&fact), odd);
            assert_eq!(Wanted::Third.wants(&fact), &*event.name == THIRD);
            assert_eq!(Wanted::Story.wants(&fact), event.metadata.correlation_id.is_some());
        }
        Ok(())
    }
}
