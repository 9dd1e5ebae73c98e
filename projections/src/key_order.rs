//! Keys in the order in which the tables have them, and what a key begins with.

use std::cmp::Ordering;

use crate::changes::compare;
use crate::column::ColumnValue;

/// The values of a key, or of its first columns. What keys begin with comes directly before those keys.
#[derive(Clone, Debug)]
pub(crate) struct KeyOrder(Vec<ColumnValue>);

impl KeyOrder {
    pub(crate) fn of(values: Vec<ColumnValue>) -> Self {
        Self(values.into_iter().map(ColumnValue::normal).collect())
    }

    pub(crate) fn into_values(self) -> Vec<ColumnValue> {
        self.0
    }

    pub(crate) fn begins_with(&self, prefix: &Self) -> bool {
        self.0.len() >= prefix.0.len() && order(&self.0, &prefix.0).is_eq()
    }

    /// What the key begins with: its first column, its first two, and so on, without all of them.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = Self> {
        (1..self.0.len()).map(|columns| Self(self.0[..columns].to_vec()))
    }
}

/// The order of two keys as far as the shorter one goes.
fn order(a: &[ColumnValue], b: &[ColumnValue]) -> Ordering {
    a.iter().zip(b).map(|(a, b)| compare(a, b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

impl Ord for KeyOrder {
    fn cmp(&self, other: &Self) -> Ordering {
        order(&self.0, &other.0).then(self.0.len().cmp(&other.0.len()))
    }
}

impl PartialOrd for KeyOrder {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for KeyOrder {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for KeyOrder {}
