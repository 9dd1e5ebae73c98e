//! Read models in memory, for tests of the runner.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use annals_eventstore::{Checkpoint, Incarnation, StreamId};
use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use crate::column::ColumnValue;
use crate::database::{Fault, Model, Moved, Prepared, ReadModels, Shown, Shows, StoredName, Switch, Work};
use crate::error::StartError;
use crate::memory_table::MemoryTable;
use crate::reactor::{Failing, Kept, Opened, Opening, ReactorKeeper, check_tenant};
use crate::shape::Shape;

#[derive(Clone, Default)]
pub(crate) struct MemoryReadModels(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    tables: HashMap<String, MemoryTable>,
    shapes: HashMap<(&'static str, u32), Shape>,
    checkpoints: HashMap<(&'static str, u32), Checkpoint>,
    moved_at: HashMap<(&'static str, u32), Timestamp>,
    names: HashMap<&'static str, Name>,
    reactors: HashMap<&'static str, MemoryReactor>,
}

struct Name {
    projection: &'static str,
    version: u32,
    highest: u32,
}

impl State {
    fn stored_name(&self, table: &str) -> Option<StoredName> {
        let Name { projection, version, highest } = *self.names.get(table)?;
        let key = (projection, version);
        let shown = self.checkpoints.get(&key).map(|checkpoint| (self.shapes[&key].table.clone(), *checkpoint));
        Some(StoredName { version, highest, shown })
    }
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
        self.state().names.get(table).map(|name| name.version)
    }
}

#[async_trait]
impl ReadModels for MemoryReadModels {
    async fn migrate(&self) -> Result<(), StartError> {
        Ok(())
    }

    async fn prepare(
        &self,
        model: &Model,
        shape: &Shape,
        incarnation: Incarnation,
        now: Timestamp,
    ) -> Result<Prepared, StartError> {
        let mut state = self.state();
        let key = (model.projection, model.version);
        shape.check(model, state.shapes.entry(key).or_insert_with(|| shape.clone()))?;
        state.tables.entry(model.table_name()).or_insert_with(|| MemoryTable::new(model.table));
        let checkpoint = *state.checkpoints.entry(key).or_insert_with(|| Checkpoint::start(incarnation));
        state.moved_at.entry(key).or_insert(now);
        let Some(name) = state.stored_name(model.table.name) else {
            let Model { projection, version, table } = *model;
            state.names.insert(table.name, Name { projection, version, highest: version });
            return Ok(Prepared { checkpoint, shown: true });
        };
        name.check_columns(model)?;
        Ok(Prepared { checkpoint, shown: name.version == model.version })
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

    async fn commit(&self, work: &[&Work], now: Timestamp) -> Result<Vec<Moved>, Fault> {
        let mut state = self.state();
        let mut moved = Vec::new();
        for work in work {
            let key = (work.model.projection, work.model.version);
            let is_there = state.checkpoints.get(&key).is_some_and(|stored| *stored == work.from);
            if is_there {
                state.checkpoints.insert(key, work.to);
                state.moved_at.insert(key, now);
                state.tables.get_mut(&work.model.table_name()).expect("prepared before").write(&work.changes);
            }
            moved.push(if is_there { Moved::Done } else { Moved::Overtaken });
        }
        Ok(moved)
    }

    async fn show(&self, model: &Model, switch: Switch) -> Result<Shows, Fault> {
        let mut state = self.state();
        let name = state.stored_name(model.table.name).expect("prepared before");
        let own = state.checkpoints.get(&(model.projection, model.version)).copied();
        if let Some(shows) = name.decide(model, switch, own)? {
            return Ok(shows);
        }
        let Model { projection, version, table } = *model;
        state.names.insert(table.name, Name { projection, version, highest: name.highest.max(version) });
        Ok(Shows::This)
    }

    async fn reactor_checkpoint(&self, reactor: &'static str) -> Result<Option<Checkpoint>, StartError> {
        Ok(self.state().reactors.get(reactor).map(|reactor| reactor.checkpoint))
    }

    async fn open_reactor(&self, opening: Opening) -> Result<Opened, StartError> {
        let Opening { reactor, tenant, start, owner, .. } = opening;
        let tenant = tenant.map(|tenant| tenant.as_str().to_owned());
        let mut state = self.state();
        let new = MemoryReactor { checkpoint: start, owner, unclean: 0, tenant: tenant.clone(), failing: Vec::new() };
        let stored = state.reactors.entry(reactor).or_insert(new);
        check_tenant(reactor, stored.tenant.clone(), tenant)?;
        stored.owner = owner;
        stored.unclean += 1;
        let keeper = Arc::new(MemoryKeeper { models: self.clone(), reactor, owner });
        Ok(Opened {
            keeper,
            checkpoint: stored.checkpoint,
            unclean: stored.unclean - 1,
            failing: stored.failing.clone(),
        })
    }

    async fn shown(&self, models: &[Model]) -> Result<Vec<Option<Shown>>, Fault> {
        let state = self.state();
        let shown = |model: &Model| {
            let name = state.names.get(model.table.name)?;
            let key = (name.projection, name.version);
            let checkpoint = *state.checkpoints.get(&key)?;
            Some(Shown { version: name.version, checkpoint, moved_at: state.moved_at[&key] })
        };
        Ok(models.iter().map(shown).collect())
    }
}

struct MemoryReactor {
    checkpoint: Checkpoint,
    owner: Uuid,
    unclean: u32,
    tenant: Option<String>,
    failing: Vec<Failing>,
}

struct MemoryKeeper {
    models: MemoryReadModels,
    reactor: &'static str,
    owner: Uuid,
}

impl MemoryKeeper {
    /// Changes what is stored, if the reactor is this run's.
    fn change(&self, change: impl FnOnce(&mut MemoryReactor) -> Kept) -> Result<Kept, Fault> {
        let mut state = self.models.state();
        let reactor = state.reactors.get_mut(self.reactor).filter(|reactor| reactor.owner == self.owner);
        Ok(reactor.map_or(Kept::Lost, change))
    }
}

#[async_trait]
impl ReactorKeeper for MemoryKeeper {
    async fn save(&self, from: &Checkpoint, to: &Checkpoint) -> Result<Kept, Fault> {
        self.change(|reactor| {
            if reactor.checkpoint != *from && reactor.checkpoint != *to {
                return Kept::Lost;
            }
            (reactor.checkpoint, reactor.unclean) = (*to, 0);
            reactor.failing.retain(|failing| failing.parked || failing.place.position > to.position);
            Kept::Done
        })
    }

    async fn keep(&self, failing: &Failing) -> Result<Kept, Fault> {
        self.change(|reactor| {
            reactor.failing.retain(|other| other.place.stream != failing.place.stream);
            reactor.failing.push(failing.clone());
            Kept::Done
        })
    }

    async fn forget(&self, stream: &StreamId) -> Result<Kept, Fault> {
        self.change(|reactor| {
            reactor.failing.retain(|other| other.place.stream != *stream);
            Kept::Done
        })
    }

    async fn release(&self) -> Result<Kept, Fault> {
        self.change(|reactor| {
            reactor.unclean = 0;
            Kept::Done
        })
    }
}
