//! Read models that fail on demand, in front of any database.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_eventstore::{BackendError, Checkpoint, DatabaseError, Incarnation, Position, StreamId};
use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use crate::StartError;
use crate::column::{ColumnValue, bytes_of};
use crate::database::contract::LookUp;
use crate::database::{
    Applying, Claimed, Fault, Model, Moved, ParkedStream, Paused, Place, Prepared, QueryFault, ReadModels, Runner,
    Shown, Shows, StoredName, Survey, Switch, UnitId, Work,
};
use crate::reactor::{Failing, Kept, Opened, Opening, ReactorKeeper};
use crate::reads::Query;
use crate::shape::Shape;
use crate::transaction::{AnyTransaction, ProjectionTransaction};

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

#[derive(Clone)]
pub(crate) struct Troubled {
    models: Arc<dyn ReadModels>,
    gate: Arc<tokio::sync::Mutex<()>>,
    gate_of_loads: Arc<tokio::sync::Mutex<()>>,
    gate_of_comparisons: Arc<tokio::sync::Mutex<()>>,
    gate_of_surveys: Arc<tokio::sync::Mutex<()>>,
    gate_of_looks: Arc<tokio::sync::Mutex<()>>,
    gates_of_seizes: [Arc<tokio::sync::Mutex<()>>; 2],
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What happens to the next commits, in turn.
    commits: VecDeque<Option<Trouble>>,
    /// What happens to the next loads, in turn.
    loads: VecDeque<Option<Trouble>>,
    /// The projection whose table others have locked.
    locked: Option<&'static str>,
    /// How many bytes of rows were loaded since the last commit, and the most so far before a commit.
    loaded: [usize; 2],
    /// The most bytes of rows that one commit wrote.
    written: usize,
    /// What happens to the next switches of a view, in turn.
    shows: VecDeque<Option<Trouble>>,
    /// Whether others are always faster to claim.
    claims_nothing: bool,
    /// How many units each claim got.
    claims: Vec<usize>,
    /// What happens to the next surveys of leases, in turn.
    surveys: VecDeque<Option<Trouble>>,
    /// How many loads were begun.
    loads_begun: usize,
    /// How many comparisons of stored checkpoints were begun.
    comparisons_begun: usize,
    seizes_begun: [usize; 2],
    /// How many commits were begun, how many got through the gate, and how many had an effect.
    begun: usize,
    tried: usize,
    committed: usize,
    /// What happens to the next reactors that are taken, in turn.
    opens: VecDeque<Option<Trouble>>,
    /// What was dropped, by whom and why.
    dropped: Vec<String>,
    /// What happens to the next looks at parked streams, in turn.
    parked: VecDeque<Option<Trouble>>,
    /// What happens to the next calls of keepers, in turn.
    keeps: VecDeque<Option<Trouble>>,
    /// What keepers were asked for, in turn.
    kept: Vec<&'static str>,
    /// How long a keeper takes to save.
    saves_take: Duration,
    /// How long it takes to ask which parked streams are to be retried.
    asks_take: Duration,
    /// Who changes what a keeper has, as in a database: one at a time, and others do not wait for ever.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// Where the checkpoint was each time that a view was to be switched.
    shown_at: Vec<i64>,
}

