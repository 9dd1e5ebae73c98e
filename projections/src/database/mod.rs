//! The database that read models live in, as the runner needs it. It knows nothing of the events' store.

mod applying;
mod choice;
#[cfg(test)]
pub(crate) mod contract;
mod lease;
#[cfg(test)]
pub(crate) mod memory;
mod name;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod own_sql;
pub(crate) mod parked;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::time::Duration;

use annals_eventstore::{BackendError, Checkpoint, DatabaseError, Incarnation, Invalid, Position, StreamId};
use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use crate::changes::Changes;
use crate::column::ColumnValue;
use crate::error::StartError;
use crate::reactor::{Failing, Opened, Opening};
use crate::read_model::TableSpec;
use crate::reads::Query;
use crate::shape::Shape;
use crate::transaction::{AnyTransaction, NO_TABLE};
pub(crate) use applying::Applying;
pub use choice::ReadModelDatabase;
pub(crate) use lease::{Claimed, LeaseState, Paused, Runner, RunnerState, Survey, UnitId};
pub(crate) use name::{Shown, Shows, StoredName, Switch};
pub(crate) use parked::{Dropped, ParkedStream, ParkingChanges};

/// One version of one projection, and the table that it builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) projection: &'static str,
    pub(crate) version: u32,
    pub(crate) table: &'static TableSpec,
}

impl Model {
    /// Whether it is a transaction projection, of whose tables nothing is known.
    pub(crate) fn is_in_transaction(&self) -> bool {
        self.table.name == NO_TABLE.name
    }

    /// The name of the table itself. The read model's stable name is that of a view over it.
    pub(crate) fn table_name(&self) -> String {
        format!("{}_v{}", self.table.name, self.version)
    }
}

/// Where a slot of a model stands, and by which owner it may be moved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    pub(crate) slot: u32,
    /// The number of the slot's owner: each new one has a higher number.
    pub(crate) epoch: i64,
    pub(crate) checkpoint: Checkpoint,
}

/// Where a prepared model is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prepared {
    /// The place of each slot.
    pub(crate) places: Vec<Place>,
    /// Whether the stable name shows this version already.
    pub(crate) shown: bool,
}

/// A slot's part of a commit: its rows, and its checkpoint from where it must be to where it moves.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) model: Model,
    pub(crate) from: Place,
    pub(crate) to: Checkpoint,
    pub(crate) changes: Changes,
    pub(crate) parking: ParkingChanges,
}

/// What became of one projection's part of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// Its rows and its checkpoint are committed.
    Done,
    /// Its checkpoint was elsewhere, or another process owns it by now. Nothing of the part is written.
    Overtaken,
}

/// Why the database did not do it.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Whether the same call may work later.
    pub(crate) transient: bool,
    /// Whether that is so because others hold locks on what it needs. Nothing of it is stored then.
    pub(crate) blocked: bool,
    /// The part of the commit that is to blame, if it was one.
    pub(crate) part: Option<usize>,
    pub(crate) source: BackendError,
}

/// Why a query by a stable name found nothing.
#[derive(Debug)]
pub(crate) enum QueryFault {
    Database(DatabaseError),
    /// A row is not what its table can hold.
    Row(BackendError),
}

impl From<DatabaseError> for QueryFault {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

/// A database of read models.
///
/// # Obligations on the implementer
/// `commit` does all of it or nothing, except parts that were overtaken; it compares and moves every checkpoint in the very
/// transaction that writes the rows. A part that fails for good is named, so that the others can go without it. `load` reads
/// rows and checkpoint at one moment. Checkpoints are compared whole: incarnation, position and event id; and with them the
/// epoch of the owner.
#[async_trait]
pub(crate) trait ReadModels: Send + Sync {
    /// Brings the schema for checkpoints up to date.
    async fn migrate(&self) -> Result<(), StartError>;

    /// Sees to it that the model has its table, its indexes and a checkpoint per slot, and its read model a view. What belongs
    /// to another version, it leaves alone.
    async fn prepare(
        &self,
        model: &Model,
        shape: &Shape,
        incarnation: Incarnation,
        now: Timestamp,
    ) -> Result<Prepared, StartError>;

    /// Sees to it that a transaction projection has a checkpoint; where it has none, it sets up its tables in the same transaction.
    async fn prepare_transaction(
        &self,
        model: &Model,
        _shape: &Shape,
        _projection: &dyn AnyTransaction,
        _incarnation: Incarnation,
        _now: Timestamp,
    ) -> Result<Prepared, StartError> {
        let problem = format!("takes no SQL, which projection `{}` consists of", model.projection);
        Err(Invalid::new("database", problem, "use a SQLite file or a PostgreSQL database").into())
    }

    /// Begins a transaction in which a transaction projection applies events; `None` if its stored place is not `from`.
    async fn begin_applying(&self, _model: &Model, _from: &Place) -> Result<Option<Box<dyn Applying>>, Fault> {
        Ok(None)
    }

