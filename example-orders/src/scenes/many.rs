//! Many concurrent orders, as before the holidays.

use std::io::Write;
use std::time::Instant;

use futures::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};

use crate::Fault;
use crate::domain::money::Money;
use crate::domain::order::OrderCommand::{Deliver, Pay, Place, Reserve, Ship};
use crate::domain::order::{CustomerId, Line, OrderId, PaymentId};
use crate::shop::Shop;

/// The number of concurrent orders.
const AT_ONCE: usize = 128;
/// Events of one order here: placed, paid, reserved, shipped, delivered.
const STEPS: u64 = 5;

/// Runs `orders` orders from placed to delivered, with numbers from `first` on, and prints the rate to `out`.
pub async fn play(shop: &Shop, first: i64, orders: u64, out: &mut dyn Write) -> Result<(), Fault> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} orders  {per_sec}  {eta} left")?;
    let bar = ProgressBar::new(orders).with_style(style);
    let start = Instant::now();
    let last = stream::iter(0..orders)
        .map(|n| {
            let bar = bar.clone();
            async move {
                let position = order(shop, first.saturating_add_unsigned(n)).await?;
                bar.inc(1);
                Ok::<_, Fault>(position)
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_fold(annals::Position::START, |last, position| async move { Ok(last.max(position)) })
        .await?;
    bar.finish();
    let appended = start.elapsed().as_secs_f64();
    shop.caught_up(last).await?;
    let shown = start.elapsed().as_secs_f64();
    let rate = |seconds: f64| (orders * STEPS) as f64 / seconds.max(f64::EPSILON);
    writeln!(out, "{orders} orders, {} events: {:.0} events/s durable on disk,", orders * STEPS, rate(appended))?;
    let later = (shown - appended) * 1e3;
    Ok(writeln!(out, "and visible in all read models {later:.0} ms after the last append.")?)
}

async fn order(shop: &Shop, number: i64) -> Result<annals::Position, Fault> {
    let id = OrderId::new(format!("o-{number}"))?;
    let customer = CustomerId::new(format!("customer-{}", number % 1_000))?;
    let price = Money::euro_cents(500 + number % 9_500);
    let lines = vec![Line { product: "coffee".to_owned(), quantity: 1, price }];
    let payment = PaymentId::new(format!("pay-{number}"))?;
    let orders = &shop.orders;
    orders.send(&id, Place { customer, lines }).await?;
    orders.send(&id, Pay { payment, amount: price }).await?;
    orders.send(&id, Reserve { warehouse: "north".into() }).await?;
    orders.send(&id, Ship { carrier: "snail".into(), tracking: format!("SN-{number}") }).await?;
    Ok(orders.send(&id, Deliver { signed_by: "the customer".into() }).await?.position)
}
