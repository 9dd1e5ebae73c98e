//! Commands of aggregates inside a unit of work.

use async_trait::async_trait;

use super::append;
use super::unit_of_work::{PostgresUnitOfWork, no_stream};
use super::within::failed;
use crate::aggregate::{Evolve, IntoEvents};
use crate::append::{Append, Appended};
use crate::error::{AppendError, ReadError};
use crate::position::Incarnation;
use crate::repository::{ExecuteError, Executed, Repository, Within, execute_within};
use crate::request::RequestKey;
use crate::store::{EventStore, StreamPage};
use crate::stream::{StreamId, StreamVersion, Tenant};

impl PostgresUnitOfWork {
    /// Executes a command of an aggregate inside the transaction: what is decided is stored together with the user's own
    /// rows, or not at all.
    ///
    /// The aggregate is read inside the transaction, so it includes what was appended there before. If another writer comes
    /// between the read and the append, it is read and decided again, as often as `repository` allows. Context, metadata and
    /// request key are those of `repository`. After a rejection or a refused append the unit of work can go on.
    ///
    /// ```no_run
    /// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
    /// # use order::*;
    /// use annals_eventstore::AggregateStore;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = annals_eventstore::postgres("postgres://app@localhost/shop").await?;
    /// let orders = store.aggregate::<Order>();
    ///
    /// let mut work = store.begin().await?;
    /// work.execute(&orders, &OrderId::new("o-17")?, |order| order.place(12_00)).await?;
    /// sqlx::query("INSERT INTO mail VALUES ($1)").bind("alice").execute(&mut *work).await?;
    /// work.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`ExecuteError`]; nothing of the command is in the transaction then. [`ExecuteError::Invalid`] with the field
    /// `repository` if it is one of another store.
    ///
    /// # Cancel safety
    /// After the future was dropped the unit of work may not be committable any more.
    pub async fn execute<A, T, R, F>(
        &mut self,
        repository: &Repository<A>,
        id: &A::Id,
        decide: F,
    ) -> Result<Executed, ExecuteError<R>>
    where
        A: Evolve,
        T: IntoEvents<A::Event>,
        F: Fn(&A) -> Result<T, R>,
    {
        execute_within(self, repository, id, decide).await
    }
}

#[async_trait]
impl Within for PostgresUnitOfWork {
    fn incarnation(&self) -> Incarnation {
        self.store.incarnation()
    }

    async fn load(&mut self, stream: &StreamId, after: StreamVersion, limit: usize) -> Result<StreamPage, ReadError> {
        self.store.reader().load_stream_on(&mut self.transaction, stream, after, limit).await
    }

    async fn first_answer(&mut self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError> {
        let rows = append::request_by_key(tenant, request).fetch_all(&mut *self.transaction).await;
        let rows = rows.map_err(|e| failed(e, no_stream))?;
        append::first_answer(tenant, request, &rows)
    }

    async fn append_within(&mut self, append: Append) -> Result<Appended, AppendError> {
        self.append(append).await
    }
}
