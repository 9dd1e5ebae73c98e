//! What the runner's tests run: a store in memory, read models somewhere, and projections that fail on demand.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{
    AsOf, Checkpoint, Event, EventId, EventStore, ExpectedVersion, MemoryStore, NewEvent, Payload, Position, Recorded,
    SeededIds, StreamId, Tenant,
};

use super::accounts::{Account, AccountEvent, Accounts};
use super::troubled::Troubled;
use crate::builder::ProjectionsBuilder;
use crate::column::ColumnValue;
use crate::database::contract::{Backend, InMemory, LookUp};
use crate::database::{Model, ReadModels};
use crate::{Projection, ProjectionError, Projections, ReadModel, Rows, TableSpec};

#[derive(Clone)]
pub(crate) struct Fixture {
    pub(crate) store: MemoryStore,
    pub(crate) models: Troubled,
    backend: Arc<dyn Backend>,
    soon: Duration,
    /// How often something random is tried.
    rounds: usize,
}

impl Fixture {
    /// All in memory, for paused time.
    pub(crate) fn new() -> Self {
        // Longer than anything but a fault may take, shorter than the wait after which the log is looked at anyway.
        Self { soon: Duration::from_secs(3), rounds: 60, ..Self::at(InMemory::default()) }
    }

    /// With read models in a real database, and in real time.
    pub(crate) fn at(backend: impl Backend + 'static) -> Self {
        let models = Troubled::new(backend.handle());
        Self { store: MemoryStore::new(), models, backend: Arc::new(backend), soon: Duration::from_secs(30), rounds: 5 }
    }

    /// The same read models, but an empty store.
    pub(crate) fn with_another_store(&self) -> Self {
        self.with_store(MemoryStore::new())
    }

    /// The same read models, but another store.
    pub(crate) fn with_store(&self, store: MemoryStore) -> Self {
        Self { store, ..self.clone() }
    }

    /// The same read models, and empty stores of one incarnation that give different ids to their events: a log before and
    /// after a failover that has lost all of it.
    pub(crate) fn with_two_histories(&self) -> [Self; 2] {
        let stores = [(), ()].map(|()| MemoryStore::builder().ids(SeededIds::new(7)).build());
        stores[1].ids().next_id();
        assert_eq!(stores[0].incarnation(), stores[1].incarnation());
        stores.map(|store| Self { store, ..self.clone() })
    }

    /// The same store and read models, these by a handle of their own, as another process has.
    pub(crate) fn beside(&self) -> Self {
        Self { models: Troubled::new(self.backend.handle()), ..self.clone() }
    }

    /// How long something may take that is not blocked.
    pub(crate) fn soon(&self) -> Duration {
        self.soon
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds
    }

    pub(crate) fn over(&self, store: impl EventStore) -> ProjectionsBuilder {
        ProjectionsBuilder::new(Arc::new(store), Arc::new(self.models.clone()))
    }

    pub(crate) fn projections(&self) -> ProjectionsBuilder {
        self.over(self.store.clone())
    }

    pub(crate) async fn start(&self) -> Projections {
        self.projections().with(Accounts).start().await.unwrap()
    }

    /// Appends events of one account.
    pub(crate) async fn append(&self, id: &str, events: impl IntoIterator<Item = AccountEvent>) -> Position {
        self.append_of(Tenant::default(), id, events).await
    }

    pub(crate) async fn append_of(
        &self,
        tenant: Tenant,
        id: &str,
        events: impl IntoIterator<Item = AccountEvent>,
    ) -> Position {
        self.append_any_of(tenant, id, events).await
    }

    /// Appends events of another type.
    pub(crate) async fn append_any<E: Event>(&self, id: &str, events: impl IntoIterator<Item = E>) -> Position {
        self.append_any_of(Tenant::default(), id, events).await
    }

    pub(crate) async fn append_any_of<E: Event>(
        &self,
        tenant: Tenant,
        id: &str,
        events: impl IntoIterator<Item = E>,
    ) -> Position {
        let new = |event| NewEvent::of(self.next_id(), &event).unwrap();
        self.append_new(tenant, id, events.into_iter().map(new).collect()).await
    }

    /// Appends an event that no type encoded.
    pub(crate) async fn append_raw(&self, id: &str, name: &str, payload: &str) -> Position {
        self.append_raw_of(Tenant::default(), id, name, payload).await
    }

    pub(crate) async fn append_raw_of(&self, tenant: Tenant, id: &str, name: &str, payload: &str) -> Position {
        let event = NewEvent::raw(self.next_id(), name, 1, Payload::from_json(payload).unwrap()).unwrap();
        self.append_new(tenant, id, vec![event]).await
    }

    async fn append_new(&self, tenant: Tenant, id: &str, events: Vec<NewEvent>) -> Position {
        let stream = StreamId::new(tenant, "account", id).unwrap();
        self.store.append(&stream, ExpectedVersion::Any, events).await.unwrap().position
    }

    pub(crate) fn next_id(&self) -> EventId {
        EventId::new(self.store.ids().next_id()).unwrap()
    }

    /// The id and cents of every row that `P` has made.
    pub(crate) async fn rows<P: Projection>(&self) -> Vec<(String, i64)> {
        self.backend.accounts(&model::<P>()).await
    }

    /// The same of a table that SQL of a test's own has made.
    pub(crate) async fn rows_of(&self, model: &Model) -> Vec<(String, i64)> {
        self.backend.accounts(model).await
    }

