//! Read models in memory, for tests of the runner.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_eventstore::{BackendError, Checkpoint, DatabaseError, Incarnation, Position, StreamId};
use async_trait::async_trait;
use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use crate::column::ColumnValue;
use crate::database::{
    Claimed, Fault, LeaseState, Model, Moved, ParkedStream, ParkingChanges, Paused, Place, Prepared, QueryFault,
    ReadModels, Runner, Shown, Shows, StoredName, Survey, Switch, UnitId, Work,
};
use crate::error::StartError;
use crate::memory_table::MemoryTable;
use crate::reactor::{ASKED, Failing, Kept, Opened, Opening, ReactorKeeper, check_tenant, unit_of};
use crate::reads::Query;
use crate::shape::Shape;

#[derive(Clone, Default)]
pub(crate) struct MemoryReadModels(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    tables: HashMap<String, MemoryTable>,
    shapes: HashMap<(&'static str, u32), Shape>,
    units: BTreeMap<UnitId, Stored>,
    names: HashMap<&'static str, Name>,
    runners: BTreeMap<Uuid, (Runner, Instant)>,
    reactors: HashMap<&'static str, MemoryReactor>,
}

/// A row of the table of checkpoints.
struct Stored {
    checkpoint: Checkpoint,
    moved_at: Timestamp,
    epoch: i64,
    lease: Option<(Uuid, Instant)>,
    paused: Option<Paused>,
    parked: BTreeMap<String, ParkedStream>,
    tries: Option<(Position, u32)>,
}

impl Stored {
    fn park(&mut self, changes: &ParkingChanges, now: Timestamp) {
        let ParkingChanges { reopen, drop: _, park, passed_over } = changes;
        if let Some(stream) = reopen {
            self.parked.remove(&stream.to_string());
        }
        for (event, reason) in park {
            let new = ParkedStream { event: event.clone(), reason: reason.clone(), parked_at: now, waiting: 0 };
            assert!(self.parked.insert(event.stream.to_string(), new).is_none(), "it is parked already");
        }
        for over in passed_over {
            if let Some(parked) = self.parked.get_mut(&over.stream.to_string()) {
                parked.waiting += over.events;
            }
        }
    }

    fn owner(&self) -> Option<Uuid> {
        self.lease.filter(|(_, until)| *until > Instant::now()).map(|(owner, _)| owner)
    }
}

struct Name {
    projection: &'static str,
    version: u32,
    highest: u32,
}

impl State {
    fn stored_name(&self, table: &str) -> Option<StoredName> {
        let Name { projection, version, highest } = *self.names.get(table)?;
        let shown = self.lowest(projection, version);
        let shown = shown.map(|checkpoint| (self.shapes[&(projection, version)].table.clone(), checkpoint));
        Some(StoredName { version, highest, shown })
    }

    fn of(&self, projection: &str, version: u32) -> impl Iterator<Item = (&UnitId, &Stored)> {
        self.units.iter().filter(move |(unit, _)| unit.projection == projection && unit.version == version)
    }

    fn lowest(&self, projection: &str, version: u32) -> Option<Checkpoint> {
        self.of(projection, version).map(|(_, stored)| stored.checkpoint).min_by_key(|checkpoint| checkpoint.position)
    }
}

fn first_of(model: &Model) -> UnitId {
    UnitId { projection: model.projection, version: model.version, slot: 0 }
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
        let mut state = self.state();
        match checkpoint {
            Some(checkpoint) => state.units.get_mut(&first_of(model)).expect("prepared before").checkpoint = checkpoint,
            None => drop(state.units.remove(&first_of(model))),
        }
    }

    /// Removes all rows of a model and puts its checkpoints to the beginning.
    pub(crate) fn empty(&self, model: &Model) {
        let mut state = self.state();
        state.tables.insert(model.table_name(), MemoryTable::new(model.table));
        let of_model = |unit: &UnitId| unit.projection == model.projection && unit.version == model.version;
        for (_, stored) in state.units.iter_mut().filter(|(unit, _)| of_model(unit)) {
            stored.checkpoint = Checkpoint::start(stored.checkpoint.incarnation);
        }
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
        let paused =
            state.units.iter().find(|(unit, stored)| unit.projection == model.projection && stored.paused.is_some());
        let paused = paused.and_then(|(_, stored)| stored.paused.clone());
        for slot in 0..shape.slots {
            state.units.entry(UnitId { slot, ..first_of(model) }).or_insert_with(|| Stored {
                checkpoint: Checkpoint::start(incarnation),
                moved_at: now,
                epoch: 0,
                lease: None,
                paused: paused.clone(),
                parked: BTreeMap::new(),
                tries: None,
            });
        }
        let places: Vec<Place> =
            state.of(model.projection, model.version).map(|(unit, stored)| place(unit, stored)).collect();
        let Some(name) = state.stored_name(model.table.name) else {
            let Model { projection, version, table } = *model;
            state.names.insert(table.name, Name { projection, version, highest: version });
            return Ok(Prepared { places, shown: true });
        };
        name.check_columns(model)?;
        Ok(Prepared { places, shown: name.version == model.version })
    }

    async fn places(&self, units: &[UnitId]) -> Result<Vec<Option<Place>>, Fault> {
        let state = self.state();
        Ok(units.iter().map(|unit| state.units.get(unit).map(|stored| place(unit, stored))).collect())
    }

    async fn load(
        &self,
        model: &Model,
        from: &Place,
        keys: &[Vec<ColumnValue>],
        most: usize,
    ) -> Result<Option<Vec<Vec<ColumnValue>>>, Fault> {
        let state = self.state();
        let unit = UnitId { slot: from.slot, ..first_of(model) };
        if state.units.get(&unit).map(|stored| place(&unit, stored)) != Some(*from) {
            return Ok(None);
        }
        let mut rows = state.tables.get(&model.table_name()).map(|table| table.load(keys)).unwrap_or_default();
        let mut bytes = 0;
        rows.retain(|row| {
            let fits = bytes < most;
            bytes += row.iter().map(ColumnValue::bytes).sum::<usize>();
            fits
        });
        Ok(Some(rows))
    }

    async fn commit(&self, work: &[&Work], now: Timestamp) -> Result<Vec<Moved>, Fault> {
        let mut state = self.state();
        let mut moved = Vec::new();
        for work in work {
            let unit = UnitId { slot: work.from.slot, ..first_of(&work.model) };
            let stored = state.units.get_mut(&unit).filter(|stored| place(&unit, stored) == work.from);
            let is_there = stored.is_some();
            if let Some(stored) = stored {
                (stored.checkpoint, stored.moved_at) = (work.to, now);
                stored.park(&work.parking, now);
                state.tables.get_mut(&work.model.table_name()).expect("prepared before").write(&work.changes);
            }
            moved.push(if is_there { Moved::Done } else { Moved::Overtaken });
        }
        Ok(moved)
    }

    async fn show(&self, model: &Model, switch: Switch) -> Result<Shows, Fault> {
        let mut state = self.state();
        let name = state.stored_name(model.table.name).expect("prepared before");
        let own = state.lowest(model.projection, model.version);
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

    async fn prepare_reactor(&self, opening: &Opening) -> Result<(), StartError> {
        let tenant = opening.tenant.as_ref().map(|tenant| tenant.as_str().to_owned());
        let mut state = self.state();
        let checkpoint = opening.start;
        let owner = opening.owner;
        let new = MemoryReactor { checkpoint, owner, unclean: 0, tenant: tenant.clone(), failing: Vec::new() };
        let stored = state.reactors.entry(opening.reactor).or_insert(new);
        check_tenant(opening.reactor, stored.tenant.clone(), tenant)?;
        let checkpoint = stored.checkpoint;
        let unit = Stored {
            checkpoint,
            moved_at: opening.clock.now(),
            epoch: 0,
            lease: None,
            paused: None,
            parked: BTreeMap::new(),
            tries: None,
        };
        state.units.entry(unit_of(opening.reactor)).or_insert(unit);
        Ok(())
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

    async fn failing(&self, reactor: &'static str, only_asked: bool) -> Result<Vec<Failing>, Fault> {
        let asked = |failing: &&Failing| !only_asked || failing.parked && failing.next_try_at == ASKED;
        let state = self.state();
        let mut all: Vec<Failing> = state
            .reactors
            .get(reactor)
            .map_or_else(Vec::new, |stored| stored.failing.iter().filter(asked).cloned().collect());
        all.sort_by_key(|failing| failing.place.position);
        Ok(all)
    }

    async fn ask_again(&self, reactor: &'static str, stream: &StreamId) -> Result<bool, Fault> {
        let mut state = self.state();
        let stored = state.reactors.get_mut(reactor).into_iter().flat_map(|stored| &mut stored.failing);
        let parked = stored.filter(|failing| failing.parked && failing.place.stream == *stream);
        Ok(parked.map(|failing| failing.next_try_at = ASKED).count() == 1)
    }

    async fn shown(&self, models: &[Model]) -> Result<Vec<Option<Shown>>, Fault> {
        let state = self.state();
        let shown = |model: &Model| {
            let name = state.names.get(model.table.name)?;
            let rows: Vec<_> = state.of(name.projection, name.version).collect();
            let moved_at = rows.iter().map(|(_, stored)| stored.moved_at).max()?;
            let places = rows.iter().map(|(unit, stored)| (unit.slot, stored.checkpoint)).collect();
            Some(Shown { version: name.version, places, moved_at })
        };
        Ok(models.iter().map(shown).collect())
    }

    async fn survey(&self, runner: &Runner, lease: Duration) -> Result<Survey, Fault> {
        let mut state = self.state();
        let (now, until) = (Instant::now(), Instant::now() + lease);
        state.runners.insert(runner.id, (runner.clone(), until));
        for stored in
            state.units.values_mut().filter(|stored| stored.lease.is_some_and(|(owner, _)| owner == runner.id))
        {
            stored.lease = Some((runner.id, until));
        }
        let units = state.units.iter().filter_map(|(unit, stored)| {
            let unit = runner.unit(unit.projection, unit.version, unit.slot)?;
            let Stored { checkpoint, epoch, .. } = *stored;
            Some(LeaseState { unit, checkpoint, epoch, owner: stored.owner(), paused: stored.paused.clone() })
        });
        let alive = state.runners.values().filter(|(_, until)| *until > now);
        let runners = alive.map(|(other, _)| runner.beside(other.id, other.name.clone(), &other.runs_as_text()));
        let owners: Vec<Uuid> = state.units.values().filter_map(Stored::owner).collect();
        Ok(Survey::new(units.collect(), runners.collect(), &owners))
    }

    async fn claim(&self, runner: &Runner, units: &[UnitId], lease: Duration) -> Result<Vec<Claimed>, Fault> {
        let mut state = self.state();
        let mut claimed = Vec::new();
        for unit in units {
            let free = |stored: &&mut Stored| stored.paused.is_none() && stored.owner().is_none();
            if let Some(stored) = state.units.get_mut(unit).filter(free) {
                let ahead = |(trying, _): (Position, u32)| trying > stored.checkpoint.position;
                let suspect = stored.lease.is_some() || stored.tries.is_some_and(ahead);
                stored.epoch += 1;
                stored.lease = Some((runner.id, Instant::now() + lease));
                let Stored { epoch, checkpoint, .. } = *stored;
                claimed.push(Claimed { unit: *unit, epoch, checkpoint, suspect });
            }
        }
        Ok(claimed)
    }

    async fn release(&self, held: &[(UnitId, i64)]) -> Result<(), Fault> {
        let mut state = self.state();
        for (unit, epoch) in held {
            if let Some(stored) = state.units.get_mut(unit).filter(|stored| stored.epoch == *epoch) {
                stored.lease = None;
            }
        }
        Ok(())
    }

    async fn begin_try(&self, unit: UnitId, epoch: i64, position: Position) -> Result<Option<u32>, Fault> {
        let mut state = self.state();
        let Some(stored) = state.units.get_mut(&unit).filter(|stored| stored.epoch == epoch) else { return Ok(None) };
        let tries = stored.tries.filter(|(trying, _)| *trying == position).map_or(1, |(_, tries)| tries + 1);
        stored.tries = Some((position, tries));
        Ok(Some(tries))
    }

    async fn forget_tries(&self, projection: &str) -> Result<(), Fault> {
        for (_, stored) in self.state().units.iter_mut().filter(|(unit, _)| unit.projection == projection) {
            stored.tries = None;
        }
        Ok(())
    }

    async fn seize(
        &self,
        unit: UnitId,
        owner: Uuid,
        held: Option<i64>,
        lease: Duration,
    ) -> Result<Option<Place>, Fault> {
        let mut state = self.state();
        let is_held = |epoch| held.is_none_or(|held| held == epoch);
        let free = |stored: &&mut Stored| stored.paused.is_none() && is_held(stored.epoch);
        let Some(stored) = state.units.get_mut(&unit).filter(free) else { return Ok(None) };
        stored.epoch += 1;
        stored.lease = Some((owner, Instant::now() + lease));
        Ok(Some(place(&unit, stored)))
    }

    async fn parked(&self, unit: UnitId) -> Result<Vec<ParkedStream>, Fault> {
        Ok(self.state().units.get(&unit).map(|stored| stored.parked.values().cloned().collect()).unwrap_or_default())
    }

    async fn leave(&self, runner: &Runner) -> Result<(), Fault> {
        self.state().runners.remove(&runner.id);
        Ok(())
    }

    async fn pause(&self, projection: &str, by: &str, now: Timestamp) -> Result<Option<Paused>, Fault> {
        let mut paused = None;
        for (_, stored) in self.state().units.iter_mut().filter(|(unit, _)| unit.projection == projection) {
            if stored.paused.is_none() {
                stored.paused = Some(Paused { by: by.to_owned(), since: now });
                stored.lease = None;
                stored.epoch += 1;
            }
            paused = paused.or(stored.paused.clone());
        }
        Ok(paused)
    }

    async fn resume(&self, projection: &str) -> Result<bool, Fault> {
        let mut state = self.state();
        let of = state.units.iter_mut().filter(|(unit, _)| unit.projection == projection);
        Ok(of.fold(false, |resumed, (_, stored)| stored.paused.take().is_some() || resumed))
    }

    async fn name(&self, model: &Model) -> Result<Option<StoredName>, DatabaseError> {
        Ok(self.state().stored_name(model.table.name))
    }

    async fn query(&self, _: &Model, _: u32, _: &Query<'_>) -> Result<Option<Vec<Vec<ColumnValue>>>, QueryFault> {
        let source = BackendError::new("read models in memory take no queries");
        Err(QueryFault::Database(DatabaseError::Failed { source }))
    }
}

fn place(unit: &UnitId, stored: &Stored) -> Place {
    Place { slot: unit.slot, epoch: stored.epoch, checkpoint: stored.checkpoint }
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
        let State { reactors, units, .. } = &mut *state;
        let Some(reactor) = reactors.get_mut(self.reactor).filter(|reactor| reactor.owner == self.owner) else {
            return Ok(Kept::Lost);
        };
        let kept = change(reactor);
        if let Some(unit) = units.get_mut(&unit_of(self.reactor)) {
            unit.checkpoint = reactor.checkpoint;
        }
        Ok(kept)
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
