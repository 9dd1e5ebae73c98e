//! The database that read models live in, as the runner needs it. It knows nothing of the events' store.

mod choice;
#[cfg(test)]
pub(crate) mod contract;
#[cfg(test)]
pub(crate) mod memory;
mod name;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use annals_eventstore::{BackendError, Checkpoint, Incarnation};
use async_trait::async_trait;
use jiff::Timestamp;

use crate::changes::Changes;
use crate::column::ColumnValue;
use crate::error::StartError;
use crate::reactor::{Opened, Opening};
use crate::read_model::TableSpec;
use crate::shape::Shape;
pub use choice::ReadModelDatabase;
pub(crate) use name::{Shown, Shows, StoredName, Switch};

/// One version of one projection, and the table that it builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) projection: &'static str,
    pub(crate) version: u32,
    pub(crate) table: &'static TableSpec,
}

impl Model {
    /// The name of the table itself. The read model's stable name is that of a view over it.
    pub(crate) fn table_name(&self) -> String {
        format!("{}_v{}", self.table.name, self.version)
    }
}

/// Where a prepared model is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Prepared {
    pub(crate) checkpoint: Checkpoint,
    /// Whether the stable name shows this version already.
    pub(crate) shown: bool,
}

/// One projection's part of a commit: its rows, and its checkpoint from where it must be to where it moves.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) model: Model,
    pub(crate) from: Checkpoint,
    pub(crate) to: Checkpoint,
    pub(crate) changes: Changes,
}

/// What became of one projection's part of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// Its rows and its checkpoint are committed.
    Done,
    /// Its checkpoint was elsewhere: another process was faster. Nothing of the part is written.
    Overtaken,
}

/// Why the database did not do it.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Whether the same call may work later.
    pub(crate) transient: bool,
    /// The part of the commit that is to blame, if it was one.
    pub(crate) part: Option<usize>,
    pub(crate) source: BackendError,
}

/// A database of read models.
///
/// # Obligations on the implementer
/// `commit` does all of it or nothing, except parts that were overtaken; it compares and moves every checkpoint in the very
/// transaction that writes the rows. A part that fails for good is named, so that the others can go without it. `load` reads
/// rows and checkpoint at one moment. Checkpoints are compared whole: incarnation, position and event id.
#[async_trait]
pub(crate) trait ReadModels: Send + Sync {
    /// Brings the schema for checkpoints up to date.
    async fn migrate(&self) -> Result<(), StartError>;

    /// Sees to it that the model has its table, its indexes and its checkpoint, and its read model a view. What belongs to
    /// another version, it leaves alone.
    async fn prepare(
        &self,
        model: &Model,
        shape: &Shape,
        incarnation: Incarnation,
        now: Timestamp,
    ) -> Result<Prepared, StartError>;

    /// Where each of the models is; `None` if its checkpoint is gone.
    async fn checkpoints(&self, models: &[Model]) -> Result<Vec<Option<Checkpoint>>, Fault>;

    /// The rows that there are of these keys, in any order; `None` if the model's stored checkpoint is not `from`.
    async fn load(
        &self,
        model: &Model,
        from: &Checkpoint,
        keys: &[Vec<ColumnValue>],
    ) -> Result<Option<Vec<Vec<ColumnValue>>>, Fault>;

    /// Writes rows and moves checkpoints.
    async fn commit(&self, work: &[&Work], now: Timestamp) -> Result<Vec<Moved>, Fault>;

    /// Lets the read model's stable name show this version, if [`StoredName::decide`] allows it. The view, and which
    /// version it is stored to show, change in one transaction, which also sees to it that the version shown until then does
    /// not read further meanwhile.
    async fn show(&self, model: &Model, switch: Switch) -> Result<Shows, Fault>;

    /// Where a reactor is; `None` if it was never started.
    async fn reactor_checkpoint(&self, reactor: &'static str) -> Result<Option<Checkpoint>, StartError>;

    /// Makes a reactor the opening run's, in place of any run before it, and stores where it begins if nothing is stored. The calls of
    /// earlier runs change nothing from then on.
    async fn open_reactor(&self, opening: Opening) -> Result<Opened, StartError>;

    /// What the stable names of these models' read models show, in their order; `None` where name or checkpoint is gone.
    async fn shown(&self, models: &[Model]) -> Result<Vec<Option<Shown>>, Fault>;
}
