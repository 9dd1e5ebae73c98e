//! A table in memory: what a database would keep of the rows.

use std::collections::BTreeMap;

use crate::changes::Changes;
use crate::column::ColumnValue;
use crate::key_order::KeyOrder;
use crate::read_model::TableSpec;

/// The rows of one read model, in the order of their keys.
#[derive(Clone, Debug)]
pub(crate) struct MemoryTable {
    spec: &'static TableSpec,
    rows: BTreeMap<KeyOrder, Vec<ColumnValue>>,
}

impl MemoryTable {
    pub(crate) fn new(spec: &'static TableSpec) -> Self {
        Self { spec, rows: BTreeMap::new() }
    }

    /// The rows that there are of these keys.
    pub(crate) fn load(&self, keys: &[Vec<ColumnValue>]) -> Vec<Vec<ColumnValue>> {
        keys.iter().filter_map(|key| self.rows.get(&KeyOrder::of(key.clone()))).cloned().collect()
    }

    pub(crate) fn write(&mut self, changes: &Changes) {
        let places = self.spec.key_places();
        for prefix in &changes.removed_prefixes {
            let prefix = KeyOrder::of(prefix.clone());
            self.rows.retain(|key, _| !key.begins_with(&prefix));
        }
        for row in &changes.written {
            let row = normal(row);
            let key = KeyOrder::of(places.iter().map(|&at| row[at].clone()).collect());
            self.rows.insert(key, row);
        }
        for key in &changes.removed {
            self.rows.remove(&KeyOrder::of(key.clone()));
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
