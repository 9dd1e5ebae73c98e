//! A table in memory: what a database would keep of the rows.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::changes::{Changes, compare};
use crate::column::ColumnValue;
use crate::read_model::TableSpec;

/// The rows of one read model, in the order of their keys.
#[derive(Clone, Debug)]
pub(crate) struct MemoryTable {
    spec: &'static TableSpec,
    rows: BTreeMap<Key, Vec<ColumnValue>>,
}

#[derive(Clone, Debug)]
struct Key(Vec<ColumnValue>);

impl MemoryTable {
    pub(crate) fn new(spec: &'static TableSpec) -> Self {
        Self { spec, rows: BTreeMap::new() }
    }

    /// The rows that there are of these keys.
    pub(crate) fn load(&self, keys: &[Vec<ColumnValue>]) -> Vec<Vec<ColumnValue>> {
        keys.iter().filter_map(|key| self.rows.get(&Key(normal(key)))).cloned().collect()
    }

    pub(crate) fn write(&mut self, changes: &Changes) {
        let places = self.spec.key_places();
        for row in &changes.written {
            let row = normal(row);
            self.rows.insert(Key(places.iter().map(|&at| row[at].clone()).collect()), row);
        }
        for key in &changes.removed {
            self.rows.remove(&Key(normal(key)));
        }
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// All rows, in the order of their keys.
    pub(crate) fn rows(&self) -> Vec<Vec<ColumnValue>> {
        self.rows.values().cloned().collect()
    }
}

/// Values as a database gives them back.
fn normal(values: &[ColumnValue]) -> Vec<ColumnValue> {
    values.iter().cloned().map(ColumnValue::normal).collect()
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.iter().zip(&other.0).map(|(a, b)| compare(a, b)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}
