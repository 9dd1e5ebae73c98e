//! The scenes `-- history`, `-- as-of` and `-- list --as-of`: one order, its line in the list, and the whole list, as they were.
//!
//! Nothing is kept for it beside the events. A time means all that was stored before the first event that was recorded after
//! it, in whole appends.

use std::io::Write;

use annals::{AsOf, EventStore, Tenant};
use jiff::Timestamp;
use tabled::builder::Builder;
use tabled::settings::Style;

use crate::Fault;
use crate::domain::money::Money;
use crate::domain::order::{Order, OrderId};
use crate::read_models::list::{Listed, OrderList};
use crate::shop::Shop;

/// Prints each event of an order with what it changed.
pub async fn history(shop: &Shop, order: &OrderId, out: &mut dyn Write) -> Result<(), Fault> {
    let history = shop.orders.history(order).await?;
    writeln!(out, "The history of {order}, {} events:", history.len())?;
    for step in history {
        let (version, time) = (step.event.version.get(), minutes(step.event.recorded_at));
        writeln!(out, "  {version:>3}  {time}  {}", step.event.name)?;
        for change in step.changed {
            writeln!(out, "         {change}")?;
        }
    }
    Ok(())
}

/// Prints an order as it was and as it is, and its line in the list as it was.
pub async fn as_of(shop: &Shop, order: &OrderId, time: Timestamp, out: &mut dyn Write) -> Result<(), Fault> {
    let then = shop.orders.as_of(order, AsOf::time(time)).await?;
    let now = shop.orders.load(order).await?;
    writeln!(out, "  {}  {order} {}", minutes(time), described(then.version.get(), &then.state))?;
    writeln!(out, "  now               {order} {}", described(now.version.get(), &now.state))?;
    // The position of one answer asks for the same moment elsewhere. For one line of the list the events of one order are read.
    let listed =
        shop.views.find_of_tenant_as_of::<OrderList>(&Tenant::default(), order, AsOf::position(then.position)).await?;
    match listed.row {
        Some(row) => writeln!(out, "  in the list then, as of position {}:\n{}", listed.position, table(&[row]))?,
        None => writeln!(out, "  not in the list then, as of position {}", listed.position)?,
    }
    Ok(())
}

/// Prints the list of orders as it was and as it is.
pub async fn list(shop: &Shop, time: Timestamp, out: &mut dyn Write) -> Result<(), Fault> {
    let then = shop.views.as_of::<OrderList>(AsOf::time(time)).await?;
    writeln!(out, "Order list as of {}, position {}:\n{}", minutes(time), then.position, table(&then.rows))?;
    let head = shop.store.head().await?;
    let now = shop.views.as_of::<OrderList>(head.into()).await?;
    writeln!(out, "\nOrder list now, position {}:\n{}", now.position, table(&now.rows))?;
    Ok(())
}

/// What there is to say of an order in one line.
pub fn described(version: i64, order: &Order) -> String {
    let total = order.total.map_or_else(|| "-".to_owned(), |total| total.to_string());
    let paid = if order.paid.is_some() { "paid" } else { "not paid" };
    format!("is {}, {total}, {paid} (version {version})", order.status)
}

fn table(orders: &[Listed]) -> String {
    let mut table = Builder::default();
    table.push_record(["order", "customer", "status", "pieces", "total"]);
    for order in orders {
        let total = Money { minor: order.total, currency: order.currency }.to_string();
        let (id, customer) = (order.order_id.to_string(), order.customer.to_string());
        table.push_record([id, customer, order.status.to_string(), order.pieces.to_string(), total]);
    }
    table.build().with(Style::sharp()).to_string()
}

fn minutes(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M").to_string()
}
