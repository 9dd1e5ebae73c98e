//! The scene: four orders of two customers, step by step.
//!
//! Each step is one command. `execute` loads the order, calls the decision, and appends its events. After a
//! conflict it reads the new events and decides again.

use std::io::Write;

use annals::{Actor, AsOf, Context, ExecuteError, Executed, Fingerprint, RequestKey};

use crate::Fault;
use crate::money::Money;
use crate::order::{CustomerId, Line, OrderError, OrderId, PaymentId};
use crate::shop::Shop;

/// Runs the scene and prints to `out` what happens.
pub async fn play(shop: &Shop, out: &mut dyn Write) -> Result<(), Fault> {
    let number = shop.tables.next_number().await?;
    let (alice, bob) = (CustomerId::new("alice")?, CustomerId::new("bob")?);
    let [first, second, third, fourth] = [0, 1, 2, 3].map(|i| OrderId::new(format!("o-{}", number + i)));
    let (first, second, third, fourth) = (first?, second?, third?, fourth?);

    writeln!(out, "Alice orders two cups and a kettle, and all goes well.")?;
    let lines = vec![line("espresso cup", 2, 1_250), line("kettle", 1, 4_900)];
    let total = Money::euro_cents(7_400);
    print(out, "placed", shop.orders.execute(&first, |order| order.place(alice.clone(), lines.clone())).await?)?;
    let payment = PaymentId::new(format!("pay-{number}"))?;
    print(out, "paid", shop.orders.execute(&first, |order| order.pay(payment.clone(), total)).await?)?;
    print(out, "reserved", shop.orders.execute(&first, |order| order.reserve("north")).await?)?;
    print(out, "shipped", shop.orders.execute(&first, |order| order.ship("snail", "SN-1")).await?)?;
    print(out, "delivered", shop.orders.execute(&first, |order| order.deliver("alice")).await?)?;

    writeln!(out, "\nBob orders a grinder. The warehouse is too quick, and Bob clicks twice.")?;
    let lines = vec![line("grinder", 1, 12_900)];
    let total = Money::euro_cents(12_900);
    print(out, "placed", shop.orders.execute(&second, |order| order.place(bob.clone(), lines.clone())).await?)?;
    match shop.orders.execute(&second, |order| order.ship("snail", "SN-2")).await {
        Err(ExecuteError::Rejected(no @ OrderError::NotNow { .. })) => writeln!(out, "  {second}  refused: {no}")?,
        other => return Err(format!("a parcel left before it was paid: {other:?}").into()),
    }
    // The browser sends the key with the form, so the second click is the same request and gets the first answer.
    let payment = PaymentId::new(format!("pay-{}", number + 1))?;
    let click = RequestKey::new(format!("pay-form-{second}"), Fingerprint::of(&(&payment, total))?)?;
    let from_bob = shop.orders.with(Context::default().with_actor(Actor::new("bob")?).with_request(click));
    for _ in 0..2 {
        print(out, "paid", from_bob.execute(&second, |order| order.pay(payment.clone(), total)).await?)?;
    }
    print(out, "reserved", shop.orders.execute(&second, |order| order.reserve("south")).await?)?;
    print(out, "shipped", shop.orders.execute(&second, |order| order.ship("snail", "SN-2")).await?)?;

    writeln!(out, "\nAlice orders a teapot, pays, and changes her mind: the refund is part of the cancellation.")?;
    let lines = vec![line("teapot", 1, 3_500)];
    let payment = PaymentId::new(format!("pay-{}", number + 2))?;
    print(out, "placed", shop.orders.execute(&third, |order| order.place(alice.clone(), lines.clone())).await?)?;
    let total = Money::euro_cents(3_500);
    print(out, "paid", shop.orders.execute(&third, |order| order.pay(payment.clone(), total)).await?)?;
    print(out, "cancelled, refunded", shop.orders.execute(&third, |order| order.cancel("found one at home")).await?)?;
    // Every state that the order has had is still there, as it follows from the events.
    let then = shop.orders.as_of(&third, AsOf::version(2)).await?;
    let paid = then.state.paid.as_ref().map_or(0, |(_, paid)| paid.minor);
    writeln!(out, "  {third}  at version 2 was {}, and {paid} cents were paid", then.state.status)?;

    writeln!(out, "\nBob orders filter papers and goes to sleep.")?;
    let lines = vec![line("filter papers", 3, 420)];
    let last = shop.orders.execute(&fourth, |order| order.place(bob.clone(), lines.clone())).await?;
    let position = last.position;
    print(out, "placed", last)?;

    // Read your own write: the tables below show everything up to this position.
    shop.caught_up(position).await?;
    shop.tables.show(first.as_str(), out).await
}

fn line(product: &str, quantity: u32, cents: i64) -> Line {
    Line { product: product.to_owned(), quantity, price: Money::euro_cents(cents) }
}

fn print(out: &mut dyn Write, what: &str, done: Executed) -> Result<(), Fault> {
    let again = if done.repeated { "  (the same request again: nothing new)" } else { "" };
    let (order, version, position) = (done.stream.aggregate_id(), done.version.get(), done.position);
    Ok(writeln!(out, "  {order}  {what:<20} version {version}, position {position}{again}")?)
}
