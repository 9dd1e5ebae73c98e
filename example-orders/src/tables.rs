//! Queries: the read models are plain tables, so this is plain SQL.
//!
//! Two queries are the same for both databases. Two differ, because the databases differ in JSON and times. Both versions
//! are below, and the other code does not depend on the database.

use std::io::Write;

use annals::Tenant;
use annals::postgres::PostgresDatabase;
use annals::sqlite::SqliteDatabase;
use sqlx::{Column, ColumnIndex, Decode, Row, Type};
use tabled::builder::Builder;
use tabled::settings::Style;

use crate::Fault;

const SALES_BY_DAY: &str = "
    SELECT day, currency, CAST(orders AS TEXT) AS orders,
           CASE WHEN revenue < 0 THEN '-' ELSE '' END || CAST(abs(revenue) / 100 AS TEXT) || '.' ||
               substr(CAST(100 + abs(revenue) % 100 AS TEXT), 2) AS revenue,
           CASE orders WHEN 0 THEN '-' ELSE
               CAST(ordered / orders / 100 AS TEXT) || '.' || substr(CAST(100 + ordered / orders % 100 AS TEXT), 2)
           END AS average
    FROM daily_sales
    ORDER BY day DESC, currency
    LIMIT 7
";

const STATEMENT: &str = "
    SELECT customer, CAST(orders AS TEXT) AS orders, CAST(ordered AS TEXT) AS ordered, CAST(granted AS TEXT) AS granted,
           CAST(charged AS TEXT) AS charged
    FROM customer_statement
    WHERE tenant = 'default' AND granted > 0
    ORDER BY customer
";

/// The queries that differ.
struct Dialect {
    detail_of: &'static str,
    latest_orders: &'static str,
}

const SQLITE: Dialect = Dialect {
    detail_of: "
        SELECT order_id AS \"order\", customer, status,
               (SELECT group_concat(value ->> 'quantity' || ' x ' || (value ->> 'product'), ', ')
                FROM json_each(lines)) AS lines,
               printf('%d.%02d', total / 100, total % 100) AS total,
               printf('%d.%02d', paid / 100, paid % 100) AS paid,
               currency, coalesce(carrier || ' ' || tracking, '-') AS parcel
        FROM order_detail
        WHERE tenant = ?1 AND order_id = ?2
        ORDER BY order_id
    ",
    latest_orders: "
        SELECT order_id AS \"order\", customer, status, CAST(pieces AS TEXT) AS pieces,
               printf('%d.%02d', total / 100, total % 100) AS total, currency,
               strftime('%Y-%m-%d %H:%M', placed_at / 1000000, 'unixepoch') AS placed
        FROM order_list
        WHERE tenant = ?1
        ORDER BY placed_at DESC, order_id DESC
        LIMIT 12
    ",
};

const POSTGRES: Dialect = Dialect {
    detail_of: "
        SELECT order_id AS \"order\", customer, status,
               (SELECT string_agg(line ->> 'quantity' || ' x ' || (line ->> 'product'), ', ' ORDER BY n)
                FROM jsonb_array_elements(lines) WITH ORDINALITY AS l (line, n)) AS lines,
               to_char(total / 100.0, 'FM999999999999990.00') AS total,
               to_char(paid / 100.0, 'FM999999999999990.00') AS paid,
               currency, coalesce(carrier || ' ' || tracking, '-') AS parcel
        FROM order_detail
        WHERE tenant = $1 AND order_id = $2
        ORDER BY order_id
    ",
    latest_orders: "
        SELECT order_id AS \"order\", customer, status, CAST(pieces AS TEXT) AS pieces,
               to_char(total / 100.0, 'FM999999999999990.00') AS total, currency,
               to_char(placed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS placed
        FROM order_list
        WHERE tenant = $1
        ORDER BY placed_at DESC, order_id DESC
        LIMIT 12
    ",
};

/// The tables of the read models.
pub enum Tables {
    /// In a SQLite file.
    Sqlite(SqliteDatabase),
    /// In a PostgreSQL database.
    Postgres(PostgresDatabase),
}

impl Tables {
    /// Prints one order and the latest orders of the default shop, and the sales by day.
    pub async fn show(&self, order: &str, out: &mut dyn Write) -> Result<(), Fault> {
        let shop = Tenant::default();
        let detail = self.query(self.dialect().detail_of, &[shop.as_str(), order]).await?;
        writeln!(out, "\nOrder detail (table order_detail), as the customer sees it:\n{}", detail.into_table())?;
        writeln!(out, "\nOrder list (table order_list), as the staff see it, latest first:")?;
        self.show_list(&shop, out).await?;
        self.show_sales(out).await
    }

    /// Prints the latest orders of one shop.
    pub async fn show_list(&self, shop: &Tenant, out: &mut dyn Write) -> Result<(), Fault> {
        let list = self.query(self.dialect().latest_orders, &[shop.as_str()]).await?;
        Ok(writeln!(out, "{}", list.into_table())?)
    }

    /// Prints the sales of all shops by day.
    pub async fn show_sales(&self, out: &mut dyn Write) -> Result<(), Fault> {
        let days = self.query(SALES_BY_DAY, &[]).await?;
        writeln!(out, "\nSales by day (table daily_sales), as the owner sees them:\n{}", days.into_table())?;
        Ok(())
    }

    /// Prints what customers with credit have ordered and charged.
    pub async fn show_statement(&self, out: &mut dyn Write) -> Result<(), Fault> {
        let statement = self.query(STATEMENT, &[]).await?.into_table();
        Ok(writeln!(out, "\nStatement (table customer_statement), from the events of both, in cents:\n{statement}")?)
    }

    fn dialect(&self) -> &'static Dialect {
        match self {
            Self::Sqlite(_) => &SQLITE,
            Self::Postgres(_) => &POSTGRES,
        }
    }

    async fn query(&self, sql: &'static str, values: &[&str]) -> Result<Found, Fault> {
        match self {
            Self::Sqlite(database) => {
                let query = values.iter().fold(sqlx::query(sql), |query, value| query.bind(value.to_string()));
                Found::of(&query.fetch_all(&mut *database.read().await?).await?)
            }
            Self::Postgres(database) => {
                let query = values.iter().fold(sqlx::query(sql), |query, value| query.bind(value.to_string()));
                Found::of(&query.fetch_all(&mut *database.read().await?).await?)
            }
        }
    }
}

/// The result of a query. Every column is text, as it is printed.
struct Found {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Found {
    fn of<R: Row>(rows: &[R]) -> Result<Self, Fault>
    where
        usize: ColumnIndex<R>,
        String: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    {
        let columns = rows.first().map(|row| row.columns().iter().map(|c| c.name().to_owned()).collect());
        let texts = rows.iter().map(|row| (0..row.len()).map(|at| row.try_get(at)).collect());
        Ok(Self { columns: columns.unwrap_or_default(), rows: texts.collect::<Result<_, sqlx::Error>>()? })
    }

    fn into_table(self) -> String {
        let mut table = Builder::default();
        table.push_record(self.columns);
        for row in self.rows {
            table.push_record(row);
        }
        table.build().with(Style::sharp()).to_string()
    }
}
