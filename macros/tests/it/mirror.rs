// The traits of annals-projections, reduced to what derived code needs: this crate cannot depend on that one.

pub(crate) use self::__private::{ColumnError, ColumnSpec, ColumnType, ColumnValue, IndexSpec, ReadModel, TableSpec};

pub(crate) mod __private {
    pub(crate) use ::core;
    pub(crate) use std::string::String;
    pub(crate) use std::vec::Vec;

    use serde::Serialize;
    use serde::de::DeserializeOwned;

    pub(crate) trait ReadModel: Clone + Send + Sync + 'static {
        type Key;
        const TABLE: &'static TableSpec;
        fn key(&self) -> Self::Key;
        fn to_columns(&self) -> Vec<ColumnValue>;
        fn from_columns(columns: &mut dyn Iterator<Item = ColumnValue>) -> Result<Self, ColumnError>;

        fn normalize(&mut self) -> Result<(), ColumnError> {
            *self = Self::from_columns(&mut self.to_columns().into_iter())?;
            Ok(())
        }
    }

    #[derive(Debug, PartialEq)]
    pub(crate) struct TableSpec {
        pub(crate) name: &'static str,
        pub(crate) columns: &'static [ColumnSpec],
        pub(crate) key: &'static [&'static str],
        pub(crate) indexes: &'static [IndexSpec],
        pub(crate) per_tenant: bool,
    }

    #[derive(Debug, PartialEq)]
    pub(crate) struct ColumnSpec {
        pub(crate) name: &'static str,
        pub(crate) column_type: ColumnType,
        pub(crate) nullable: bool,
    }

    #[derive(Debug, PartialEq)]
    pub(crate) struct IndexSpec {
        pub(crate) columns: &'static [&'static str],
    }

    #[derive(Debug, PartialEq)]
    pub(crate) enum ColumnType {
        Integer,
        Text,
        Json,
    }

    #[derive(Debug, PartialEq, Clone)]
    pub(crate) enum ColumnValue {
        Null,
        Integer(i64),
        Text(String),
        Json(String),
    }

    #[derive(Debug, PartialEq)]
    pub(crate) struct ColumnError(pub(crate) String);

    impl ColumnError {
        pub(crate) fn in_column(self, column: &str) -> Self {
            Self(format!("{column}: {}", self.0))
        }
    }

    pub(crate) trait Column: Sized {
        const TYPE: ColumnType;
        const NULLABLE: bool = false;
        fn to_column(&self) -> ColumnValue;
        fn from_column(value: ColumnValue) -> Result<Self, ColumnError>;

        fn normalize(&mut self) -> Result<(), ColumnError> {
            *self = Self::from_column(self.to_column())?;
            Ok(())
        }
    }

    impl Column for i64 {
        const TYPE: ColumnType = ColumnType::Integer;

        fn to_column(&self) -> ColumnValue {
            ColumnValue::Integer(*self)
        }

        fn from_column(value: ColumnValue) -> Result<Self, ColumnError> {
            match value {
                ColumnValue::Integer(n) => Ok(n),
                other => Err(ColumnError(format!("{other:?}"))),
            }
        }
    }

    impl Column for String {
        const TYPE: ColumnType = ColumnType::Text;

        fn to_column(&self) -> ColumnValue {
            ColumnValue::Text(self.clone())
        }

        fn from_column(value: ColumnValue) -> Result<Self, ColumnError> {
            match value {
                ColumnValue::Text(text) => Ok(text),
                other => Err(ColumnError(format!("{other:?}"))),
            }
        }
    }

    impl<T: Column> Column for Option<T> {
        const TYPE: ColumnType = T::TYPE;
        const NULLABLE: bool = true;

        fn to_column(&self) -> ColumnValue {
            self.as_ref().map_or(ColumnValue::Null, Column::to_column)
        }

        fn from_column(value: ColumnValue) -> Result<Self, ColumnError> {
            if value == ColumnValue::Null { Ok(None) } else { T::from_column(value).map(Some) }
        }
    }

    pub(crate) fn next_column(
        columns: &mut dyn Iterator<Item = ColumnValue>,
        column: &str,
    ) -> Result<ColumnValue, ColumnError> {
        columns.next().ok_or_else(|| ColumnError("missing".to_owned()).in_column(column))
    }

    pub(crate) fn json_to_column<T: Serialize>(value: &T) -> ColumnValue {
        ColumnValue::Json(serde_json::to_string(value).expect("serde writes it"))
    }

    pub(crate) fn json_from_column<T: DeserializeOwned>(value: ColumnValue) -> Result<T, ColumnError> {
        match value {
            ColumnValue::Json(json) => serde_json::from_str(&json).map_err(|error| ColumnError(error.to_string())),
            other => Err(ColumnError(format!("{other:?}"))),
        }
    }

    pub(crate) fn json_normalize<T: Serialize + DeserializeOwned>(value: &mut T) -> Result<(), ColumnError> {
        *value = json_from_column(json_to_column(value))?;
        Ok(())
    }

    pub(crate) fn text_normalize<T: Serialize + DeserializeOwned>(value: &mut T) -> Result<(), ColumnError> {
        *value = text_from_column(text_to_column(value))?;
        Ok(())
    }

    pub(crate) fn text_to_column<T: Serialize>(value: &T) -> ColumnValue {
        match serde_json::to_value(value).expect("serde writes it") {
            serde_json::Value::String(text) => ColumnValue::Text(text),
            serde_json::Value::Null => ColumnValue::Null,
            other => panic!("{other}"),
        }
    }

    pub(crate) fn text_from_column<T: DeserializeOwned>(value: ColumnValue) -> Result<T, ColumnError> {
        let json = match value {
            ColumnValue::Text(text) => text.into(),
            ColumnValue::Null => serde_json::Value::Null,
            other => return Err(ColumnError(format!("{other:?}"))),
        };
        serde_json::from_value(json).map_err(|error| ColumnError(error.to_string()))
    }
}
