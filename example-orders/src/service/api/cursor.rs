//! Where a part of a list ends. The client gets it as a text without a meaning, and brings it back.
//!
//! It holds the values of a row and not its number, so that rows which come, go or move in between hide no others. Rows with equal
//! values are in the order of their ids, which makes each place one of its own.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::order::{CustomerId, OrderId};
use crate::read_models::list::Listed;
use crate::service::access::to_hex;
use crate::service::problem::Problem;

/// What a list is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Column {
    PlacedAt,
    Total,
    Customer,
}

/// Column and direction, as in `sort=-placed-at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sort {
    pub column: Column,
    pub descending: bool,
}

impl Sort {
    /// All that can be asked for.
    pub const NAMES: [(&str, Self); 6] = [
        ("placed-at", Self { column: Column::PlacedAt, descending: false }),
        ("-placed-at", Self { column: Column::PlacedAt, descending: true }),
        ("total", Self { column: Column::Total, descending: false }),
        ("-total", Self { column: Column::Total, descending: true }),
        ("customer", Self { column: Column::Customer, descending: false }),
        ("-customer", Self { column: Column::Customer, descending: true }),
    ];

    /// The newest first.
    pub const DEFAULT: Self = Self::NAMES[1].1;

    pub fn parse(name: Option<&str>) -> Result<Self, Problem> {
        let Some(name) = name else { return Ok(Self::DEFAULT) };
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        let unknown = || {
            let known = Self::NAMES.map(|(name, _)| name).join(", ");
            Problem::bad("query-invalid", format!("`sort` is one of {known}"))
        };
        found.map(|(_, sort)| *sort).ok_or_else(unknown)
    }

    pub fn reversed(self) -> Self {
        Self { descending: !self.descending, ..self }
    }
}

/// The value of a row by which a list is sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    PlacedAt(Timestamp),
    Total(i64),
    Customer(CustomerId),
}

/// A place in a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cursor {
    sort: Sort,
    pub key: Key,
    pub order: OrderId,
}

impl Cursor {
    /// The place of a row.
    pub fn of(sort: Sort, row: &Listed) -> Self {
        let key = match sort.column {
            Column::PlacedAt => Key::PlacedAt(row.placed_at),
            Column::Total => Key::Total(row.total),
            Column::Customer => Key::Customer(row.customer.clone()),
        };
        Self { sort, key, order: row.order_id.clone() }
    }

    pub fn to_text(&self) -> String {
        // Texts and numbers are always JSON.
        to_hex(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// One that came with a list of another order would lead to a wrong place.
    pub fn parse(text: &str, sort: Sort) -> Result<Self, Problem> {
        let bad = || {
            Problem::bad("cursor-invalid", "send `next` as `after`, or `previous` as `before`, with the same `sort`")
        };
        let digits = text.as_bytes();
        if !digits.len().is_multiple_of(2) || digits.len() > 2_000 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(bad());
        }
        let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let bytes: Option<Vec<u8>> = digits.chunks_exact(2).map(byte).collect();
        let cursor: Self = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(bad)?;
        let fits = matches!(
            (sort.column, &cursor.key),
            (Column::PlacedAt, Key::PlacedAt(_))
                | (Column::Total, Key::Total(_))
                | (Column::Customer, Key::Customer(_))
        );
        if cursor.sort == sort && fits { Ok(cursor) } else { Err(bad()) }
    }
}