impl Troubled {
    pub(crate) fn new(models: Arc<dyn ReadModels>) -> Self {
        let (gate, gate_of_loads, gate_of_comparisons, gate_of_surveys) = Default::default();
        let (gate_of_looks, gates_of_seizes, state) = Default::default();
        Self {
            models,
            gate,
            gate_of_loads,
            gate_of_comparisons,
            gate_of_surveys,
            gate_of_looks,
            gates_of_seizes,
            state,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the lock")
    }

    pub(crate) fn trouble_commits(&self, trouble: impl IntoIterator<Item = Option<Trouble>>) {
        self.state().commits.extend(trouble);
    }

    /// Others lock the table of a projection, or none.
    pub(crate) fn lock_table(&self, projection: Option<&'static str>) {
        self.state().locked = projection;
    }

    /// The most bytes of rows that were loaded for one commit.
    pub(crate) fn most_loaded(&self) -> usize {
        self.state().loaded[1]
    }

    /// The most bytes of rows that one commit wrote.
    pub(crate) fn most_written(&self) -> usize {
        self.state().written
    }

    /// Commits wait until what this gives is dropped.
    pub(crate) async fn hold_commits(&self) -> impl Sized {
        Arc::clone(&self.gate).lock_owned().await
    }

    /// The process hangs until what this gives is dropped: it neither commits nor renews its leases.
    pub(crate) async fn hang(&self) -> impl Sized {
        (Arc::clone(&self.gate).lock_owned().await, Arc::clone(&self.gate_of_surveys).lock_owned().await)
    }

    pub(crate) fn trouble_surveys(&self, trouble: impl IntoIterator<Item = Option<Trouble>>) {
        self.state().surveys.extend(trouble);
    }

    pub(crate) fn trouble_opens(&self, trouble: impl IntoIterator<Item = Option<Trouble>>) {
        self.state().opens.extend(trouble);
    }

    pub(crate) fn trouble_parked(&self, trouble: impl IntoIterator<Item = Option<Trouble>>) {
        self.state().parked.extend(trouble);
    }

    /// The stream, where it was parked, by whom it was dropped, and why.
    pub(crate) fn dropped(&self) -> Vec<String> {
        self.state().dropped.clone()
    }

    /// From now on every claim comes too late, or not.
    pub(crate) fn claim_nothing(&self, nothing: bool) {
        self.state().claims_nothing = nothing;
    }

    /// How many units each claim got so far.
    pub(crate) fn claims(&self) -> Vec<usize> {
        self.state().claims.clone()
    }

    /// Loads wait until what this gives is dropped.
    pub(crate) async fn hold_loads(&self) -> impl Sized {
        Arc::clone(&self.gate_of_loads).lock_owned().await
    }

    pub(crate) fn loads_begun(&self) -> usize {
        self.state().loads_begun
    }

    /// Comparisons of stored checkpoints wait until what this gives is dropped.
    pub(crate) async fn hold_comparisons(&self) -> impl Sized {
        Arc::clone(&self.gate_of_comparisons).lock_owned().await
    }

    /// What names show is not answered until what this gives is dropped.
    pub(crate) async fn hold_looks(&self) -> impl Sized {
        Arc::clone(&self.gate_of_looks).lock_owned().await
    }

    /// Every attempt to seize a unit, or only one to keep a seized unit, waits until what this gives is dropped.
    pub(crate) async fn hold_seizes(&self, of_held: bool) -> impl Sized {
        Arc::clone(&self.gates_of_seizes[usize::from(of_held)]).lock_owned().await
    }

    pub(crate) fn seizes_begun(&self, of_held: bool) -> usize {
        self.state().seizes_begun[usize::from(of_held)]
    }

    pub(crate) fn comparisons_begun(&self) -> usize {
        self.state().comparisons_begun
    }

    pub(crate) fn trouble_loads(&self, trouble: impl IntoIterator<Item = Option<Trouble>>) {
        self.state().loads.extend(trouble);
    }

    pub(crate) fn trouble_shows(&self, trouble: impl IntoIterator<Item = Option<Trouble>>) {
        self.state().shows.extend(trouble);
    }

    /// How many commits were begun.
    pub(crate) fn begun(&self) -> usize {
        self.state().begun
    }

    pub(crate) fn tried(&self) -> usize {
        self.state().tried
    }

    pub(crate) fn committed(&self) -> usize {
        self.state().committed
    }

    pub(crate) fn trouble_keepers(&self, trouble: impl IntoIterator<Item = Option<Trouble>>) {
        self.state().keeps.extend(trouble);
    }

    /// From now on nothing goes wrong with keepers.
    pub(crate) fn end_trouble_of_keepers(&self) {
        self.state().keeps.clear();
    }

    /// From now on a keeper takes so long to save, and holds what it writes meanwhile.
    pub(crate) fn saves_take(&self, time: Duration) {
        self.state().saves_take = time;
    }

    /// From now on it takes so long to ask which parked streams are to be retried, and nobody else gets the connection meanwhile.
    pub(crate) fn asks_take(&self, time: Duration) {
        self.state().asks_take = time;
    }

    /// What keepers of reactors were asked for, in turn: `save`, `keep`, `forget`, `release`.
    pub(crate) fn kept(&self) -> Vec<&'static str> {
        self.state().kept.clone()
    }

