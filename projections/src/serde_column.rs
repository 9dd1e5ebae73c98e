//! Columns that serde writes: bare text for ids and plain enums, JSON for everything else.

use annals_eventstore::__private::without_values;
use annals_eventstore::Payload;
use serde::Serialize;
use serde::de::{DeserializeOwned, IntoDeserializer};

use crate::column::{ColumnError, ColumnValue};
use crate::column_types::text;

/// A value that serde writes as a string, as that string without quotes. Anything else that serde writes is refused.
pub fn text_to_column<T: Serialize + ?Sized>(value: &T) -> ColumnValue {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(string)) => text(string.into()),
        Ok(serde_json::Value::Null) => {
            ColumnValue::refused("is written as null by serde; use an `Option`, and one alone")
        }
        Ok(_) => ColumnValue::refused("is not written as a string by serde; use `#[column(json)]`"),
        Err(error) => ColumnValue::refused(format!("cannot be written by serde: {error}; fix its `Serialize`")),
    }
}

/// Reads back what [`text_to_column`] has written.
///
/// # Errors
/// [`ColumnError`] if the column holds no text, or serde does not take it.
pub fn text_from_column<T: DeserializeOwned>(value: ColumnValue) -> Result<T, ColumnError> {
    let json = match value {
        ColumnValue::Text(text) => serde_json::Value::String(text.as_ref().to_owned()),
        other => return Err(ColumnError::mismatch("text", &other)),
    };
    T::deserialize(json.into_deserializer()).map_err(|error: serde_json::Error| {
        ColumnError::new("text that serde takes", without_values(error).to_string())
    })
}

/// Makes a value the one that its text column gives back.
///
/// # Errors
/// [`ColumnError`] if the column cannot hold it, or serde does not take it back.
pub fn text_normalize<T: Serialize + DeserializeOwned>(value: &mut T) -> Result<(), ColumnError> {
    *value = text_from_column(text_to_column(value))?;
    Ok(())
}

/// A value as JSON text, under the rules of event payloads.
pub fn json_to_column<T: Serialize + ?Sized>(value: &T) -> ColumnValue {
    match Payload::of(value) {
        Ok(json) => ColumnValue::Json(json.as_str().into()),
        Err(error) => ColumnValue::refused(format!("cannot be kept: {error}")),
    }
}

/// Reads back what [`json_to_column`] has written.
///
/// # Errors
/// [`ColumnError`] if the column holds no JSON, or serde does not take it.
pub fn json_from_column<T: DeserializeOwned>(value: ColumnValue) -> Result<T, ColumnError> {
    let ColumnValue::Json(json) = &value else { return Err(ColumnError::mismatch("JSON", &value)) };
    serde_json::from_str(json)
        .map_err(|error| ColumnError::new("JSON that serde takes", without_values(error).to_string()))
}

/// Makes a value the one that its JSON column gives back.
///
/// # Errors
/// [`ColumnError`] if the column cannot hold it, or serde does not take it back.
pub fn json_normalize<T: Serialize + DeserializeOwned>(value: &mut T) -> Result<(), ColumnError> {
    *value = json_from_column(json_to_column(value).normal())?;
    Ok(())
}

/// Makes types that serde writes as a string (ids, plain enums) usable as text columns, also in keys.
///
/// The text is stored in the column without quotes, so SQL can compare it. A value that serde writes as anything but a
/// string stops the projection; `#[column(json)]` on the field is for those.
///
/// ```
/// use annals_projections::{Column, ColumnValue};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Hash)]
/// struct OrderId(String);
///
/// annals_projections::text_column!(OrderId);
///
/// #[derive(annals_macros::ReadModel, Clone)]
/// #[read_model(table = "order_list", key = "order_id")]
/// struct OrderRow {
///     order_id: OrderId,
///     cents: i64,
/// }
///
/// assert_eq!(OrderId("o-17".into()).to_column(), ColumnValue::Text("o-17".into()));
/// ```
#[macro_export]
macro_rules! text_column {
    ($($type:ty),+ $(,)?) => {$(
        impl $crate::Column for $type {
            const TYPE: $crate::ColumnType = $crate::ColumnType::Text;

            fn to_column(&self) -> $crate::ColumnValue {
                $crate::__private::text_to_column(self)
            }

            fn from_column(value: $crate::ColumnValue) -> ::std::result::Result<Self, $crate::ColumnError> {
                $crate::__private::text_from_column(value)
            }

            fn normalize(&mut self) -> ::std::result::Result<(), $crate::ColumnError> {
                $crate::__private::text_normalize(self)
            }
        }
    )+};
}