    /// Puts the stored checkpoint of a projection behind the event at `position`, or removes it.
    pub(crate) async fn put(&self, model: &Model, position: Option<Position>) {
        let checkpoint = match position {
            Some(position) => Some(self.store.log_as_of(AsOf::position(position)).await.unwrap()),
            None => None,
        };
        self.backend.set_checkpoint(model, checkpoint).await;
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.backend.is_postgres()
    }

    /// The same as a query by the stable name of `P`'s read model gives it.
    pub(crate) async fn named<P: Projection>(&self) -> Vec<(String, i64)> {
        self.backend.named(P::Row::TABLE).await
    }

    /// Where the stored checkpoint of `P` is.
    pub(crate) async fn position<P: Projection>(&self) -> i64 {
        let stored = self.models.checkpoint(&model::<P>()).await.expect("the database answers");
        stored.expect("it was started").position.get()
    }

    pub(crate) async fn set_checkpoint<P: Projection>(&self, checkpoint: Option<Checkpoint>) {
        self.backend.set_checkpoint(&model::<P>(), checkpoint).await;
    }

    /// Removes the rows of `P` and puts its checkpoint to the beginning, as one does to have them built anew.
    pub(crate) async fn empty<P: Projection>(&self) {
        self.backend.empty(&model::<P>()).await;
    }

    /// A handle on the read models such as another process has.
    pub(crate) fn handle(&self) -> Arc<dyn ReadModels> {
        self.backend.handle()
    }

    /// Which version the stable name of `P`'s read model shows.
    pub(crate) async fn shown<P: Projection>(&self) -> Option<u32> {
        self.backend.shown(P::Row::TABLE.name).await
    }
}

/// A checkpoint that is elsewhere in the same log.
pub(crate) fn at(checkpoint: Checkpoint, position: i64) -> Checkpoint {
    Checkpoint { position: Position::new(position).expect("not negative"), ..checkpoint }
}

pub(crate) fn model<P: Projection>() -> Model {
    Model { projection: P::NAME, version: P::VERSION, table: P::Row::TABLE }
}

pub(crate) fn pairs(rows: &[(&str, i64)]) -> Vec<(String, i64)> {
    rows.iter().map(|(id, cents)| ((*id).to_owned(), *cents)).collect()
}

/// Everything that is wrong with a projection, in one line.
pub(crate) fn said(error: &(dyn std::error::Error + 'static)) -> String {
    crate::member::chain(error)
}

/// How many events each account had: a second projection beside [`Accounts`], which knows no event that fails.
pub(crate) struct Counts;

#[derive(Clone)]
pub(crate) struct Count(Account);

impl ReadModel for Count {
    type Key = String;
    const TABLE: &'static TableSpec = &TableSpec { name: "counts", ..*Account::TABLE };

    fn key(&self) -> String {
        self.0.key()
    }

    fn to_columns(&self) -> Vec<ColumnValue> {
        self.0.to_columns()
    }

    fn from_columns(columns: &mut dyn Iterator<Item = ColumnValue>) -> Result<Self, crate::ColumnError> {
        Account::from_columns(columns).map(Self)
    }
}

impl Projection for Counts {
    type Event = AccountEvent;
    type Row = Count;

    fn apply(&self, event: &Recorded<AccountEvent>, rows: &mut Rows<Count>) -> Result<(), ProjectionError> {
        let id = event.stream.aggregate_id().to_owned();
        rows.get_or_insert_with(&id, || Count(Account::new(&id, 0, event.recorded_at)))?.0.cents += 1;
        Ok(())
    }
}

/// [`Accounts`] after a fix: what it could not apply before, it passes over.
pub(crate) struct Fixed;

impl Projection for Fixed {
    type Event = AccountEvent;
    type Row = Account;

    fn apply(&self, event: &Recorded<AccountEvent>, rows: &mut Rows<Account>) -> Result<(), ProjectionError> {
        match event.event {
            AccountEvent::Refused | AccountEvent::Panicking | AccountEvent::NotANumber => Ok(()),
            _ => Accounts.apply(event, rows),
        }
    }
}

/// [`Accounts`] with another fold.
pub(crate) struct Doubled;

impl Projection for Doubled {
    type Event = AccountEvent;
    type Row = Account;
    const VERSION: u32 = 2;

    fn apply(&self, event: &Recorded<AccountEvent>, rows: &mut Rows<Account>) -> Result<(), ProjectionError> {
        Accounts.apply(event, rows)?;
        Accounts.apply(event, rows)
    }
}

/// [`Accounts`] of one tenant.
pub(crate) struct OfTenant(pub(crate) Tenant);

impl Projection for OfTenant {
    type Event = AccountEvent;
    type Row = Account;

    fn tenant(&self) -> Option<Tenant> {
        Some(self.0.clone())
    }

    fn apply(&self, event: &Recorded<AccountEvent>, rows: &mut Rows<Account>) -> Result<(), ProjectionError> {
        Accounts.apply(event, rows)
    }
}

/// Waits until the runner says that every projection is at `position`, which may be a moment later than it can be queried.
pub(crate) async fn until_at(views: &Projections, position: Position) {
    while views.status().iter().any(|status| status.position < position) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The names of those that are not running.
pub(crate) fn not_running(views: &Projections) -> HashSet<String> {
    views.status().into_iter().filter(|s| !s.state.is_running()).map(|s| s.name.to_string()).collect()
}