    /// How often a view was to be switched.
    pub(crate) fn shown(&self) -> usize {
        self.state().shown_at.len()
    }

    /// Where the checkpoint was each time.
    pub(crate) fn shown_at(&self) -> Vec<i64> {
        self.state().shown_at.clone()
    }
}

fn fault(transient: bool, part: Option<usize>) -> Fault {
    Fault { transient, blocked: false, part, source: BackendError::new("the disk is missing") }
}

#[async_trait]
impl ReadModels for Troubled {
    async fn migrate(&self) -> Result<(), StartError> {
        self.models.migrate().await
    }

    async fn prepare(
        &self,
        model: &Model,
        shape: &Shape,
        incarnation: Incarnation,
        now: Timestamp,
    ) -> Result<Prepared, StartError> {
        self.models.prepare(model, shape, incarnation, now).await
    }

    async fn prepare_transaction(
        &self,
        model: &Model,
        shape: &Shape,
        projection: &dyn AnyTransaction,
        incarnation: Incarnation,
        now: Timestamp,
    ) -> Result<Prepared, StartError> {
        self.models.prepare_transaction(model, shape, projection, incarnation, now).await
    }

    async fn begin_applying(&self, model: &Model, from: &Place) -> Result<Option<Box<dyn Applying>>, Fault> {
        let begun = self.models.begin_applying(model, from).await?;
        Ok(begun.map(|inner| Box::new(TroubledApplying { inner, state: Arc::clone(&self.state) }) as Box<dyn Applying>))
    }

    async fn places(&self, units: &[UnitId]) -> Result<Vec<Option<Place>>, Fault> {
        self.state().comparisons_begun += 1;
        drop(self.gate_of_comparisons.lock().await);
        self.models.places(units).await
    }

    async fn load(
        &self,
        model: &Model,
        from: &Place,
        keys: &[Vec<ColumnValue>],
        most: usize,
    ) -> Result<Option<Vec<Vec<ColumnValue>>>, Fault> {
        self.state().loads_begun += 1;
        drop(self.gate_of_loads.lock().await);
        let trouble = self.state().loads.pop_front().flatten();
        if self.state().locked == Some(model.projection) {
            return Err(Fault { blocked: true, ..fault(true, None) });
        }
        match trouble {
            None => {
                let loaded = self.models.load(model, from, keys, most).await?;
                self.state().loaded[0] += loaded.as_deref().map_or(0, bytes_of);
                Ok(loaded)
            }
            Some(Trouble::Refused(_)) => Err(fault(false, None)),
            Some(_) => Err(fault(true, None)),
        }
    }

    async fn commit(&self, work: &[&Work], now: Timestamp) -> Result<Vec<Moved>, Fault> {
        self.state().begun += 1;
        drop(self.gate.lock().await);
        let trouble = {
            let mut state = self.state();
            state.tried += 1;
            let written = work.iter().map(|work| bytes_of(&work.changes.written)).sum();
            state.written = state.written.max(written);
            let [loaded, most] = state.loaded;
            state.loaded = [0, most.max(loaded)];
            if work.iter().any(|work| Some(work.model.projection) == state.locked) {
                return Err(Fault { blocked: true, ..fault(true, None) });
            }
            state.commits.pop_front().flatten()
        };
        match trouble {
            Some(Trouble::Passing) => return Err(fault(true, None)),
            Some(Trouble::Refused(projection)) => {
                if let Some(part) = work.iter().position(|work| work.model.projection == projection) {
                    return Err(fault(false, Some(part)));
                }
            }
            Some(Trouble::Unanswered) | None => {}
        }
        let moved = self.models.commit(work, now).await?;
        let dropped = work.iter().filter_map(|work| work.parking.drop.as_ref());
        let dropped = dropped.map(|drop| format!("{} {} {}: {}", drop.stream, drop.from, drop.by, drop.why));
        self.state().dropped.extend(dropped);
        self.state().committed += 1;
        match trouble {
            Some(Trouble::Unanswered) => Err(fault(true, None)),
            _ => Ok(moved),
        }
    }

