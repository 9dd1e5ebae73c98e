//! The scene `-- on-account`: one command over two aggregates. An order is placed and charged to the customer's credit, or
//! neither.

use std::io::Write;

use annals::{Context, Decide, ExecuteError, Executed, Fingerprint, RequestKey, prelude::*};

use crate::Fault;
use crate::domain::credit::{Credit, CreditError};
use crate::domain::money::Money;
use crate::domain::order::{CustomerId, Line, Order, OrderCommand, OrderError, OrderId, total_of};
use crate::scenes::tables;
use crate::shop::Shop;

/// Why an order is not placed on account: one of the two aggregates rejects it.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The order rejects it.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The credit rejects it.
    #[error(transparent)]
    Credit(#[from] CreditError),
}

/// Places `order` for `customer` and charges it to the customer's credit. The same `form` again has no second effect.
pub async fn place_on_account(
    shop: &Shop,
    form: &str,
    order: &OrderId,
    customer: &CustomerId,
    lines: &[Line],
) -> Result<(Executed<Order>, Executed<Credit>), ExecuteError<Refused>> {
    let place = OrderCommand::Place { customer: customer.clone(), lines: lines.to_vec() };
    let request = RequestKey::new(form, Fingerprint::of(&(order, customer, lines))?)?;
    let context = Context::default().with_request(request);
    let (orders, credits) = ((&shop.orders, order), (&shop.credits, customer));
    shop.store
        .execute_two(&context, orders, credits, |placing, credit| {
            let placed = placing.decide(&place)?;
            let charged = credit.charge(order.clone(), total_of(lines)?)?;
            Ok((placed, charged))
        })
        .await
}

/// Runs the scene with orders from `number` on, and prints to `out` what happens.
pub async fn play(shop: &Shop, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    let carol = CustomerId::new("carol")?;
    let order = |n: i64| OrderId::new(format!("o-{}", number + n));
    let price = Money::euro_cents(12_900);
    let grinders = |quantity| [Line { product: "grinder".to_owned(), quantity, price }];

    writeln!(out, "The shop grants Carol 200.00 EUR of credit.")?;
    let granted = shop.credits.execute(&carol, |credit| credit.grant(Money::euro_cents(20_000))).await?;
    print(out, "granted", &granted)?;

    writeln!(
        out,
        "\nCarol orders a grinder on account and clicks twice. Both streams get their event in one append, once."
    )?;
    let (first, form) = (order(0)?, format!("form-{number}"));
    let mut left = 0;
    for _ in 0..2 {
        let (placed, charged) = place_on_account(shop, &form, &first, &carol, &grinders(1)).await?;
        print(out, "placed", &placed)?;
        print(out, "charged", &charged)?;
        // The answer has the state after the events, also for a repeat.
        left = charged.state.left.map_or(0, |left| left.minor);
    }

    writeln!(
        out,
        "\nShe orders more than her credit pays for. It rejects the command, so the order is not placed either."
    )?;
    let too_many = grinders(u32::try_from(left / price.minor + 1)?);
    let second = order(1)?;
    match place_on_account(shop, &format!("form-{}", number + 1), &second, &carol, &too_many).await {
        Err(ExecuteError::Rejected(Refused::Credit(why))) => writeln!(out, "  {second}  rejected: {why}")?,
        other => return Err(format!("an order was placed without credit: {other:?}").into()),
    }
    let nothing = shop.orders.load(&second).await?;
    writeln!(out, "  {second}  has {} events", nothing.version.get())?;

    shop.caught_up(shop.store.head().await?.position).await?;
    tables::show_statement(&shop.views, out).await
}

fn print<A>(out: &mut dyn Write, what: &str, done: &Executed<A>) -> Result<(), Fault> {
    let again = if done.repeated { "  (the same form again: nothing new)" } else { "" };
    let stream = format!("{} {}", done.stream.aggregate_type(), done.stream.aggregate_id());
    Ok(writeln!(out, "  {stream:<13} {what:<8} {}, position {}{again}", done.version, done.position)?)
}