    /// Where each of these units is; `None` if its checkpoint is gone.
    async fn places(&self, units: &[UnitId]) -> Result<Vec<Option<Place>>, Fault>;

    /// The rows that there are of these keys, in any order; `None` if the stored place is not `from`. It ends with some of them
    /// once these have `most` bytes.
    async fn load(
        &self,
        model: &Model,
        from: &Place,
        keys: &[Vec<ColumnValue>],
        most: usize,
    ) -> Result<Option<Vec<Vec<ColumnValue>>>, Fault>;

    /// Writes rows and moves checkpoints.
    async fn commit(&self, work: &[&Work], now: Timestamp) -> Result<Vec<Moved>, Fault>;

    /// Lets the read model's stable name show this version, if [`StoredName::decide`] allows it. The view, and which
    /// version it is stored to show, change in one transaction, which also sees to it that the version shown until then does
    /// not read further meanwhile.
    async fn show(&self, model: &Model, switch: Switch) -> Result<Shows, Fault>;

    /// Where a reactor is; `None` if it was never started.
    async fn reactor_checkpoint(&self, reactor: &'static str) -> Result<Option<Checkpoint>, StartError>;

    /// Sees to it that a reactor has a checkpoint: where the opening begins, if nothing is stored.
    async fn prepare_reactor(&self, opening: &Opening) -> Result<(), StartError>;

    /// Makes a reactor the opening run's, in place of any run before it, and stores where it begins if nothing is stored. The calls of
    /// earlier runs change nothing from then on.
    async fn open_reactor(&self, opening: Opening) -> Result<Opened, StartError>;

    /// The events that streams of a reactor cannot get past, sorted by position; or only those of parked streams that were asked
    /// to be retried since their events last failed.
    async fn failing(&self, reactor: &'static str, only_asked: bool) -> Result<Vec<Failing>, Fault>;

    /// Asks the process that runs the reactor to retry a parked stream; false if it is not parked.
    async fn ask_again(&self, reactor: &'static str, stream: &StreamId) -> Result<bool, Fault>;

    /// What the stable names of these models' read models show, in their order; `None` where name or checkpoint is gone.
    async fn shown(&self, models: &[Model]) -> Result<Vec<Option<Shown>>, Fault>;

    /// Says that the runner is alive and renews the leases that it holds, for the time `lease` from now on by the clock of the
    /// database; then looks at all units that it runs, and at all runners.
    async fn survey(&self, runner: &Runner, lease: Duration) -> Result<Survey, Fault>;

    /// Makes the runner the owner of those of the units that have none, or one whose lease has ended, and are not paused.
    async fn claim(&self, runner: &Runner, units: &[UnitId], lease: Duration) -> Result<Vec<Claimed>, Fault>;

    /// Ends leases, each as far as the epoch is still the one given.
    async fn release(&self, held: &[(UnitId, i64)]) -> Result<(), Fault>;

    /// Counts that the event at `position` is about to be applied alone, and gives how often that was begun by now; `None` if the
    /// epoch is another one.
    async fn begin_try(&self, unit: UnitId, epoch: i64, position: Position) -> Result<Option<u32>, Fault>;

    /// Forgets how often events were begun, in all slots and versions of a projection.
    async fn forget_tries(&self, projection: &str) -> Result<(), Fault>;

    /// Makes `owner` the owner of a unit, also if another has it; `None` if it is paused or gone. With `held` it does so only as
    /// long as that is the epoch: nobody has taken it since.
    async fn seize(
        &self,
        unit: UnitId,
        owner: Uuid,
        held: Option<i64>,
        lease: Duration,
    ) -> Result<Option<Place>, Fault>;

    /// The streams that are parked in a slot, sorted.
    async fn parked(&self, unit: UnitId) -> Result<Vec<ParkedStream>, Fault>;

    /// Forgets the runner, which holds no lease any more.
    async fn leave(&self, runner: &Runner) -> Result<(), Fault>;

    /// Ends the leases of all versions of a projection and lets nobody claim them, until they are resumed; what an owner
    /// commits later is overtaken. A pause that is there already stays as it was. `None` if there is no such projection.
    async fn pause(&self, projection: &str, by: &str, now: Timestamp) -> Result<Option<Paused>, Fault>;

    /// Ends the pause of a projection; whether there was one.
    async fn resume(&self, projection: &str) -> Result<bool, Fault>;

    /// What is stored about the stable name of the model's read model.
    async fn name(&self, model: &Model) -> Result<Option<StoredName>, DatabaseError>;

    /// The rows that the stable name shows, with the columns of `model`, at one moment; `None` if the name shows another
    /// version than `shown`, of whose columns nothing is known.
    async fn query(
        &self,
        model: &Model,
        shown: u32,
        query: &Query<'_>,
    ) -> Result<Option<Vec<Vec<ColumnValue>>>, QueryFault>;
}
