//! Rows of the table `events`, as PostgreSQL returns them.

use std::sync::Arc;

use jiff::Timestamp;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgRow, PgValueFormat};
use sqlx::{Row, ValueRef};
use uuid::Uuid;

use crate::error::ReadError;
use crate::event::{EventId, RecordedEvent};
use crate::metadata::Metadata;
use crate::name_interner::NameInterner;
use crate::payload::Payload;
use crate::position::Position;
use crate::postgres::micros::EPOCH;
use crate::postgres::read::copy::Fields;
use crate::stream::{StreamId, StreamVersion};

/// The columns of an event whose stream is known, in the order in which [`Decoder::event_of`] reads them.
macro_rules! columns_in_stream {
    () => {
        "position, event_id, version, event_type, schema_version, event_data, metadata, correlation_id, causation_id, \
         append_id, recorded_at"
    };
}
pub(crate) use columns_in_stream;

/// All columns of an event in the order in which [`Decoder::event`] reads them.
macro_rules! event_columns {
    () => {
        concat!($crate::postgres::read::rows::columns_in_stream!(), ", tenant, aggregate_type, aggregate_id")
    };
}
pub(crate) use event_columns;

/// The number of these columns.
pub(crate) const EVENT_COLUMNS: usize = 14;

/// The columns of a row, in their binary format.
pub(crate) trait Columns {
    /// The bytes of a column; `None` for NULL.
    fn bytes(&self, at: usize) -> Result<Option<&[u8]>, BoxDynError>;
}

impl Columns for PgRow {
    fn bytes(&self, at: usize) -> Result<Option<&[u8]>, BoxDynError> {
        let value = self.try_get_raw(at)?;
        if value.is_null() {
            return Ok(None);
        }
        if value.format() != PgValueFormat::Binary {
            return Err("it is read by prepared statements only".into());
        }
        value.as_bytes().map(Some)
    }
}

impl Columns for Fields<'_, EVENT_COLUMNS> {
    fn bytes(&self, at: usize) -> Result<Option<&[u8]>, BoxDynError> {
        Ok(self[at])
    }
}

/// Decodes rows. Reads the bytes of the columns as the table defines them: sqlx's own way compares the type of every column
/// of every row with the requested one (measured: a quarter of the time of reading a log).
#[derive(Default)]
pub(crate) struct Decoder {
    names: NameInterner,
}

