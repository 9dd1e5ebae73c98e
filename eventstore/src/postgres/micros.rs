//! Times in rows of PostgreSQL.

use jiff::Timestamp;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};

/// A `timestamptz` as microseconds since 1970. sqlx knows times of other crates only, by features that would change the types
/// inferred in users' own queries.
#[derive(Clone, Copy, Debug)]
pub struct Micros(pub i64);

/// PostgreSQL counts from the year 2000.
pub(super) const EPOCH: i64 = 946_684_800_000_000;

impl Micros {
    /// Those of a time.
    #[must_use]
    pub fn of(time: Timestamp) -> Self {
        Self(time.as_microsecond())
    }
}

/// The numbers of `timestamptz` and of arrays of it; the same in every database.
const TIMESTAMPTZ: PgTypeInfo = PgTypeInfo::with_oid(Oid(1184));
const TIMESTAMPTZ_ARRAY: PgTypeInfo = PgTypeInfo::with_oid(Oid(1185));

impl Type<Postgres> for Micros {
    fn type_info() -> PgTypeInfo {
        TIMESTAMPTZ
    }
}

impl PgHasArrayType for Micros {
    fn array_type_info() -> PgTypeInfo {
        TIMESTAMPTZ_ARRAY
    }
}

impl Encode<'_, Postgres> for Micros {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        // Every time that a row can hold fits: the year -9999 is far from the end of the numbers.
        buffer.extend_from_slice(&self.0.saturating_sub(EPOCH).to_be_bytes());
        Ok(IsNull::No)
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
