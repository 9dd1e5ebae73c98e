//! Participants of sagas, on every store.

mod cases;
mod faults;
mod http;
mod killed;
mod random;

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_eventstore::{
    AggregateStore, Clock, Decide, EventStore, EventStoreExt, Evolve, ManualClock, MemoryStore, PostgresOptions,
    StreamId, Tenant,
};
use annals_macros::{Aggregate, Event};
use annals_sagas::participant::{Participant, StepCall, StepKey};
use annals_sagas::{LocalCommand, StepError, answering, command};
use futures::TryStreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

annals_eventstore::text_id! {
    struct TillId;
}

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
enum TillEvent {
    #[event(name = "till.paid_in")]
    PaidIn,
    #[event(name = "till.paid_out")]
    PaidOut,
}

/// What local steps change. It holds three coins at most.
#[derive(Aggregate, Default, Clone, Debug, PartialEq)]
#[aggregate(name = "till", id = TillId, event = TillEvent)]
struct Till {
    coins: u32,
    paid_in: u32,
}

impl Evolve for Till {
    fn evolve(&mut self, event: &TillEvent) {
        match event {
            TillEvent::PaidIn => (self.coins, self.paid_in) = (self.coins + 1, self.paid_in + 1),
            TillEvent::PaidOut => self.coins -= 1,
        }
    }
}

impl Decide<TillEvent> for Till {
    type Rejection = &'static str;

    fn decide(&self, event: &TillEvent) -> Result<Vec<TillEvent>, Self::Rejection> {
        match event {
            TillEvent::PaidIn if self.coins == 3 => Err("the till is full"),
            TillEvent::PaidOut if self.coins == 0 => Err("the till is empty"),
            event => Ok(vec![event.clone()]),
        }
    }
}

/// A service outside of the store. It has an effect once per key.
#[derive(Clone, Default)]
struct Provider {
    charged: Arc<Mutex<BTreeSet<String>>>,
    charges: Arc<AtomicU32>,
    refunds: Arc<AtomicU32>,
}

impl Provider {
    fn charge(&self, call: &StepCall) -> u32 {
        self.charges.fetch_add(1, Ordering::SeqCst);
        self.charged.lock().unwrap().insert(call.key().to_string());
        17
    }

    fn refund(&self, call: &StepCall) {
        self.refunds.fetch_add(1, Ordering::SeqCst);
        self.charged.lock().unwrap().remove(call.step().do_key().as_str());
    }

    /// How many effects there are, how often one was made, and how often one was undone.
    fn counted(&self) -> (usize, u32, u32) {
        let effects = self.charged.lock().unwrap().len();
        (effects, self.charges.load(Ordering::SeqCst), self.refunds.load(Ordering::SeqCst))
    }
}

/// Two handles of one store, as two processes have them, which share a clock that stands still.
struct Two {
    stores: [Arc<dyn EventStore>; 2],
    clock: Arc<ManualClock>,
    _scratch: Box<dyn Any + Send + Sync>,
}

impl Two {
    fn new(one: Arc<dyn EventStore>, other: Arc<dyn EventStore>, scratch: impl Any + Send + Sync) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        Self { stores: [one, other], clock, _scratch: Box::new(scratch) }
    }

    async fn on_memory() -> Self {
        let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
        Self::new(store.clone(), store, ())
    }

    async fn on_sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("steps.db");
        let one = annals_eventstore::sqlite(&path).await.unwrap();
        let other = annals_eventstore::sqlite(&path).await.unwrap();
        Self::new(Arc::new(one), Arc::new(other), folder)
    }

    async fn on_postgres() -> Self {
        let database = annals_scratch::Database::empty().await;
        let one = PostgresOptions::new(database.url()).migrate().open().await.unwrap();
        let other = PostgresOptions::new(database.url()).open().await.unwrap();
        Self::new(Arc::new(one), Arc::new(other), database)
    }

    fn participants(&self) -> [Participant; 2] {
        self.stores.clone().map(|store| Participant::new(store).clock(self.clock.clone()))
    }

    fn pay_in(&self) -> LocalCommand<u32> {
        answering(&self.stores[0].aggregate(), till(), TillEvent::PaidIn, |till: &Till| till.coins)
    }

    fn pay_out(&self) -> LocalCommand {
        command::<Till, _>(&self.stores[0].aggregate(), till(), TillEvent::PaidOut)
    }

    async fn till(&self) -> Till {
        Till::clone(&self.stores[1].aggregate::<Till>().load(&till()).await.unwrap().state)
    }

    /// The names of the events of a step of the default tenant.
    async fn recorded(&self, step: &StepKey) -> Vec<String> {
        let stream = StreamId::new(Tenant::default(), "participant_step", step.as_str()).unwrap();
        let events: Vec<_> = self.stores[1].load(&stream).try_collect().await.unwrap();
        events.iter().map(|event| event.name.to_string()).collect()
    }

    /// Lets the time of every call pass.
    fn later(&self) {
        self.clock.advance(Duration::from_secs(31));
        assert!(self.clock.now() > Timestamp::UNIX_EPOCH);
    }
}

fn till() -> TillId {
    TillId::new("till-1").unwrap()
}

fn step(name: &str) -> StepKey {
    StepKey::new(format!("checkout-{name}/charge")).unwrap()
}

fn is_refused(error: impl Into<StepError>) -> bool {
    matches!(error.into(), StepError::Refused { .. })
}
