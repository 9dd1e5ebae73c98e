//! Checkouts over services that are real servers, which fail in each way in turn, and at random.

mod chaos;
mod degradation;
mod faults;
mod flows;

use std::path::Path;
use std::time::Duration;

use annals::resilience::breaker::BreakerSettings;
use annals::resilience::{PolicySettings, Profile};
use annals::sagas::{SagaId, SagasExt};
use annals::{Context, EventStore, ProjectionsExt, Tenant};
use example_orders::checkout::{Cart, Checkouts, Flow};
use example_orders::domain::money::Money;
use example_orders::domain::order::{CustomerId, Line, OrderId};
use example_orders::services::{ClientSettings, Servers};

const LEASE: Duration = Duration::from_millis(500);

/// Short times, so that faults are found and forgiven within a test.
fn quick() -> ClientSettings {
    let policy = PolicySettings {
        profile: Profile::Fast,
        timeout: Some(Duration::from_millis(400)),
        breaker: Some(BreakerSettings {
            open: Duration::from_millis(500),
            open_growth: 1.0,
            ..BreakerSettings::default()
        }),
        ..PolicySettings::default()
    };
    ClientSettings { payment: policy.clone(), stock: policy.clone(), shipping: policy }
}

fn shop() -> Tenant {
    Tenant::default()
}

fn order(number: usize) -> OrderId {
    OrderId::new(format!("o-{number}")).expect("an id")
}

/// Some kettles for Alice.
fn cart(number: usize, quantity: u32) -> Cart {
    let lines = vec![Line { product: "kettle".to_owned(), quantity, price: Money::euro_cents(4_900) }];
    Cart { order: order(number), customer: CustomerId::new("alice").expect("an id"), lines }
}

async fn begin(checkouts: &Checkouts, flow: Flow, cart: Cart) -> SagaId {
    checkouts.begin(flow, cart, &Context::default()).await.expect("it begins")
}

/// Three services and the checkouts of a store.
async fn start<const SECONDS: u64>(
    folder: &Path,
    store: &(impl EventStore + ProjectionsExt + SagasExt + Clone),
    settings: ClientSettings,
) -> (Servers, Checkouts) {
    let servers = Servers::start(folder).await.expect("they start");
    let clients = servers.clients(settings).expect("the settings fit");
    let checkouts = Checkouts::start::<SECONDS>(store, clients, LEASE).await.expect("they start");
    (servers, checkouts)
}