/// The column that cannot be read, and why.
type Unreadable = (&'static str, BoxDynError);

impl Decoder {
    pub(crate) fn event(&mut self, row: &impl Columns) -> Result<RecordedEvent, ReadError> {
        self.readable(row, |names, row| {
            Ok(StreamId::stored(
                names.tenant(text(row, 11, "tenant")?),
                names.other(text(row, 12, "aggregate_type")?),
                names.aggregate_id(text(row, 13, "aggregate_id")?),
            ))
        })
    }

    /// The same for a row without the columns of its stream.
    pub(crate) fn event_of(&mut self, stream: &StreamId, row: &impl Columns) -> Result<RecordedEvent, ReadError> {
        self.readable(row, |_, _| Ok(stream.clone()))
    }

    fn readable<R: Columns>(
        &mut self,
        row: &R,
        stream: impl FnOnce(&mut NameInterner, &R) -> Result<StreamId, Unreadable>,
    ) -> Result<RecordedEvent, ReadError> {
        let position = number(row, 0, "position");
        let position = position.map_err(|(column, error)| damaged(Position::START, column, &*error))?;
        let position = Position::stored(position);
        let stream = stream(&mut self.names, row);
        let event = stream.and_then(|stream| self.columns(position, stream, row));
        event.map_err(|(column, error)| damaged(position, column, &*error))
    }

    fn columns(
        &mut self,
        position: Position,
        stream: StreamId,
        row: &impl Columns,
    ) -> Result<RecordedEvent, Unreadable> {
        let correlation_id = optional_text(row, 7, "correlation_id")?.map(Arc::<str>::from);
        let causation_id = optional_text(row, 8, "causation_id")?.map(Arc::<str>::from);
        let metadata = Metadata::from_stored(json(row, 6, "metadata")?, correlation_id, causation_id);
        let schema_version = number(row, 4, "schema_version")?;
        let micros = number(row, 10, "recorded_at")?;
        let micros = micros.checked_add(EPOCH).ok_or_else(|| ("recorded_at", "the time is infinite".into()))?;
        Ok(RecordedEvent {
            position,
            event_id: EventId::stored(id(row, 1, "event_id")?),
            stream,
            version: StreamVersion::stored(number(row, 2, "version")?),
            name: self.names.other(text(row, 3, "event_type")?),
            schema_version: u32::try_from(schema_version).map_err(|e| ("schema_version", e.into()))?,
            payload: Payload::trusted(json(row, 5, "event_data")?),
            metadata: metadata
                .map_err(|e| ("metadata", format!("it does not fit at its column {}", e.column()).into()))?,
            append_id: optional(row, 9, "append_id")?.map(as_id).transpose().map_err(|e| ("append_id", e))?,
            recorded_at: Timestamp::from_microsecond(micros).map_err(|e| ("recorded_at", e.into()))?,
        })
    }
}

/// The position and the id of a row's event.
pub(crate) fn position_and_id(row: &impl Columns) -> Result<(Position, EventId), ReadError> {
    let position = number(row, 0, "position");
    let position = Position::stored(position.map_err(|(column, error)| damaged(Position::START, column, &*error))?);
    let event_id = id(row, 1, "event_id").map_err(|(column, error)| damaged(position, column, &*error))?;
    Ok((position, EventId::stored(event_id)))
}

fn optional<'r>(row: &'r impl Columns, at: usize, column: &'static str) -> Result<Option<&'r [u8]>, Unreadable> {
    row.bytes(at).map_err(|e| (column, e))
}

fn bytes<'r>(row: &'r impl Columns, at: usize, column: &'static str) -> Result<&'r [u8], Unreadable> {
    optional(row, at, column)?.ok_or_else(|| (column, "it is NULL".into()))
}

/// A column of eight bytes.
fn number(row: &impl Columns, at: usize, column: &'static str) -> Result<i64, Unreadable> {
    let bytes = bytes(row, at, column)?.try_into();
    bytes.map(i64::from_be_bytes).map_err(|e| (column, e.into()))
}

fn as_id(bytes: &[u8]) -> Result<Uuid, BoxDynError> {
    Ok(Uuid::from_slice(bytes)?)
}

fn id(row: &impl Columns, at: usize, column: &'static str) -> Result<Uuid, Unreadable> {
    as_id(bytes(row, at, column)?).map_err(|e| (column, e))
}

fn text<'r>(row: &'r impl Columns, at: usize, column: &'static str) -> Result<&'r str, Unreadable> {
    std::str::from_utf8(bytes(row, at, column)?).map_err(|e| (column, e.into()))
}

fn optional_text<'r>(row: &'r impl Columns, at: usize, column: &'static str) -> Result<Option<&'r str>, Unreadable> {
    optional(row, at, column)?.map(std::str::from_utf8).transpose().map_err(|e| (column, e.into()))
}

/// The text of a JSONB column, which comes after the number of the format.
fn json<'r>(row: &'r impl Columns, at: usize, column: &'static str) -> Result<&'r str, Unreadable> {
    match bytes(row, at, column)? {
        [1, text @ ..] => std::str::from_utf8(text).map_err(|e| (column, e.into())),
        _ => Err((column, "it is in a format of JSONB that this build does not know".into())),
    }
}

fn damaged(position: Position, column: &str, error: &(dyn std::error::Error + 'static)) -> ReadError {
    ReadError::Damaged { position, what: format!("`{column}` cannot be read: {error}") }
}
