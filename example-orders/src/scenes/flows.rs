//! The scene `-- choreography`: four orders, which nobody directs. One is completed, two fail and are undone, and one takes too long.
//!
//! The flow of an order has a stream and a row like a saga, whose id is the correlation id of its events. The log has all events
//! of it under that id, so that is what is printed.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use annals::projections::ReactorStatus;
use annals::sagas::{SagaEvent, SagaId, SagasExt, Status};
use annals::{
    Context, CorrelationId, EventStore, EventStoreExt, Filter, Position, PostgresOptions, ProjectionsExt,
    RecordedEvent, Tenant,
};
use futures::TryStreamExt;

use crate::Fault;
use crate::checkout::{Cart, Checkouts, Flow, id};
use crate::domain::money::Money;
use crate::domain::order::{CustomerId, Line, OrderId};
use crate::location::Location;
use crate::services::{ClientSettings, Faults, Servers};

const SOON: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(5);

/// Runs the scene with orders from `number` on, and prints to `out` what happens.
pub async fn play(location: &Location, services: &Path, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    let servers = Servers::start(services).await?;
    let played = match location {
        Location::File(path) => play_in(annals::sqlite(path).await?, &servers, number, out).await,
        Location::Postgres(url) => {
            play_in(PostgresOptions::new(url).migrate().open().await?, &servers, number, out).await
        }
    };
    servers.stop().await;
    played
}

async fn play_in(
    store: impl EventStore + ProjectionsExt + SagasExt + Clone,
    servers: &Servers,
    number: i64,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    // Four seconds are short, so that the scene is.
    let checkouts = Checkouts::start::<4>(&store, servers.clients(ClientSettings::default())?, LEASE).await?;
    let played = play_orders(&store, &checkouts, servers, number, out).await;
    checkouts.close().await;
    store.close().await;
    played
}

async fn play_orders(
    store: &(impl EventStore + Clone),
    checkouts: &Checkouts,
    servers: &Servers,
    number: i64,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let orders = [
        (1, "Alice orders a kettle. Each service is asked when the event of the one before it is seen."),
        (
            11,
            "She orders more of them than there are: the reservation fails, which causes a refund, and the order is cancelled.",
        ),
        (200, "Her card is not charged for two hundred, so nothing but the order is undone."),
    ];
    for (n, (quantity, text)) in (number..).zip(orders) {
        writeln!(out, "{text}")?;
        begin(checkouts, n, "kettle", quantity).await?;
        print(store, checkouts, n, out).await?;
    }

    writeln!(
        out,
        "She orders a piano, and no answer of the warehouse comes. The end of the time is an event like any other."
    )?;
    writeln!(out, "When the warehouse answers at last, what was done by then is taken back, the parcel too.")?;
    servers.stock.faults.set(Faults { lost_answers: 1.0, ..Faults::default() });
    let piano = begin(checkouts, number + 3, "piano", 1).await?;
    ended(checkouts, &piano).await?;
    servers.stock.faults.set(Faults::default());
    print(store, checkouts, number + 3, out).await
}

async fn begin(checkouts: &Checkouts, number: i64, product: &str, quantity: u32) -> Result<SagaId, Fault> {
    let lines = vec![Line { product: product.to_owned(), quantity, price: Money::euro_cents(4_900) }];
    let cart = Cart { order: order(number)?, customer: CustomerId::new("alice")?, lines };
    Ok(checkouts.begin(Flow::Choreographed, cart, &Context::default()).await?)
}

/// Waits until a flow has ended and all is quiet, and prints its events.
async fn print(
    store: &(impl EventStore + Clone),
    checkouts: &Checkouts,
    number: i64,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let id = id(Flow::Choreographed, &order(number)?)?;
    let end = ended(checkouts, &id).await?;
    quiet(store, checkouts).await?;
    let of_flow = Filter::all().tenant(Tenant::default()).correlation(CorrelationId::new(&id)?);
    let events: Vec<_> = store.read_all(Position::START, of_flow).try_collect().await?;
    let lates: Vec<Option<String>> = events.iter().map(late).collect::<Result<_, _>>()?;
    let at = lates.iter().position(Option::is_some).map_or(events.len(), |at| at + 1);
    let mut lines: Vec<_> = events.iter().zip(lates).collect();
    // Money, pieces and parcels are taken back side by side. Here one after the other.
    lines[at..].sort_by_key(|(event, _)| match event.stream.aggregate_type() {
        "payment" => 0,
        "reservation" => 1,
        "shipment" => 2,
        _ => 3,
    });
    let mut order = Vec::new();
    for (event, late) in lines {
        match (event.stream.aggregate_type(), late) {
            (_, Some(reason)) => writeln!(out, "    -- {reason} --")?,
            ("saga", None) => {}
            ("order", None) if *event.name != *"order.placed" => order.push(event.name.to_string()),
            _ => writeln!(out, "    {}", event.name)?,
        }
    }
    Ok(writeln!(out, "  {id} is {end}, and its order has {}\n", order.join(", "))?)
}

/// Why a flow is undone, if that is because of its time.
fn late(event: &RecordedEvent) -> Result<Option<String>, Fault> {
    if event.stream.aggregate_type() != "saga" {
        return Ok(None);
    }
    Ok(event.decode::<SagaEvent>()?.into_iter().find_map(|event| match event {
        SagaEvent::CompensationBegun { reason, .. } if reason.starts_with("its deadline") => Some(reason),
        _ => None,
    }))
}

async fn ended(checkouts: &Checkouts, id: &SagaId) -> Result<Status, Fault> {
    let until = Instant::now() + SOON;
    // It has no row before its first event was seen.
    while checkouts.sagas.status(id).await.is_err() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(checkouts.sagas.wait_for(id, SOON).await?.status)
}

/// Waits until the reactors have handled all events, and the events that came of that.
async fn quiet(store: &impl EventStore, checkouts: &Checkouts) -> Result<(), Fault> {
    let until = Instant::now() + SOON;
    loop {
        let head = store.head().await?.position;
        let behind = |reactor: &ReactorStatus| reactor.position < head;
        if !checkouts.reactors.reactors().iter().any(behind) && store.head().await?.position == head {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!("after a minute the reactors are {:?}", checkouts.reactors.reactors()).into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn order(number: i64) -> Result<OrderId, annals::Invalid> {
    OrderId::new(format!("o-{number}"))
}
