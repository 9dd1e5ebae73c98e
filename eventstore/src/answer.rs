//! The answer to a request as it is stored with its key.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::appended::{Appended, AppendedStream};
use crate::position::Position;
use crate::stream::{StreamId, StreamVersion, Tenant};

#[derive(Serialize, Deserialize)]
struct StoredAnswer {
    recorded_at: i64,
    streams: Vec<StoredStream>,
}

#[derive(Serialize, Deserialize)]
struct StoredStream {
    aggregate_type: Arc<str>,
    aggregate_id: Arc<str>,
    version: i64,
    positions: Vec<i64>,
}

/// The text that is stored. On PostgreSQL the function that appends writes the same, except for a unit of work.
pub(crate) fn to_json(answer: &Appended) -> String {
    let stored = StoredAnswer {
        recorded_at: answer.recorded_at.as_microsecond(),
        streams: answer
            .streams
            .iter()
            .map(|s| StoredStream {
                aggregate_type: s.stream.aggregate_type().into(),
                aggregate_id: s.stream.aggregate_id().into(),
                version: s.version.get(),
                positions: s.positions.iter().map(|p| p.get()).collect(),
            })
            .collect(),
    };
    serde_json::to_string(&stored).expect("numbers and text always have a JSON form")
}

/// Reads it back, as the answer to a duplicate; the error describes an invalid text.
pub(crate) fn from_json(tenant: &Tenant, text: &str) -> Result<Appended, String> {
    let stored: StoredAnswer = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let recorded_at = Timestamp::from_microsecond(stored.recorded_at).map_err(|e| e.to_string())?;
    let streams = stored
        .streams
        .into_iter()
        .map(|s| AppendedStream {
            stream: StreamId::stored(tenant.clone(), s.aggregate_type, s.aggregate_id),
            version: StreamVersion::stored(s.version.max(0)),
            positions: s.positions.into_iter().map(Position::stored).collect(),
        })
        .collect();
    Ok(Appended::new(streams, recorded_at, true))
}
