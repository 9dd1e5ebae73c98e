//! Read models in memory, for tests of the runner.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use annals_eventstore::{Checkpoint, Incarnation};
use async_trait::async_trait;
use jiff::Timestamp;

use crate::column::ColumnValue;
use crate::database::{Fault, Model, Moved, Prepared, ReadModels, Work};
use crate::error::StartError;
use crate::testing::MemoryTable;

#[derive(Clone, Default)]
pub(crate) struct MemoryReadModels(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    tables: HashMap<String, MemoryTable>,
    checkpoints: HashMap<(&'static str, u32), Checkpoint>,
    shown: HashMap<&'static str, u32>,
}

impl MemoryReadModels {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the lock")
    }

    /// The rows of a model's table, in the order of their keys.
    pub(crate) fn rows(&self, model: &Model) -> Vec<Vec<ColumnValue>> {
        self.state().tables.get(&model.table_name()).map(MemoryTable::rows).unwrap_or_default()
    }

    /// Puts a stored checkpoint elsewhere, or removes it.
    pub(crate) fn set_checkpoint(&self, model: &Model, checkpoint: Option<Checkpoint>) {
        let key = (model.projection, model.version);
        match checkpoint {
            Some(checkpoint) => self.state().checkpoints.insert(key, checkpoint),
            None => self.state().checkpoints.remove(&key),
        };
    }

    /// Removes all rows of a model and puts its checkpoint to the beginning.
    pub(crate) fn empty(&self, model: &Model) {
        let mut state = self.state();
        state.tables.insert(model.table_name(), MemoryTable::new(model.table));
        let checkpoint = state.checkpoints.get_mut(&(model.projection, model.version)).expect("prepared before");
        *checkpoint = Checkpoint::start(checkpoint.incarnation);
    }

    pub(crate) fn shown(&self, table: &str) -> Option<u32> {
        self.state().shown.get(table).copied()
    }
}

#[async_trait]
impl ReadModels for MemoryReadModels {
    async fn migrate(&self) -> Result<(), StartError> {
        Ok(())
    }

    async fn prepare(&self, model: &Model, incarnation: Incarnation, _: Timestamp) -> Result<Prepared, StartError> {
        let mut state = self.state();
        state.tables.entry(model.table_name()).or_insert_with(|| MemoryTable::new(model.table));
        let start = Checkpoint::start(incarnation);
        let checkpoint = *state.checkpoints.entry((model.projection, model.version)).or_insert(start);
        let shown = *state.shown.entry(model.table.name).or_insert(model.version) == model.version;
        Ok(Prepared { checkpoint, shown })
    }

    async fn checkpoints(&self, models: &[Model]) -> Result<Vec<Option<Checkpoint>>, Fault> {
        let state = self.state();
        Ok(models.iter().map(|model| state.checkpoints.get(&(model.projection, model.version)).copied()).collect())
    }

    async fn load(
        &self,
        model: &Model,
        from: &Checkpoint,
        keys: &[Vec<ColumnValue>],
    ) -> Result<Option<Vec<Vec<ColumnValue>>>, Fault> {
        let state = self.state();
        if state.checkpoints.get(&(model.projection, model.version)) != Some(from) {
            return Ok(None);
        }
        Ok(Some(state.tables.get(&model.table_name()).map(|table| table.load(keys)).unwrap_or_default()))
    }

    async fn commit(&self, work: &[&Work], _: Timestamp) -> Result<Vec<Moved>, Fault> {
        let mut state = self.state();
        let mut moved = Vec::new();
        for work in work {
            let key = (work.model.projection, work.model.version);
            let stands = state.checkpoints.get(&key).is_some_and(|stored| *stored == work.from);
            if stands {
                state.checkpoints.insert(key, work.to);
                state.tables.get_mut(&work.model.table_name()).expect("prepared before").write(&work.changes);
            }
            moved.push(if stands { Moved::Done } else { Moved::Overtaken });
        }
        Ok(moved)
    }

    async fn show(&self, model: &Model) -> Result<(), Fault> {
        self.state().shown.insert(model.table.name, model.version);
        Ok(())
    }
}
