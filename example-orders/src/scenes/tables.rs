//! Queries: rows of the read models by their key, and by a condition, in the types that the folds write.
//!
//! The texts are the same for both databases. A query that needs more is SQL of one's own: read models are plain tables, and the
//! program prints a command that shows one.

use std::io::Write;

use annals::{Projections, Tenant};
use jiff::tz::Offset;
use tabled::builder::Builder;
use tabled::settings::Style;

use crate::Fault;
use crate::domain::money::decimal;
use crate::domain::order::OrderId;
use crate::read_models::analytics::{DailySales, Day};
use crate::read_models::detail::{Detail, OrderDetail};
use crate::read_models::list::{Listed, OrderList};
use crate::read_models::statement::{CustomerStatement, Statement};

/// Prints one order and the latest orders of the default shop, and the sales by day.
pub async fn show(views: &Projections, order: &OrderId, out: &mut dyn Write) -> Result<(), Fault> {
    let shop = Tenant::default();
    let detail = views.find_of_tenant::<OrderDetail>(&shop, order).await?;
    let header = ["order", "customer", "status", "lines", "total", "paid", "currency", "parcel"];
    let detail = table(header, detail.into_iter().map(detail_cells));
    writeln!(out, "\nOrder detail (table order_detail), as the customer sees it:\n{detail}")?;
    writeln!(out, "\nOrder list (table order_list), as the staff see it, latest first:")?;
    show_list(views, &shop, out).await?;
    show_sales(views, out).await
}

/// Prints the latest orders of one shop. Whatever the text says, it sees no rows of another.
pub async fn show_list(views: &Projections, shop: &Tenant, out: &mut dyn Write) -> Result<(), Fault> {
    let latest = "ORDER BY placed_at DESC, order_id DESC LIMIT 12";
    let list = views.select_of_tenant::<OrderList>(shop, latest, &[]).await?;
    let header = ["order", "customer", "status", "pieces", "total", "currency", "placed"];
    Ok(writeln!(out, "{}", table(header, list.into_iter().map(listed_cells)))?)
}

/// Prints the sales of all shops by day.
pub async fn show_sales(views: &Projections, out: &mut dyn Write) -> Result<(), Fault> {
    let days = views.select::<DailySales>("ORDER BY day DESC, currency LIMIT 7", &[]).await?;
    let days = table(["day", "currency", "orders", "revenue", "average"], days.into_iter().map(day_cells));
    Ok(writeln!(out, "\nSales by day (table daily_sales), as the owner sees them:\n{days}")?)
}

/// Prints what customers with credit have ordered and charged.
pub async fn show_statement(views: &Projections, out: &mut dyn Write) -> Result<(), Fault> {
    let all = views
        .select_of_tenant::<CustomerStatement>(&Tenant::default(), "granted > $1 ORDER BY customer, currency", &[&0])
        .await?;
    let cells = |row: Statement| {
        let numbers = [row.orders, row.ordered, row.granted, row.charged].map(|number| number.to_string());
        let [orders, ordered, granted, charged] = numbers;
        [row.customer.to_string(), row.currency.to_string(), orders, ordered, granted, charged]
    };
    let all = table(["customer", "currency", "orders", "ordered", "granted", "charged"], all.into_iter().map(cells));
    Ok(writeln!(out, "\nStatement (table customer_statement), from the events of both, in cents:\n{all}")?)
}

fn detail_cells(row: Detail) -> [String; 8] {
    let lines: Vec<String> = row.lines.iter().map(|line| format!("{} x {}", line.quantity, line.product)).collect();
    let parcel =
        row.carrier.zip(row.tracking).map_or("-".to_owned(), |(carrier, number)| format!("{carrier} {number}"));
    [
        row.order_id.to_string(),
        row.customer.to_string(),
        row.status.to_string(),
        lines.join(", "),
        decimal(row.total),
        decimal(row.paid),
        row.currency.to_string(),
        parcel,
    ]
}

fn listed_cells(row: Listed) -> [String; 7] {
    [
        row.order_id.to_string(),
        row.customer.to_string(),
        row.status.to_string(),
        row.pieces.to_string(),
        decimal(row.total),
        row.currency.to_string(),
        Offset::UTC.to_datetime(row.placed_at).strftime("%Y-%m-%d %H:%M").to_string(),
    ]
}

fn day_cells(row: Day) -> [String; 5] {
    let average = row.ordered.checked_div(row.orders).map_or("-".to_owned(), decimal);
    [row.day.to_string(), row.currency, row.orders.to_string(), decimal(row.revenue), average]
}

fn table<const COLUMNS: usize>(header: [&str; COLUMNS], rows: impl Iterator<Item = [String; COLUMNS]>) -> String {
    let mut table = Builder::default();
    table.push_record(header);
    rows.for_each(|row| table.push_record(row));
    table.build().with(Style::sharp()).to_string()
}
