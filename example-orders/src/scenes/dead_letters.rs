//! The scene `-- dead-letters`: a build with a fault cannot show every order in the list. Such an order is set aside with its
//! later events, and the others go on.
//!
//! Without `.dead_letter()` the list would stop at the first such event, for all orders. Nothing is lost either way: the events
//! are in the log, and only the rows of one read model wait for a fix.

use std::io::Write;

use annals::projections::{DeadLetter, ProjectionState, Retried};
use annals::{
    Aggregate, Position, ProjectionError, ProjectionsBuilder, Recorded, StreamId, StreamProjection, StreamRow, Tenant,
};

use crate::Fault;
use crate::domain::money::Money;
use crate::domain::order::OrderCommand::{Cancel, Pay, Place};
use crate::domain::order::{CustomerId, Line, Order, OrderCommand, OrderEvent, OrderId, PaymentId};
use crate::location::Location;
use crate::read_models::list::{Listed, OrderList};
use crate::shop::Shop;

/// The list as last week's build has it. It keeps the pieces of a line in a byte, which is a fault.
struct LastWeeksList;

impl StreamProjection for LastWeeksList {
    type Event = OrderEvent;
    type Row = Listed;
    const AGGREGATES: &'static [&'static str] = OrderList::AGGREGATES;

    fn apply(&self, event: &Recorded<OrderEvent>, row: &mut StreamRow<Listed>) -> Result<(), ProjectionError> {
        if let OrderEvent::Placed { lines, .. } = &event.event {
            for Line { product, quantity, .. } in lines {
                u8::try_from(*quantity).map_err(|_| {
                    ProjectionError::new(format!("{quantity} pieces of `{product}` do not fit in a byte"))
                })?;
            }
        }
        OrderList.apply(event, row)
    }
}

fn with_fault(views: ProjectionsBuilder) -> ProjectionsBuilder {
    views.with(LastWeeksList.dead_letter())
}

/// Runs the scene with orders from `number` on, and prints to `out` what happens.
pub async fn play(location: &Location, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    let orders = [0, 1, 2].map(|i| OrderId::new(format!("o-{}", number + i)));
    let [cup, wedding, test] = orders;
    let orders = [cup?, wedding?, test?];
    let shop = Shop::open_with(location, with_fault).await?;
    let played = before_the_fix(&shop, &orders, out).await;
    shop.close().await?;
    played?;
    let shop = Shop::open(location).await?;
    let played = after_the_fix(&shop, &orders, out).await;
    shop.close().await?;
    played
}

async fn before_the_fix(shop: &Shop, orders: &[OrderId; 3], out: &mut dyn Write) -> Result<(), Fault> {
    let [cup, wedding, test] = orders;
    writeln!(
        out,
        "Alice orders a cup, Bob 300 of them for a wedding, and a test of the shop's speed 100000, which it cancels."
    )?;
    send(shop, cup, place("alice", 1)?).await?;
    send(shop, wedding, place("bob", 300)?).await?;
    send(shop, wedding, pay(wedding, 300)?).await?;
    send(shop, test, place("test", 100_000)?).await?;
    let last = send(shop, test, Cancel { reason: "a test".into() }).await?;

    writeln!(out, "\nThe build that runs cannot list the large ones. They are set aside, and the list goes on:")?;
    shop.caught_up(last).await?;
    print_list(shop, orders, out).await?;
    writeln!(out, "\nThe dead letters, with the reason and what waits behind:")?;
    print_dead_letters(shop, out).await?;
    let health = shop.views.health().await;
    let list = health.iter().find(|health| *health.name == *OrderList::NAME).ok_or("the list runs")?;
    writeln!(out, "A supervisor is told: {}.", list.verdict)?;

    writeln!(out, "\nA retry with the same build changes nothing, and says why.")?;
    retry(shop, wedding, out).await?;

    writeln!(
        out,
        "\nNobody waits for the cups of the test. Its events are dropped, which is stored with a name and a reason."
    )?;
    let dropped =
        shop.views.drop_dead_letter::<OrderList>(&stream(test)?, "alice", "a test of the shop's speed").await?;
    writeln!(out, "  {test}  {}", if dropped { "dropped" } else { "was not parked" })?;

    writeln!(
        out,
        "\nBefore the fixed build is deployed, the list is paused: no row changes, whichever process runs it."
    )?;
    shop.views.pause::<OrderList>("alice, for a copy of the table").await?;
    let all = shop.until(|all| all.iter().any(|s| matches!(s.state, ProjectionState::Paused { .. }))).await?;
    for status in all {
        if let ProjectionState::Paused { by, .. } = status.state {
            writeln!(out, "  {}  is paused by {by}", status.name)?;
        }
    }
    let paid = send(shop, cup, pay(cup, 1)?).await?;
    print_list(shop, &orders[..1], out).await?;
    writeln!(out, "Alice has paid, and when the list is resumed it says so.")?;
    shop.views.resume::<OrderList>().await?;
    shop.caught_up(paid).await?;
    print_list(shop, &orders[..1], out).await
}

