//! The trait that users implement.

use std::future::Future;

use annals_eventstore::{Event, Recorded, Tenant};

use super::connection::ProjectionTransaction;
use crate::error::ProjectionError;

/// A projection whose rows are written by SQL of your own, in the transaction that moves its checkpoint: for tables that a fold
/// into rows cannot build, such as running totals by `UPDATE`, a full-text index, or a table that another program owns.
///
/// Prefer a [`Projection`](crate::Projection) or a [`StreamProjection`](crate::StreamProjection) where its rows will do: they write
/// the rows of many events at once, and are tested without a database.
///
/// # What it gets
/// Every event that it wants, in the order of the log, once: what [`apply`](TransactionProjection::apply) wrote and the checkpoint are
/// committed together, or neither. Up to 500 events share a transaction, which ends after the first event behind which 50 ms have
/// passed; on SQLite nobody else can write meanwhile.
///
/// It has a lease and a reader of its own, so one that is slow keeps no other projection waiting. In the transaction its checkpoint is
/// compared and locked before anything is applied: a former owner runs no SQL against the rows of its successor.
///
/// An event that fails is rolled back to the events before it, which are committed, and the projection stops and names it. A fault of
/// the database that may pass, such as a deadlock or a full disk, is retried with growing pauses. A panic is an error like any other.
///
/// # Obligations on the implementer
/// `apply` writes to this database and nowhere else, as it may run several times for one event until it is committed; side effects
/// belong into a [`Reactor`](crate::Reactor). [`Projections::close`](crate::Projections::close) waits for the event that it is at. It hands errors of the database on by `?`: in PostgreSQL a failed statement ends
/// what can be done in the transaction, unless a savepoint was set before.
///
/// The transaction is not ended by SQL. SQLite refuses a COMMIT of your own and rolls back. PostgreSQL executes it: the rows written by then
/// are stored, and the checkpoint is not moved. In both the projection stops ([`StopCause::TransactionEnded`](crate::StopCause::TransactionEnded)).
/// Temporary tables and settings that are left on the connection do not reach others.
///
/// # Versions
/// Each version has a checkpoint of its own and begins at the start of the log. So name tables by the version, `totals_v2`, where an
/// older build goes on beside a newer one; nothing is dropped by itself, and there is no view over them. If `set_up` of a raised version drops or alters the table of the
/// older one, an older build that still runs fails at its next event, or writes into the new table. When no build needs the older
/// version any more, drop its tables, and its row in the table of checkpoints (`annals_checkpoints`, `annals.checkpoints`).
///
/// ```
/// use std::time::Duration;
///
/// use annals_eventstore::{EventStore, EventStoreExt, ExpectedVersion, Recorded, StreamId, Tenant};
/// use annals_macros::Event;
/// use annals_projections::{InTransaction, ProjectionError, ProjectionTransaction, ProjectionsExt, TransactionProjection};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize, Clone)]
/// enum OrderEvent {
///     #[event(name = "order.placed")]
///     Placed { customer: String, cents: i64 },
/// }
///
/// struct CustomerTotals;
///
/// impl TransactionProjection for CustomerTotals {
///     type Event = OrderEvent;
///     const NAME: &'static str = "customer_totals";
///
///     async fn set_up(&self, tx: &mut ProjectionTransaction<'_>) -> Result<(), ProjectionError> {
///         tx.execute("DROP TABLE IF EXISTS customer_totals_v1", &[]).await?;
///         tx.execute("CREATE TABLE customer_totals_v1 (customer TEXT PRIMARY KEY, cents BIGINT NOT NULL)", &[]).await?;
///         Ok(())
///     }
///
///     async fn apply(
///         &self,
///         event: &Recorded<OrderEvent>,
///         tx: &mut ProjectionTransaction<'_>,
///     ) -> Result<(), ProjectionError> {
///         let OrderEvent::Placed { customer, cents } = &event.event;
///         let add = "INSERT INTO customer_totals_v1 AS t (customer, cents) VALUES ($1, $2)
///                    ON CONFLICT (customer) DO UPDATE SET cents = t.cents + excluded.cents";
///         tx.execute(add, &[customer, cents]).await?;
///         Ok(())
///     }
/// }
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// // A test needs no more than a SQLite file.
/// let folder = tempfile::tempdir()?;
/// let store = annals_eventstore::sqlite(folder.path().join("orders.db")).await?;
/// let views = store.projections().with_transaction(CustomerTotals).start().await?;
///
/// let stream = StreamId::new(Tenant::default(), "order", "o-17")?;
/// let placed = |cents| store.new_event(&OrderEvent::Placed { customer: "ann".into(), cents });
/// let done = store.append(&stream, ExpectedVersion::Any, vec![placed(12_00)?, placed(3_00)?]).await?;
///
/// views.wait_for_one::<InTransaction<CustomerTotals>>(done.position, Duration::from_secs(2)).await?;
/// let mut reader = store.database().read().await?;
/// let total: i64 = sqlx::query_scalar("SELECT cents FROM customer_totals_v1 WHERE customer = 'ann'").fetch_one(&mut *reader).await?;
/// assert_eq!(total, 15_00);
/// # views.close().await;
/// # Ok(()) }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
///
/// It has neither slots nor dead letters, as nothing is known of the rows that an event touches:
///
/// ```compile_fail,E0599
/// # use annals_eventstore::Recorded;
/// # use annals_projections::{ProjectionError, ProjectionTransaction, StreamProjection, TransactionProjection};
/// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
/// # struct CustomerTotals;
/// # impl TransactionProjection for CustomerTotals {
/// #     type Event = till::TillEvent;
/// #     const NAME: &'static str = "customer_totals";
/// #     async fn set_up(&self, _: &mut ProjectionTransaction<'_>) -> Result<(), ProjectionError> { Ok(()) }
/// #     async fn apply(&self, _: &Recorded<till::TillEvent>, _: &mut ProjectionTransaction<'_>) -> Result<(), ProjectionError> { Ok(()) }
/// # }
/// CustomerTotals.dead_letter(); // and so for `slots`
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `TransactionProjection`",
    label = "writes no rows by SQL of its own",
    note = "a `Projection` or a `StreamProjection` is added by `with`"
)]
pub trait TransactionProjection: Send + Sync + 'static {
    /// What it wants, as of [`Projection::Event`](crate::Projection::Event). One more name, or one less, needs a raised
    /// [`TransactionProjection::VERSION`].
    type Event: Event;

    /// The name under which its checkpoint is kept; chosen once. Lower-case letters, digits and `_`, a letter first, at most 48 characters; no two
    /// projections of a database share one.
    const NAME: &'static str;

    /// The number of its SQL, from 1: raise it whenever `apply` writes other rows for the same events, the tables change, or the type of
    /// events or [`TransactionProjection::tenant`] changes what is read.
    const VERSION: u32 = 1;

    /// The only tenant whose events it wants; all tenants by default. Another one needs a raised
    /// [`TransactionProjection::VERSION`].
    fn tenant(&self) -> Option<Tenant> {
        None
    }

    /// Makes the tables of this version. It runs once, in the transaction that stores the first checkpoint of the version, when that
    /// is started for the first time; and again after somebody has removed that checkpoint to have it built anew. So it begins
    /// with `DROP TABLE IF EXISTS`.
    ///
    /// # Errors
    /// Whatever keeps the tables from being made. Nothing is started then, and nothing of it is stored:
    /// [`StartError::SetUp`](crate::StartError::SetUp), or [`StartError::Database`](crate::StartError::Database) for an error of the database.
    fn set_up(&self, tx: &mut ProjectionTransaction<'_>) -> impl Future<Output = Result<(), ProjectionError>> + Send;

    /// Takes one event into the tables. Where an upcaster splits a stored event, it gets one part after the other, all of them in
    /// one transaction; where one drops it, nothing.
    ///
    /// A wait for the event itself, [`Projections::wait_for`](crate::Projections::wait_for) say, ends by its timeout: the event is
    /// seen when the transaction is committed.
    ///
    /// # Errors
    /// Whatever makes the event impossible to apply. Nothing of the event is stored. Errors of the database that may pass are
    /// retried, wherever in the chain of sources they are; at any other the projection stops before this event.
    fn apply(
        &self,
        event: &Recorded<Self::Event>,
        tx: &mut ProjectionTransaction<'_>,
    ) -> impl Future<Output = Result<(), ProjectionError>> + Send;
}
