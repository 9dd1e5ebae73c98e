//! The types that columns hold out of the box.

use std::sync::Arc;

use annals_eventstore::Tenant;
use jiff::Timestamp;
use jiff::civil::Date;
use uuid::Uuid;

use crate::changes::{FIRST_MOMENT, NO_NUL};
use crate::column::{Column, ColumnError, ColumnType, ColumnValue};

macro_rules! integer_column {
    ($($type:ty),*) => {$(
        impl Column for $type {
            const TYPE: ColumnType = ColumnType::Integer;

            fn to_column(&self) -> ColumnValue {
                ColumnValue::Integer(i64::from(*self))
            }

            fn from_column(value: ColumnValue) -> Result<Self, ColumnError> {
                match value {
                    ColumnValue::Integer(n) => <$type>::try_from(n).map_err(|_| {
                        let found = if n < 0 { "a smaller one" } else { "a larger one" };
                        ColumnError::new(concat!("an integer within ", stringify!($type)), found)
                    }),
                    other => Err(ColumnError::mismatch("an integer", &other)),
                }
            }

            fn normalize(&mut self) -> Result<(), ColumnError> {
                Ok(())
            }
        }
    )*};
}

integer_column!(i16, i32, i64, u8, u16, u32);

impl Column for bool {
    const TYPE: ColumnType = ColumnType::Bool;

    fn to_column(&self) -> ColumnValue {
        ColumnValue::Bool(*self)
    }

    fn from_column(value: ColumnValue) -> Result<Self, ColumnError> {
        match value {
            ColumnValue::Bool(b) => Ok(b),
            other => Err(ColumnError::mismatch("a bool", &other)),
        }
    }

    fn normalize(&mut self) -> Result<(), ColumnError> {
        Ok(())
    }
}

impl Column for f64 {
    const TYPE: ColumnType = ColumnType::Real;

    fn to_column(&self) -> ColumnValue {
        if self.is_nan() {
            return ColumnValue::refused("is NaN, which SQLite would store as null; use an `Option`");
        }
        // SQLite keeps whole reals as integers and so loses the sign of zero; one zero keeps a loaded row equal to itself.
        ColumnValue::Real(if *self == 0.0 { 0.0 } else { *self })
    }

    fn from_column(value: ColumnValue) -> Result<Self, ColumnError> {
        match value {
            ColumnValue::Real(n) => Ok(n),
            other => Err(ColumnError::mismatch("a real number", &other)),
        }
    }

    fn normalize(&mut self) -> Result<(), ColumnError> {
        if self.is_nan() {
            return Err(ColumnError::unfit("NaN"));
        }
        if *self == 0.0 {
            *self = 0.0;
        }
        Ok(())
    }
}

impl Column for String {
    const TYPE: ColumnType = ColumnType::Text;

    fn to_column(&self) -> ColumnValue {
        text(self.as_str().into())
    }

    fn from_column(value: ColumnValue) -> Result<Self, ColumnError> {
        Arc::<str>::from_column(value).map(|text| text.as_ref().to_owned())
    }

    fn normalize(&mut self) -> Result<(), ColumnError> {
        if self.as_bytes().contains(&0) { Err(ColumnError::unfit(NO_NUL)) } else { Ok(()) }
    }
}

/// The text of its name.
impl Column for Tenant {
    const TYPE: ColumnType = ColumnType::Text;

    fn to_column(&self) -> ColumnValue {
        ColumnValue::Text(self.as_str().into())
    }

    fn from_column(value: ColumnValue) -> Result<Self, ColumnError> {
        let name = Arc::<str>::from_column(value)?;
        Tenant::new(&name)
            .map_err(|error| ColumnError::new("the name of a tenant", format!("a text that {}", error.problem)))
    }

    fn normalize(&mut self) -> Result<(), ColumnError> {
        Ok(())
    }
}

impl Column for Arc<str> {
    const TYPE: ColumnType = ColumnType::Text;

    fn to_column(&self) -> ColumnValue {
        text(Arc::clone(self))
    }

    fn from_column(value: ColumnValue) -> Result<Self, ColumnError> {
        match value {
            ColumnValue::Text(text) => Ok(text),
            other => Err(ColumnError::mismatch("text", &other)),
        }
    }

