//! A transaction in which a transaction projection applies events.

use annals_eventstore::Checkpoint;
use async_trait::async_trait;
use jiff::Timestamp;

use super::Fault;
use crate::transaction::ProjectionTransaction;

/// The transaction. The stored place of the projection was compared when it began, and nobody else moves it before it ends.
/// Dropping it rolls back.
#[async_trait]
pub(crate) trait Applying: Send {
    /// The connection, for the projection's own SQL.
    fn connection(&mut self) -> ProjectionTransaction<'_>;

    /// Whether a statement has ended it, as far as that is known without asking the database.
    fn is_ended(&self) -> bool;

    /// Whether it was ended by a statement that may have stored what was written by then.
    async fn may_have_stored(&mut self) -> bool;

    /// Whether an error has a fault of the database among its sources that may pass in another transaction.
    fn may_pass(&self, error: &(dyn std::error::Error + 'static)) -> bool;

    /// Moves the checkpoint and commits. False if a statement has ended the transaction before; then the checkpoint is where it was.
    async fn commit(self: Box<Self>, to: &Checkpoint, now: Timestamp) -> Result<bool, Fault>;
}
