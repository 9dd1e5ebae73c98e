//! Commands of aggregates inside a unit of work.

use super::requests;
use super::unit_of_work::SqliteUnitOfWork;
use crate::aggregate::{Evolve, IntoEvents};
use crate::append::{Append, Appended};
use crate::error::AppendError;
use crate::invalid::Invalid;
use crate::limits::MAX_PAGE_EVENTS;
use crate::repository::{Attempt, ExecuteError, Executed, Known, Repository};
use crate::store::EventStore;
use crate::stream::StreamVersion;

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
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// See [`ExecuteError`]; nothing of the command is in the transaction then. [`Invalid`] with the field `repository` if
    /// it is one of another store.
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
        F: FnOnce(&A) -> Result<T, R>,
    {
        if repository.store().incarnation() != self.store.incarnation() {
            return Err(Invalid::new("repository", "is one of another store", "use one of this store").into());
        }
        let attempt = Attempt { repository, stream: repository.stream(id)? };
        if let Some(first) = self.first_answer(&attempt).await? {
            return Ok(first);
        }
        // What is cached is committed, so it is a beginning of what this transaction sees. What it adds itself is not
        // remembered: it may never be committed.
        let mut known = attempt.cached().unwrap_or_else(Known::start);
        loop {
            let database = self.store.database().clone();
            let page =
                database.load_stream_on(&mut self.transaction, &attempt.stream, known.version, MAX_PAGE_EVENTS).await?;
            known.take_in(&attempt.stream, &page.events)?;
            if page.end || page.events.is_empty() {
                break;
            }
        }
        let events = decide(&known.state).map_err(ExecuteError::Rejected)?.into_events();
        let appended = if !events.is_empty() {
            let (new, _) = attempt.prepare(&known, &events)?;
            self.append(attempt.append_of(known.version, new)).await?
        } else if let Some(request) = repository.context().request_key() {
            self.append(Append::nothing(attempt.stream.tenant().clone(), request.clone())).await?
        } else {
            return Ok(Executed::nothing(&attempt.stream, known.version));
        };
        Ok(attempt.answer(&appended, known.version)?)
    }

    /// The answer to the request of the attempt, if it was executed before, in this transaction or another.
    async fn first_answer<A: Evolve>(&mut self, attempt: &Attempt<'_, A>) -> Result<Option<Executed>, AppendError> {
        let Some(request) = attempt.repository.context().request_key() else { return Ok(None) };
        let tenant = attempt.stream.tenant();
        let now = self.store.group().now().as_microsecond();
        let database = self.store.database().clone();
        let found = requests::find(&mut self.transaction, tenant, request, now)
            .await
            .map_err(|e| database.fault(e).into_append(|| attempt.stream.clone()))?;
        let first: Option<Appended> = found.map(|found| found.answer(tenant, request)).transpose()?;
        first.map(|appended| attempt.answer(&appended, StreamVersion::NONE)).transpose()
    }
}