    fn normalize(&mut self) -> Result<(), ColumnError> {
        if self.as_bytes().contains(&0) { Err(ColumnError::unfit(NO_NUL)) } else { Ok(()) }
    }
}

/// Text as every database holds it: PostgreSQL has no U+0000, so SQLite does not take it either.
pub(crate) fn text(text: Arc<str>) -> ColumnValue {
    if text.as_bytes().contains(&0) {
        return ColumnValue::refused(NO_NUL);
    }
    ColumnValue::Text(text)
}

/// The moment so many microseconds after 1970. jiff's own function refuses the last second of its range, but for its beginning.
pub(crate) fn moment(micros: i64) -> Option<Timestamp> {
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1_000).ok()?;
    Timestamp::new(micros.div_euclid(1_000_000), nanos).ok()
}

impl Column for Timestamp {
    const TYPE: ColumnType = ColumnType::Timestamp;

    fn to_column(&self) -> ColumnValue {
        ColumnValue::Timestamp(*self)
    }

    fn from_column(value: ColumnValue) -> Result<Self, ColumnError> {
        match value {
            ColumnValue::Timestamp(time) => Ok(time),
            other => Err(ColumnError::mismatch("a timestamp", &other)),
        }
    }

    fn normalize(&mut self) -> Result<(), ColumnError> {
        let micros = self.as_microsecond();
        if micros < FIRST_MOMENT {
            return Err(ColumnError::unfit("a moment before the year -4713"));
        }
        if self.subsec_nanosecond() % 1_000 != 0 {
            *self = moment(micros).unwrap_or(*self);
        }
        Ok(())
    }
}

/// Kept as text, `2026-03-01` say, which sorts like the dates themselves.
impl Column for Date {
    const TYPE: ColumnType = ColumnType::Text;

    fn to_column(&self) -> ColumnValue {
        ColumnValue::Text(self.to_string().into())
    }

    fn from_column(value: ColumnValue) -> Result<Self, ColumnError> {
        let text = Arc::<str>::from_column(value)?;
        text.parse().map_err(|_| ColumnError::new("a date as `2026-03-01`", format!("text of {} bytes", text.len())))
    }

    fn normalize(&mut self) -> Result<(), ColumnError> {
        Ok(())
    }
}

impl Column for Uuid {
    const TYPE: ColumnType = ColumnType::Uuid;

    fn to_column(&self) -> ColumnValue {
        ColumnValue::Uuid(*self)
    }

    fn from_column(value: ColumnValue) -> Result<Self, ColumnError> {
        match value {
            ColumnValue::Uuid(id) => Ok(id),
            other => Err(ColumnError::mismatch("a UUID", &other)),
        }
    }

    fn normalize(&mut self) -> Result<(), ColumnError> {
        Ok(())
    }
}

impl Column for Vec<u8> {
    const TYPE: ColumnType = ColumnType::Bytes;

    fn to_column(&self) -> ColumnValue {
        ColumnValue::Bytes(self.as_slice().into())
    }

    fn from_column(value: ColumnValue) -> Result<Self, ColumnError> {
        match value {
            ColumnValue::Bytes(bytes) => Ok(bytes.to_vec()),
            other => Err(ColumnError::mismatch("bytes", &other)),
        }
    }

    fn normalize(&mut self) -> Result<(), ColumnError> {
        Ok(())
    }
}

/// A nullable column.
///
/// An `Option` of an `Option` would give null for two values, so the inner type must not be nullable; that does not compile.
impl<T: Column> Column for Option<T> {
    const TYPE: ColumnType = T::TYPE;
    const NULLABLE: bool = {
        assert!(!T::NULLABLE, "a column cannot tell one null from another; use one `Option`");
        true
    };

    fn to_column(&self) -> ColumnValue {
        self.as_ref().map_or(ColumnValue::Null, Column::to_column)
    }

    fn from_column(value: ColumnValue) -> Result<Self, ColumnError> {
        match value {
            ColumnValue::Null => Ok(None),
            value => T::from_column(value).map(Some),
        }
    }

    fn normalize(&mut self) -> Result<(), ColumnError> {
        self.as_mut().map_or(Ok(()), Column::normalize)
    }
}
