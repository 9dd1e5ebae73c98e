//! Read models in memory, for tests of the runner: they fail when told to.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use annals_eventstore::{BackendError, Checkpoint, Incarnation, Position};
use async_trait::async_trait;
use jiff::Timestamp;

use crate::column::ColumnValue;
use crate::database::{Fault, Model, Moved, Prepared, ReadModels, Work};
use crate::error::StartError;
use crate::testing::MemoryTable;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    /// It fails without effect, and may work later.
    Passing,
    /// It has its effect, but says that it may not have.
    Unanswered,
    /// The part of this projection is refused for good.
    Refused(&'static str),
}

#[derive(Clone, Default)]
pub(crate) struct MemoryReadModels(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    tables: HashMap<String, MemoryTable>,
    checkpoints: HashMap<(&'static str, u32), Checkpoint>,
    shown: HashMap<&'static str, u32>,
    /// What happens to the next commits, in turn.
    commits: VecDeque<Option<Trouble>>,
    /// What happens to the next loads, in turn.
    loads: VecDeque<Option<Trouble>>,
    /// How many commits were tried, and how many had an effect.
    tried: usize,
    committed: usize,
}

impl MemoryReadModels {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the lock")
    }

    pub(crate) fn trouble_commits(&self, trouble: impl IntoIterator<Item = Option<Trouble>>) {
        self.state().commits.extend(trouble);
    }

    pub(crate) fn trouble_loads(&self, trouble: impl IntoIterator<Item = Option<Trouble>>) {
        self.state().loads.extend(trouble);
    }

    /// The rows of a model's table, in the order of their keys.
    pub(crate) fn rows(&self, model: &Model) -> Vec<Vec<ColumnValue>> {
        self.state().tables.get(&model.table_name()).map(MemoryTable::rows).unwrap_or_default()
    }

    pub(crate) fn position(&self, model: &Model) -> Option<i64> {
        self.state().checkpoints.get(&(model.projection, model.version)).map(|c| c.position.get())
    }

    /// Puts a stored checkpoint elsewhere, or removes it.
    pub(crate) fn set_checkpoint(&self, model: &Model, checkpoint: Option<Checkpoint>) {
        let key = (model.projection, model.version);
        match checkpoint {
            Some(checkpoint) => self.state().checkpoints.insert(key, checkpoint),
            None => self.state().checkpoints.remove(&key),
        };
    }

    pub(crate) fn shown(&self, table: &str) -> Option<u32> {
        self.state().shown.get(table).copied()
    }

    pub(crate) fn tried(&self) -> usize {
        self.state().tried
    }

    pub(crate) fn committed(&self) -> usize {
        self.state().committed
    }
}

fn fault(transient: bool, part: Option<usize>) -> Fault {
    Fault { transient, part, source: BackendError::new("the disk is on holiday") }
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

    async fn checkpoint(&self, model: &Model) -> Result<Option<Checkpoint>, Fault> {
        Ok(self.state().checkpoints.get(&(model.projection, model.version)).copied())
    }

    async fn load(&self, model: &Model, keys: &[Vec<ColumnValue>]) -> Result<Vec<Vec<ColumnValue>>, Fault> {
        let mut state = self.state();
        match state.loads.pop_front().flatten() {
            None => Ok(state.tables.get(&model.table_name()).map(|table| table.load(keys)).unwrap_or_default()),
            Some(Trouble::Refused(_)) => Err(fault(false, None)),
            Some(_) => Err(fault(true, None)),
        }
    }

    async fn commit(&self, work: &[&Work], _: Timestamp) -> Result<Vec<Moved>, Fault> {
        let mut state = self.state();
        state.tried += 1;
        let trouble = state.commits.pop_front().flatten();
        match trouble {
            Some(Trouble::Passing) => return Err(fault(true, None)),
            Some(Trouble::Refused(projection)) => {
                if let Some(part) = work.iter().position(|work| work.model.projection == projection) {
                    return Err(fault(false, Some(part)));
                }
            }
            Some(Trouble::Unanswered) | None => {}
        }
        let mut moved = Vec::new();
        for work in work {
            let key = (work.model.projection, work.model.version);
            let stands = state.checkpoints.get(&key).is_some_and(|c| c.position == work.from);
            if stands {
                state.checkpoints.insert(key, work.to);
                state.tables.get_mut(&work.model.table_name()).expect("prepared before").write(&work.changes);
            }
            moved.push(if stands { Moved::Done } else { Moved::Overtaken });
        }
        state.committed += 1;
        match trouble {
            Some(Trouble::Unanswered) => Err(fault(true, None)),
            _ => Ok(moved),
        }
    }

    async fn show(&self, model: &Model) -> Result<(), Fault> {
        self.state().shown.insert(model.table.name, model.version);
        Ok(())
    }
}

/// A checkpoint that stands elsewhere in the same log.
pub(crate) fn at(checkpoint: Checkpoint, position: i64) -> Checkpoint {
    Checkpoint { position: Position::new(position).expect("not negative"), ..checkpoint }
}
