//! The scene `-- evolution`: orders that three builds of the shop stored, each in its own shape, are read as orders of today.
//!
//! `evolution.rs` has the shapes and the steps between them. The scene stores the payloads of the corpus, as those builds did; an
//! app of yours would find them in its store.

use std::io::Write;

use annals::engine::Payload;
use annals::{Event, EventStore, EventStoreExt, ExpectedVersion, RecordedEvent, StreamVersion, Tenant};

use crate::Fault;
use crate::domain::money::Money;
use crate::domain::order::OrderCommand::Pay;
use crate::domain::order::{OrderEvent, OrderId, PaymentId};
use crate::scenes::past;
use crate::scenes::tables;
use crate::shop::Shop;

/// An event as it was stored: its name, its schema version, and its payload.
type Stored = (&'static str, u32, &'static str);

/// An order of each build. The first build also cancelled its order, under a name that the event does not have any more.
const ORDERS: [&[Stored]; 3] = [
    &[
        ("order.placed", 1, include_str!("../../tests/corpus/order.placed.v1.json")),
        ("order.withdrawn", 1, include_str!("../../tests/corpus/order.withdrawn.v1.json")),
    ],
    &[("order.placed", 2, include_str!("../../tests/corpus/order.placed.v2.json"))],
    &[("order.placed", 3, include_str!("../../tests/corpus/order.placed.v3.json"))],
];

/// Runs the scene with orders from `number` on, and prints to `out` what is stored and what is read.
pub async fn play(shop: &Shop, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    let mut orders = Vec::new();
    for (n, stored) in (number..).zip(ORDERS) {
        let id = OrderId::new(format!("o-{n}"))?;
        let event = |&(name, version, json): &Stored| shop.store.new_raw_event(name, version, json);
        let events = stored.iter().map(event).collect::<Result<_, _>>()?;
        shop.store.append(&shop.orders.stream(&id)?, ExpectedVersion::NoStream, events).await?;
        orders.push(id);
    }

    writeln!(out, "Three builds of the shop stored orders, each in its own shape. What is stored never changes:")?;
    for id in &orders {
        for event in stored(shop, id).await? {
            print(out, id, (&event.name, event.schema_version), &event.payload)?;
        }
    }

    writeln!(out, "\nEvery reader gets the events of today, by the steps in evolution.rs:")?;
    for id in &orders {
        for event in stored(shop, id).await? {
            for today in event.decode::<OrderEvent>()? {
                print(out, id, (today.shape().name, today.shape().version), &today.encode()?)?;
            }
        }
    }

    writeln!(out, "\nOrders of every generation are loaded:")?;
    for id in &orders {
        let order = shop.orders.load(id).await?;
        writeln!(out, "  {id} {}", past::described(order.version.get(), &order.state))?;
    }
    writeln!(out, "\nThe second of them takes a command of today:")?;
    let pay = Pay { payment: PaymentId::new("pay-2")?, amount: Money::euro_cents(7_400) };
    let paid = shop.orders.send(&orders[1], pay).await?;
    writeln!(out, "  {} {}\n", orders[1], past::described(paid.version.get(), &paid.state))?;

    past::history(shop, &orders[0], out).await?;
    shop.caught_up(paid.position).await?;
    writeln!(out, "\nOrder list (table order_list), whose projection knows nothing of older events:")?;
    tables::show_list(&shop.views, &Tenant::default(), out).await?;

    let no_lines = Payload::from_json(r#"{"customer": "alice", "lines": []}"#)?;
    let Err(error) = OrderEvent::read("order.placed", 2, &no_lines) else { return Err("it should not be read".into()) };
    let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    writeln!(
        out,
        "\nAn old order without lines could not be read as one of today. It would be reported, never skipped:"
    )?;
    Ok(writeln!(out, "  {error}: {why}")?)
}

async fn stored(shop: &Shop, id: &OrderId) -> Result<Vec<RecordedEvent>, Fault> {
    Ok(shop.store.load_page(&shop.orders.stream(id)?, StreamVersion::NONE, 10).await?.events)
}

fn print(out: &mut dyn Write, id: &OrderId, (name, version): (&str, u32), payload: &Payload) -> Result<(), Fault> {
    let event = format!("{name} v{version}");
    Ok(writeln!(out, "  {id}  {event:<18}  {}", payload.as_str())?)
}
