//! The scene: four orders of two customers, step by step.
//!
//! Each step is one command. `send` loads the order, lets it decide, and appends the events. After a conflict it reads the
//! new events and decides again. `send_once` does so under a key, so that a command that is sent again has no second effect.

use std::io::Write;

use annals::{Actor, AsOf, Context, ExecuteError, Executed};

use crate::Fault;
use crate::domain::money::Money;
use crate::domain::order::OrderCommand::{Cancel, Deliver, Pay, Place, Reserve, Ship};
use crate::domain::order::{CustomerId, Line, Order, OrderError, OrderId, PaymentId};
use crate::scenes::tables;
use crate::shop::Shop;

/// Runs the scene with orders from `number` on, and prints to `out` what happens.
pub async fn play(shop: &Shop, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    let orders = &shop.orders;
    let (alice, bob) = (CustomerId::new("alice")?, CustomerId::new("bob")?);
    let [first, second, third, fourth] = [0, 1, 2, 3].map(|i| OrderId::new(format!("o-{}", number + i)));
    let (first, second, third, fourth) = (first?, second?, third?, fourth?);
    let pay = |i, cents| -> Result<_, Fault> {
        Ok(Pay { payment: PaymentId::new(format!("pay-{}", number + i))?, amount: Money::euro_cents(cents) })
    };

    writeln!(out, "Alice orders two cups and a kettle, and all goes well.")?;
    let lines = vec![line("espresso cup", 2, 1_250), line("kettle", 1, 4_900)];
    print(out, "placed", orders.send(&first, Place { customer: alice.clone(), lines }).await?)?;
    print(out, "paid", orders.send(&first, pay(0, 7_400)?).await?)?;
    print(out, "reserved", orders.send(&first, Reserve { warehouse: "north".into() }).await?)?;
    print(out, "shipped", orders.send(&first, Ship { carrier: "snail".into(), tracking: "SN-1".into() }).await?)?;
    print(out, "delivered", orders.send(&first, Deliver { signed_by: "alice".into() }).await?)?;

    writeln!(out, "\nBob orders a grinder. The warehouse is too quick, and Bob clicks twice.")?;
    let lines = vec![line("grinder", 1, 12_900)];
    print(out, "placed", orders.send(&second, Place { customer: bob.clone(), lines }).await?)?;
    let parcel = Ship { carrier: "snail".into(), tracking: "SN-2".into() };
    match orders.send(&second, parcel.clone()).await {
        Err(ExecuteError::Rejected(no @ OrderError::NotNow { .. })) => writeln!(out, "  {second}  refused: {no}")?,
        other => return Err(format!("a parcel left before it was paid: {other:?}").into()),
    }
    // The browser sends the key with the form, so the second click is the same request and gets the first answer.
    let from_bob = orders.with(Context::default().with_actor(Actor::new("bob")?));
    for _ in 0..2 {
        let form = format!("pay-form-{second}");
        print(out, "paid", from_bob.send_once(&second, form, pay(1, 12_900)?).await?)?;
    }
    print(out, "reserved", orders.send(&second, Reserve { warehouse: "south".into() }).await?)?;
    print(out, "shipped", orders.send(&second, parcel).await?)?;

    writeln!(out, "\nAlice orders a teapot, pays, and changes her mind: the refund is part of the cancellation.")?;
    let lines = vec![line("teapot", 1, 3_500)];
    print(out, "placed", orders.send(&third, Place { customer: alice.clone(), lines }).await?)?;
    print(out, "paid", orders.send(&third, pay(2, 3_500)?).await?)?;
    let reason = "found one at home".into();
    print(out, "cancelled, refunded", orders.send(&third, Cancel { reason }).await?)?;
    // Every state that the order has had is still there, as it follows from the events.
    let then = shop.orders.as_of(&third, AsOf::version(2)).await?;
    let paid = then.state.paid.as_ref().map_or(0, |(_, paid)| paid.minor);
    writeln!(out, "  {third}  at version 2 was {}, and {paid} cents were paid", then.state.status)?;

    writeln!(out, "\nBob orders filter papers and goes to sleep.")?;
    let lines = vec![line("filter papers", 3, 420)];
    let last = orders.send(&fourth, Place { customer: bob.clone(), lines }).await?;
    let position = last.position;
    print(out, "placed", last)?;

    // Read your own write: the tables below show everything up to this position.
    shop.caught_up(position).await?;
    tables::show(&shop.views, &first, out).await
}

fn line(product: &str, quantity: u32, cents: i64) -> Line {
    Line { product: product.to_owned(), quantity, price: Money::euro_cents(cents) }
}

fn print(out: &mut dyn Write, what: &str, done: Executed<Order>) -> Result<(), Fault> {
    let again = if done.repeated { "  (the same request again: nothing new)" } else { "" };
    let (order, version, position) = (done.stream.aggregate_id(), done.version.get(), done.position);
    Ok(writeln!(out, "  {order}  {what:<20} version {version}, position {position}{again}")?)
}
