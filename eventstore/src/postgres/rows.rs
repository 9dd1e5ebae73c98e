//! Rows of the table `events`, as they come out of PostgreSQL.

use std::sync::Arc;

use jiff::Timestamp;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgRow, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Postgres, Row, Type};
use uuid::Uuid;

use crate::error::ReadError;
use crate::event::{EventId, RecordedEvent};
use crate::metadata::Metadata;
use crate::payload::Payload;
use crate::position::Position;
use crate::recurring::Names;
use crate::stream::{StreamId, StreamVersion};

/// The columns of an event in the order in which [`Decoder::event`] reads them.
macro_rules! event_columns {
    () => {
        "position, event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version, \
         event_data::text, metadata::text, correlation_id, causation_id, append_id, recorded_at"
    };
}
pub(super) use event_columns;

/// A `timestamptz` as microseconds since 1970. sqlx reads them into types of time crates only, whose features would
/// change the types inferred in users' own queries.
pub(super) struct Micros(pub(super) i64);

/// PostgreSQL counts from the year 2000.
const EPOCH: i64 = 946_684_800_000_000;

impl Type<Postgres> for Micros {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz")
    }
}

impl<'r> Decode<'r, Postgres> for Micros {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => {
                let since_2000 = i64::from_be_bytes(value.as_bytes()?.try_into()?);
                Ok(Self(since_2000.checked_add(EPOCH).ok_or("the time is infinite")?))
            }
            PgValueFormat::Text => Err("times are read by prepared statements only".into()),
        }
    }
}

/// Takes rows apart.
#[derive(Default)]
pub(super) struct Decoder {
    names: Names,
}

impl Decoder {
    pub(super) fn event(&mut self, row: &PgRow) -> Result<RecordedEvent, ReadError> {
        let position = Position::stored(row.try_get(0).map_err(|e| damaged(Position::START, "position", &e))?);
        self.columns(position, row).map_err(|(column, error)| damaged(position, column, &*error))
    }

    fn columns(&mut self, position: Position, row: &PgRow) -> Result<RecordedEvent, (&'static str, BoxDynError)> {
        fn get<'r, T: Decode<'r, Postgres> + Type<Postgres>>(
            row: &'r PgRow,
            at: usize,
            column: &'static str,
        ) -> Result<T, (&'static str, BoxDynError)> {
            row.try_get(at).map_err(|e| (column, e.into()))
        }
        let stream = StreamId::stored(
            self.names.tenant(get(row, 2, "tenant")?),
            self.names.other(get(row, 3, "aggregate_type")?),
            self.names.aggregate_id(get(row, 4, "aggregate_id")?),
        );
        let text = |at, column| get::<Option<&str>>(row, at, column).map(|text| text.map(Arc::<str>::from));
        let metadata =
            Metadata::from_stored(get(row, 9, "metadata")?, text(10, "correlation_id")?, text(11, "causation_id")?);
        let schema_version: i64 = get(row, 7, "schema_version")?;
        let recorded_at: Micros = get(row, 13, "recorded_at")?;
        Ok(RecordedEvent {
            position,
            event_id: EventId::stored(get(row, 1, "event_id")?),
            stream,
            version: StreamVersion::stored(get(row, 5, "version")?),
            name: self.names.other(get(row, 6, "event_type")?),
            schema_version: u32::try_from(schema_version).map_err(|e| ("schema_version", e.into()))?,
            payload: Payload::trusted(get::<&str>(row, 8, "event_data")?),
            metadata: metadata.map_err(|e| ("metadata", e.into()))?,
            append_id: get::<Option<Uuid>>(row, 12, "append_id")?,
            recorded_at: Timestamp::from_microsecond(recorded_at.0).map_err(|e| ("recorded_at", e.into()))?,
        })
    }
}

fn damaged(position: Position, column: &str, error: &(dyn std::error::Error + 'static)) -> ReadError {
    ReadError::Damaged { position, what: format!("`{column}` cannot be read: {error}") }
}