    async fn show(&self, model: &Model, switch: Switch) -> Result<Shows, Fault> {
        let is_there = self.models.checkpoint(model).await?.map_or(0, |checkpoint| checkpoint.position.get());
        let trouble = {
            let mut state = self.state();
            state.shown_at.push(is_there);
            state.shows.pop_front().flatten()
        };
        match trouble {
            None => self.models.show(model, switch).await,
            Some(trouble) => Err(fault(!matches!(trouble, Trouble::Refused(_)), None)),
        }
    }

    async fn reactor_checkpoint(&self, reactor: &'static str) -> Result<Option<Checkpoint>, StartError> {
        self.models.reactor_checkpoint(reactor).await
    }

    async fn prepare_reactor(&self, opening: &Opening) -> Result<(), StartError> {
        self.models.prepare_reactor(opening).await
    }

    async fn open_reactor(&self, opening: Opening) -> Result<Opened, StartError> {
        let trouble = self.state().opens.pop_front().flatten();
        if let Some(trouble) = trouble {
            let source = BackendError::new("the disk is missing");
            let source = match trouble {
                Trouble::Refused(_) => DatabaseError::Failed { source },
                _ => DatabaseError::Unavailable { source },
            };
            return Err(StartError::Database { projection: opening.reactor, source });
        }
        let opened = self.models.open_reactor(opening).await?;
        let keeper = Arc::new(TroubledKeeper { inner: opened.keeper, state: Arc::clone(&self.state) });
        Ok(Opened { keeper, ..opened })
    }

    async fn failing(&self, reactor: &'static str, only_asked: bool) -> Result<Vec<Failing>, Fault> {
        let (takes, writing) = {
            let state = self.state();
            (state.asks_take, Arc::clone(&state.writing))
        };
        if only_asked && !takes.is_zero() {
            let _writing = writing.lock().await;
            tokio::time::sleep(takes).await;
        }
        self.models.failing(reactor, only_asked).await
    }

    async fn ask_again(&self, reactor: &'static str, stream: &StreamId) -> Result<bool, Fault> {
        self.models.ask_again(reactor, stream).await
    }

    async fn shown(&self, models: &[Model]) -> Result<Vec<Option<Shown>>, Fault> {
        drop(self.gate_of_looks.lock().await);
        self.models.shown(models).await
    }

    async fn survey(&self, runner: &Runner, lease: Duration) -> Result<Survey, Fault> {
        drop(self.gate_of_surveys.lock().await);
        let trouble = self.state().surveys.pop_front().flatten();
        match trouble {
            None => self.models.survey(runner, lease).await,
            Some(trouble) => Err(fault(!matches!(trouble, Trouble::Refused(_)), None)),
        }
    }

    async fn claim(&self, runner: &Runner, units: &[UnitId], lease: Duration) -> Result<Vec<Claimed>, Fault> {
        let nothing = self.state().claims_nothing;
        let claimed = if nothing { Vec::new() } else { self.models.claim(runner, units, lease).await? };
        self.state().claims.push(claimed.len());
        Ok(claimed)
    }

    async fn release(&self, held: &[(UnitId, i64)]) -> Result<(), Fault> {
        self.models.release(held).await
    }

    async fn begin_try(&self, unit: UnitId, epoch: i64, position: Position) -> Result<Option<u32>, Fault> {
        self.models.begin_try(unit, epoch, position).await
    }

    async fn forget_tries(&self, projection: &str) -> Result<(), Fault> {
        self.models.forget_tries(projection).await
    }

    async fn seize(
        &self,
        unit: UnitId,
        owner: Uuid,
        held: Option<i64>,
        lease: Duration,
    ) -> Result<Option<Place>, Fault> {
        let of_held = usize::from(held.is_some());
        self.state().seizes_begun[of_held] += 1;
        drop(self.gates_of_seizes[of_held].lock().await);
        self.models.seize(unit, owner, held, lease).await
    }

