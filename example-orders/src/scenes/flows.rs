//! The scene `-- choreography`: four orders, which nobody directs. One is completed, two fail and are undone, and one takes too long.
//!
//! The flow of an order has a stream and a row like a saga, whose id is the correlation id of its events. Here that is the id of the
//! order.

use std::io::Write;
use std::time::Duration;

use annals::sagas::{SagaEvent, SagaId, Sagas, SagasExt, Status, timeline};
use annals::{Context, CorrelationId, EventStore, PostgresOptions, Projections, ProjectionsExt, Tenant, prelude::*};
use tokio::time::{Instant, sleep};

use crate::Fault;
use crate::checkout::choreography::{Carrier, Checkouts, Orders, Payments, Warehouse};
use crate::domain::money::Money;
use crate::domain::order::OrderCommand::Place;
use crate::domain::order::{CustomerId, Line, Order, OrderId};
use crate::location::Location;

const SOON: Duration = Duration::from_secs(60);

/// Runs the scene with orders from `number` on, and prints to `out` what happens.
pub async fn play(location: &Location, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    match location {
        Location::File(path) => play_in(annals::sqlite(path).await?, number, out).await,
        Location::Postgres(url) => play_in(PostgresOptions::new(url).migrate().open().await?, number, out).await,
    }
}

async fn play_in(
    store: impl EventStore + ProjectionsExt + SagasExt + Clone,
    number: i64,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let sagas = store.sagas().track(Checkouts)?.start().await?;
    let reactors = react(&store).await?;
    let played = play_orders(&store, &sagas, number, out).await;
    reactors.close().await;
    sagas.close().await;
    store.close().await;
    played
}

/// Each could run in a process of its own.
async fn react(store: &(impl EventStore + ProjectionsExt + Clone)) -> Result<Projections, Fault> {
    let reactors = store
        .projections()
        .react(Payments(store.aggregate()))
        .react(Warehouse(store.aggregate()))
        .react(Carrier(store.aggregate()))
        .react(Orders(store.aggregate()));
    Ok(reactors.start().await?)
}

async fn play_orders(
    store: &(impl EventStore + Clone),
    sagas: &Sagas,
    number: i64,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    // All four are under way at once.
    let orders = [("kettle", 1), ("kettle", 11), ("kettle", 101), ("piano", 1)];
    for (n, (product, quantity)) in (number..).zip(orders) {
        place(store, n, product, quantity).await?;
    }
    let texts = [
        "Alice orders a kettle. Each service waits for the event of the one before it.",
        "She orders more of them than there are: the reservation fails, which refunds the payment, which cancels the order.",
        "Her bank does not pay for a hundred, so nothing but the order is undone.",
        "She orders a piano, and the warehouse says nothing for too long. That ends the flow, and is an event like any other.",
    ];
    for (n, text) in (number..).zip(texts) {
        writeln!(out, "{text}")?;
        print(store, sagas, n, out).await?;
    }
    Ok(())
}

async fn place(store: &(impl EventStore + Clone), number: i64, product: &str, quantity: u32) -> Result<(), Fault> {
    let order = OrderId::new(format!("o-{number}"))?;
    let lines = vec![Line { product: product.to_owned(), quantity, price: Money::euro_cents(4_900) }];
    let context = Context::default().with_correlation(CorrelationId::new(&order)?);
    let orders = store.aggregate::<Order>().with(context);
    orders.send(&order, Place { customer: CustomerId::new("alice")?, lines }).await?;
    Ok(())
}

/// Waits for the end of a flow, and prints its timeline.
async fn print(
    store: &(impl EventStore + Clone),
    sagas: &Sagas,
    number: i64,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let id = SagaId::new(format!("o-{number}"))?;
    let end = ended(sagas, &id).await?;
    for event in timeline(store, &Tenant::default(), &id).await? {
        match event.event {
            SagaEvent::SignalReceived { payload, .. } => {
                writeln!(out, "    {}", payload["name"].as_str().unwrap_or_default())?;
            }
            SagaEvent::CompensationBegun { reason, .. } if reason.starts_with("its deadline") => {
                writeln!(out, "    -- {reason}: from here on it is undone --")?;
            }
            SagaEvent::CompensationBegun { .. } => writeln!(out, "    -- failed: from here on it is undone --")?,
            _ => {}
        }
    }
    Ok(writeln!(out, "  {id} is {end}\n")?)
}

/// The end of a flow, which has no row before its first event was seen.
async fn ended(sagas: &Sagas, id: &SagaId) -> Result<Status, Fault> {
    let until = Instant::now() + SOON;
    while sagas.status(id).await.is_err() && Instant::now() < until {
        sleep(Duration::from_millis(10)).await;
    }
    Ok(sagas.wait_for(id, SOON).await?.status)
}
