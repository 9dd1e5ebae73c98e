//! Many events in one row of text: how a page comes out of SQLite without a switch between threads per event.
//!
//! Names hold no control characters and JSON text holds none outside of strings and escapes them inside, so the
//! ASCII unit and record separators part the columns and the events. A row with another
//! number of parts was not written by annals and is reported as damaged.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use crate::error::ReadError;
use crate::event::{EventId, RecordedEvent};
use crate::metadata::Metadata;
use crate::name_interner::NameInterner;
use crate::payload::Payload;
use crate::position::Position;
use crate::stream::{StreamId, StreamVersion};

/// Parts the columns of an event.
const UNIT: char = '\x1f';
/// Parts the events of a page.
const RECORD: char = '\x1e';

/// An event whose contents were too long to be packed, and must be fetched on its own.
pub(crate) struct Long {
    /// Its index among the events of the page.
    pub(crate) index: usize,
    /// Its position in the log.
    pub(crate) position: Position,
}

/// The events of a page, and those of them whose contents are still missing.
pub(crate) struct Unpacked {
    pub(crate) events: Vec<RecordedEvent>,
    pub(crate) long: Vec<Long>,
    /// Whether the page goes on with a row that cannot be read.
    pub(crate) is_cut: bool,
}

/// Takes a page apart, up to the first row that cannot be read.
///
/// # Errors
/// If that is the first row of the page.
pub(crate) fn unpack(packed: &[u8], expected: usize) -> Result<Unpacked, ReadError> {
    let (text, is_cut) = match std::str::from_utf8(packed) {
        Ok(text) => (text, false),
        Err(error) => {
            let text = std::str::from_utf8(&packed[..error.valid_up_to()]).unwrap_or_default();
            let rows = text.rfind(RECORD).and_then(|end| text.get(..end));
            (rows.ok_or_else(|| not_utf8(packed))?, true)
        }
    };
    let mut names = NameInterner::default();
    let mut unpacked = Unpacked { events: Vec::with_capacity(expected), long: Vec::new(), is_cut };
    for row in text.split(RECORD) {
        let event = match event(row, &mut names) {
            Err(_) if !unpacked.events.is_empty() => {
                unpacked.is_cut = true;
                break;
            }
            event => event?,
        };
        if event.payload.as_str().is_empty() {
            unpacked.long.push(Long { index: unpacked.events.len(), position: event.position });
        }
        unpacked.events.push(event);
    }
    Ok(unpacked)
}

/// What is wrong with an event at a position that no append gives.
pub(crate) fn not_given_out(position: Position) -> ReadError {
    ReadError::Damaged { position, what: "positions begin at 1".to_owned() }
}

/// What is wrong with a page that is no text: the first event that is none.
fn not_utf8(packed: &[u8]) -> ReadError {
    let event = packed.split(|byte| *byte == RECORD as u8).find(|event| std::str::from_utf8(event).is_err());
    let event = String::from_utf8_lossy(event.unwrap_or_default());
    let position = event.split(UNIT).next().and_then(|position| position.parse().ok()).unwrap_or_default();
    damaged(Position::stored(position), "row", &event)
}

fn event(row: &str, names: &mut NameInterner) -> Result<RecordedEvent, ReadError> {
    let mut columns = row.split(UNIT);
    let mut next = || columns.next().unwrap_or_default();
    let position = next();
    let position = Position::stored(position.parse().map_err(|_| damaged(Position::START, "position", position))?);
    if position <= Position::START {
        return Err(not_given_out(position));
    }
    let event_id = next();
    let tenant = next();
    let aggregate_type = next();
    let aggregate_id = next();
    let version = next();
    let name = next();
    let schema_version = next();
    let correlation_id = next();
    let causation_id = next();
    let append_id = next();
    let recorded_at = next();
    let metadata = next();
    let Some(payload) = columns.next() else { return Err(damaged(position, "row", row)) };
    if columns.next().is_some() {
        return Err(damaged(position, "row", row));
    }
    let uuid = |column: &str, text: &str| Uuid::try_parse(text).map_err(|_| damaged(position, column, text));
    let optional = |text: &str| (!text.is_empty()).then(|| Arc::<str>::from(text));
    let metadata = if metadata.is_empty() { "{}" } else { metadata };
    Ok(RecordedEvent {
        position,
        event_id: EventId::stored(uuid("event_id", event_id)?),
        stream: StreamId::stored(names.tenant(tenant), names.other(aggregate_type), names.aggregate_id(aggregate_id)),
        version: StreamVersion::stored(version.parse().map_err(|_| damaged(position, "version", version))?),
        name: names.other(name),
        schema_version: schema_version.parse().map_err(|_| damaged(position, "schema_version", schema_version))?,
        payload: Payload::trusted(payload),
        metadata: read_metadata(position, metadata, optional(correlation_id), optional(causation_id))?,
        append_id: if append_id.is_empty() { None } else { Some(uuid("append_id", append_id)?) },
        recorded_at: recorded_at
            .parse()
            .ok()
            .and_then(|at| Timestamp::from_microsecond(at).ok())
            .ok_or_else(|| damaged(position, "recorded_at", recorded_at))?,
    })
}

/// Reads the `metadata` column together with the two beside it.
pub(crate) fn read_metadata(
    position: Position,
    metadata: &str,
    correlation_id: Option<Arc<str>>,
    causation_id: Option<Arc<str>>,
) -> Result<Metadata, ReadError> {
    Metadata::from_stored(metadata, correlation_id, causation_id).map_err(|e| ReadError::Damaged {
        position,
        what: format!("`metadata` does not fit at its column {}", e.column()),
    })
}

fn damaged(position: Position, column: &str, found: &str) -> ReadError {
    ReadError::Damaged { position, what: format!("`{column}` cannot be read, it has {} bytes", found.len()) }
}
