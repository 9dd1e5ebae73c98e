//! Reading: the read models are plain tables, so this is plain SQL.

use std::io::Write;

use annals::SqliteStore;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use tabled::builder::Builder;
use tabled::settings::Style;

use crate::Fault;

const NEXT_NUMBER: &str = "
    SELECT 1 + coalesce(max(CAST(substr(order_id, 3) AS INTEGER)), 1000)
    FROM order_list
    ORDER BY 1
";

const DETAIL_OF: &str = "
    SELECT order_id AS \"order\", customer, status,
           (SELECT group_concat(value ->> 'quantity' || ' x ' || (value ->> 'product'), ', ') FROM json_each(lines)) AS lines,
           printf('%d.%02d', total / 100, total % 100) AS total, printf('%d.%02d', paid / 100, paid % 100) AS paid,
           currency, coalesce(carrier || ' ' || tracking, '-') AS parcel
    FROM order_detail
    WHERE order_id = ?1
    ORDER BY order_id
";

const LATEST_ORDERS: &str = "
    SELECT order_id AS \"order\", customer, status, pieces, printf('%d.%02d', total / 100, total % 100) AS total, currency,
           strftime('%Y-%m-%d %H:%M', placed_at / 1000000, 'unixepoch') AS placed
    FROM order_list
    ORDER BY placed_at DESC, order_id DESC
    LIMIT 12
";

const SALES_BY_DAY: &str = "
    SELECT day, currency, orders, printf('%d.%02d', revenue / 100, abs(revenue) % 100) AS revenue,
           printf('%d.%02d', ordered / max(orders, 1) / 100, ordered / max(orders, 1) % 100) AS average
    FROM daily_sales
    ORDER BY day DESC, currency
    LIMIT 7
";

/// The number that the next order gets.
pub async fn next_number(store: &SqliteStore) -> Result<i64, Fault> {
    let mut reader = store.database().read().await?;
    let row = sqlx::query(NEXT_NUMBER).fetch_one(&mut *reader).await?;
    Ok(row.get(0))
}

/// Prints one order, the latest orders, and the sales by day.
pub async fn show(store: &SqliteStore, order: &str, out: &mut dyn Write) -> Result<(), Fault> {
    let mut reader = store.database().read().await?;
    let detail = sqlx::query(DETAIL_OF).bind(order.to_owned()).fetch_all(&mut *reader).await?;
    writeln!(out, "\nOrder detail (table order_detail), as the customer sees it:\n{}", table(&detail)?)?;
    let list = sqlx::query(LATEST_ORDERS).fetch_all(&mut *reader).await?;
    writeln!(out, "\nOrder list (table order_list), as the staff see it, latest first:\n{}", table(&list)?)?;
    let days = sqlx::query(SALES_BY_DAY).fetch_all(&mut *reader).await?;
    writeln!(out, "\nSales by day (table daily_sales), as the owner sees them:\n{}", table(&days)?)?;
    Ok(())
}

fn table(rows: &[SqliteRow]) -> Result<String, Fault> {
    use sqlx::{Column, TypeInfo};
    let mut table = Builder::default();
    if let Some(first) = rows.first() {
        table.push_record(first.columns().iter().map(|column| column.name().to_owned()));
    }
    for row in rows {
        let mut record = Vec::new();
        for column in row.columns() {
            let value = sqlx::Row::try_get_raw(row, column.ordinal())?;
            let integer = sqlx::ValueRef::type_info(&value).name() == "INTEGER";
            record.push(if integer {
                row.get::<i64, _>(column.ordinal()).to_string()
            } else {
                row.get(column.ordinal())
            });
        }
        table.push_record(record);
    }
    Ok(table.build().with(Style::sharp()).to_string())
}