    async fn parked(&self, unit: UnitId) -> Result<Vec<ParkedStream>, Fault> {
        let trouble = self.state().parked.pop_front().flatten();
        match trouble {
            None => self.models.parked(unit).await,
            Some(trouble) => Err(fault(!matches!(trouble, Trouble::Refused(_)), None)),
        }
    }

    async fn leave(&self, runner: &Runner) -> Result<(), Fault> {
        self.models.leave(runner).await
    }

    async fn pause(&self, projection: &str, by: &str, now: Timestamp) -> Result<Option<Paused>, Fault> {
        self.models.pause(projection, by, now).await
    }

    async fn resume(&self, projection: &str) -> Result<bool, Fault> {
        self.models.resume(projection).await
    }

    async fn name(&self, model: &Model) -> Result<Option<StoredName>, DatabaseError> {
        self.models.name(model).await
    }

    async fn query(
        &self,
        model: &Model,
        shown: u32,
        query: &Query<'_>,
    ) -> Result<Option<Vec<Vec<ColumnValue>>>, QueryFault> {
        self.models.query(model, shown, query).await
    }
}

/// The keeper of a reactor that fails on demand.
struct TroubledKeeper {
    inner: Arc<dyn ReactorKeeper>,
    state: Arc<Mutex<State>>,
}

impl TroubledKeeper {
    /// The answer to a call that had its effect, if it had.
    async fn call(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<Kept, Fault>> + Send,
    ) -> Result<Kept, Fault> {
        let (trouble, writing, takes) = {
            let mut state = self.state.lock().expect("no test panics while it holds the lock");
            state.kept.push(what);
            let takes = Some(state.saves_take).filter(|takes| what == "save" && !takes.is_zero());
            (state.keeps.pop_front().flatten(), Arc::clone(&state.writing), takes)
        };
        let Ok(_writing) = tokio::time::timeout(Duration::from_secs(5), writing.lock()).await else {
            return Err(fault(true, None));
        };
        if let Some(takes) = takes {
            tokio::time::sleep(takes).await;
        }
        match trouble {
            None => call.await,
            Some(Trouble::Passing) => Err(fault(true, None)),
            Some(Trouble::Refused(_)) => Err(fault(false, None)),
            Some(Trouble::Unanswered) => {
                call.await?;
                Err(fault(true, None))
            }
        }
    }
}

#[async_trait]
impl ReactorKeeper for TroubledKeeper {
    async fn save(&self, from: &Checkpoint, to: &Checkpoint) -> Result<Kept, Fault> {
        self.call("save", self.inner.save(from, to)).await
    }

    async fn keep(&self, failing: &Failing) -> Result<Kept, Fault> {
        self.call("keep", self.inner.keep(failing)).await
    }

    async fn forget(&self, stream: &StreamId) -> Result<Kept, Fault> {
        self.call("forget", self.inner.forget(stream)).await
    }

    async fn release(&self) -> Result<Kept, Fault> {
        self.call("release", self.inner.release()).await
    }
}

/// A transaction whose commit fails as those of rows do.
struct TroubledApplying {
    inner: Box<dyn Applying>,
    state: Arc<Mutex<State>>,
}

#[async_trait]
impl Applying for TroubledApplying {
    fn connection(&mut self) -> ProjectionTransaction<'_> {
        self.inner.connection()
    }

    fn is_ended(&self) -> bool {
        self.inner.is_ended()
    }

    async fn may_have_stored(&mut self) -> bool {
        self.inner.may_have_stored().await
    }

    fn may_pass(&self, error: &(dyn std::error::Error + 'static)) -> bool {
        self.inner.may_pass(error)
    }

    async fn commit(self: Box<Self>, to: &Checkpoint, now: Timestamp) -> Result<bool, Fault> {
        let trouble = self.state.lock().expect("no test panics while it holds the lock").commits.pop_front().flatten();
        match trouble {
            None => self.inner.commit(to, now).await,
            Some(Trouble::Passing) => Err(fault(true, None)),
            Some(Trouble::Refused(_)) => Err(fault(false, None)),
            Some(Trouble::Unanswered) => {
                self.inner.commit(to, now).await?;
                Err(fault(true, None))
            }
        }
    }
}
