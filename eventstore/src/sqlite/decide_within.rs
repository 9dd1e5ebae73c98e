//! Commands of aggregates inside a unit of work.

use async_trait::async_trait;

use super::requests;
use super::unit_of_work::{SqliteUnitOfWork, no_stream};
use crate::aggregate::{Evolve, IntoEvents};
use crate::append::{Append, Appended};
use crate::error::{AppendError, ReadError};
use crate::position::Incarnation;
use crate::repository::{ExecuteError, Executed, Repository, Within, execute_within};
use crate::request::RequestKey;
use crate::store::{EventStore, StreamPage};
use crate::stream::{StreamId, StreamVersion, Tenant};

impl SqliteUnitOfWork {
    /// Executes a command of an aggregate inside the transaction: what is decided is stored together with the user's own
    /// rows, or not at all.
    ///
    /// The aggregate is read inside the transaction, so it includes what was appended there before, and nobody can come
    /// between: `decide` runs once. Context, metadata and request key are those of `repository`. After an error the unit of
    /// work can go on, unless the error says otherwise.
    ///
    /// ```
    /// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
    /// # use order::*;
    /// use annals_eventstore::AggregateStore;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("orders.db");
    /// let store = annals_eventstore::sqlite(&path).await?;
    /// let orders = store.aggregate::<Order>();
    ///
    /// let mut work = store.begin().await?;
    /// sqlx::query("CREATE TABLE mail (recipient TEXT NOT NULL) STRICT").execute(&mut *work).await?;
    /// work.execute(&orders, &OrderId::new("o-17")?, |order| order.place(12_00)).await?;
    /// sqlx::query("INSERT INTO mail VALUES (?1)").bind("alice").execute(&mut *work).await?;
    /// work.commit().await?;
    /// assert!(orders.load(&OrderId::new("o-17")?).await?.exists());
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
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
impl Within for SqliteUnitOfWork {
    fn incarnation(&self) -> Incarnation {
        self.store.incarnation()
    }

    async fn load(&mut self, stream: &StreamId, after: StreamVersion, limit: usize) -> Result<StreamPage, ReadError> {
        let database = self.store.database().clone();
        database.load_stream_on(&mut self.transaction, stream, after, limit).await
    }

    async fn first_answer(&mut self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError> {
        let now = self.store.group().now().as_microsecond();
        let database = self.store.database().clone();
        let found = requests::find(&mut self.transaction, tenant, request, now)
            .await
            .map_err(|e| database.fault(e).into_append(no_stream))?;
        found.map(|found| found.answer(tenant, request)).transpose()
    }

    async fn append_within(&mut self, append: Append) -> Result<Appended, AppendError> {
        self.append(append).await
    }
}
