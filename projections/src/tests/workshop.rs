//! What the runner's tests run: a store and read models in memory, and projections that fail when told to.

use std::collections::HashSet;
use std::time::Duration;

use annals_eventstore::{
    EventId, EventStore, ExpectedVersion, MemoryStore, NewEvent, Payload, Position, Recorded, StreamId, Tenant,
};

use super::accounts::{Account, AccountEvent, Accounts};
use crate::builder::{Over, ProjectionsBuilder};
use crate::column::ColumnValue;
use crate::database::Model;
use crate::database::memory::MemoryReadModels;
use crate::{Projection, ProjectionError, Projections, ReadModel, Rows, TableSpec};

/// Longer than anything but a fault may take, shorter than the wait after which the log is looked at anyway.
pub(crate) const SOON: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub(crate) struct Workshop {
    pub(crate) store: MemoryStore,
    pub(crate) models: MemoryReadModels,
}

impl Workshop {
    pub(crate) fn new() -> Self {
        Self { store: MemoryStore::new(), models: MemoryReadModels::default() }
    }

    pub(crate) fn over(&self, store: impl EventStore) -> ProjectionsBuilder {
        Over::new(std::sync::Arc::new(store)).into_read_models(std::sync::Arc::new(self.models.clone()))
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

    fn next_id(&self) -> EventId {
        EventId::new(self.store.ids().next_id()).unwrap()
    }

    /// The id and cents of every row that `P` has made.
    pub(crate) fn rows<P: Projection<Row = Account>>(&self) -> Vec<(String, i64)> {
        self.read(model::<P>())
    }

    pub(crate) fn read(&self, model: Model) -> Vec<(String, i64)> {
        let pair = |row: Vec<ColumnValue>| match (&row[0], &row[1]) {
            (ColumnValue::Text(id), ColumnValue::Integer(cents)) => (id.to_string(), *cents),
            other => panic!("an account begins otherwise: {other:?}"),
        };
        self.models.rows(&model).into_iter().map(pair).collect()
    }

    /// Where `P`'s stored checkpoint stands.
    pub(crate) fn position<P: Projection>(&self) -> i64 {
        self.models.position(&model::<P>()).expect("it was started")
    }
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

/// The names of those that are not running.
pub(crate) fn not_running(views: &Projections) -> HashSet<String> {
    views.status().into_iter().filter(|s| !s.state.is_running()).map(|s| s.name.to_string()).collect()
}