async fn after_the_fix(shop: &Shop, orders: &[OrderId; 3], out: &mut dyn Write) -> Result<(), Fault> {
    let [cup, wedding, test] = orders;
    writeln!(out, "\nThe fixed build runs. What is parked stays parked, until somebody retries it.")?;
    print_dead_letters(shop, out).await?;
    retry(shop, wedding, out).await?;
    retry(shop, test, out).await?;
    writeln!(out, "\nBob's order is in the list, with its payment; the dropped one never will be.")?;
    print_list(shop, &[cup.clone(), wedding.clone(), test.clone()], out).await
}

async fn retry(shop: &Shop, order: &OrderId, out: &mut dyn Write) -> Result<(), Fault> {
    match shop.views.retry::<OrderList>(&stream(order)?).await? {
        Retried::Reopened { events } => writeln!(out, "  {order}  reopened: {events} events were applied, in order")?,
        Retried::StillParked(letter) => writeln!(out, "  {order}  is still parked: {}", letter.reason)?,
        Retried::NothingParked => writeln!(out, "  {order}  is not parked")?,
        other => return Err(format!("an answer that this build does not know: {other:?}").into()),
    }
    Ok(())
}

async fn print_dead_letters(shop: &Shop, out: &mut dyn Write) -> Result<(), Fault> {
    for DeadLetter { event, reason, waiting, .. } in shop.views.dead_letters::<OrderList>().await? {
        let order = event.stream.aggregate_id();
        writeln!(out, "  {order}  {} ({}), {waiting} waiting: {reason}", event.name, event.version)?;
    }
    Ok(())
}

async fn print_list(shop: &Shop, orders: &[OrderId], out: &mut dyn Write) -> Result<(), Fault> {
    let rows = shop.views.find_many_of_tenant::<OrderList>(&Tenant::default(), orders).await?;
    for (order, row) in orders.iter().zip(rows) {
        match row {
            Some(Listed { status, pieces, .. }) => writeln!(out, "  {order}  {status}, pieces: {pieces}")?,
            None => writeln!(out, "  {order}  is not in the list")?,
        }
    }
    Ok(())
}

fn stream(order: &OrderId) -> Result<StreamId, annals::Invalid> {
    StreamId::new(Tenant::default(), Order::TYPE, order.as_str())
}

async fn send(shop: &Shop, order: &OrderId, command: OrderCommand) -> Result<Position, Fault> {
    Ok(shop.orders.send(order, command).await?.position)
}

fn place(customer: &str, quantity: u32) -> Result<OrderCommand, Fault> {
    let lines = vec![Line { product: "espresso cup".to_owned(), quantity, price: Money::euro_cents(1_250) }];
    Ok(Place { customer: CustomerId::new(customer)?, lines })
}

fn pay(order: &OrderId, cups: i64) -> Result<OrderCommand, Fault> {
    Ok(Pay { payment: PaymentId::new(format!("pay-{order}"))?, amount: Money::euro_cents(cups * 1_250) })
}
