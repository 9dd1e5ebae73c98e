//! The scene `-- totals`: a read model that is written by SQL of the shop's own, in the transaction that moves its checkpoint.
//!
//! A payment names its order and not the customer, so the statement looks the customer up in a table of its own. The texts are the
//! same for both databases; where they differ, `tx.sqlite()` and `tx.postgres()` give the connection of sqlx. A fold into rows,
//! as in `analytics.rs`, would do here too, and is faster. What this leaves out: a full-text index, say, which no fold can build.

use std::io::Write;

use annals::postgres::PostgresDatabase;
use annals::projections::{ProjectionTransaction, ReadModelDatabase, TransactionProjection};
use annals::sqlite::SqliteDatabase;
use annals::{PostgresOptions, ProjectionError, ProjectionsBuilder, Recorded, TransactionalStore};
use tabled::builder::Builder;
use tabled::settings::Style;

use crate::Fault;
use crate::domain::money::{Money, decimal};
use crate::domain::order::OrderCommand::{Cancel, Pay, Place};
use crate::domain::order::{CustomerId, Line, OrderEvent, OrderId, PaymentId};
use crate::location::Location;
use crate::shop::{self, Shop};

/// What each customer has ordered and paid.
pub struct CustomerTotals;

// The tables of a version carry its number, so that an older build goes on with its own while a newer one builds others.
const MAKE: [&str; 4] = [
    "DROP TABLE IF EXISTS order_customers_v1",
    "DROP TABLE IF EXISTS customer_totals_v1",
    "CREATE TABLE order_customers_v1 (
        tenant TEXT NOT NULL, order_id TEXT NOT NULL, customer TEXT NOT NULL,
        PRIMARY KEY (tenant, order_id)
    )",
    "CREATE TABLE customer_totals_v1 (
        tenant TEXT NOT NULL, customer TEXT NOT NULL, currency TEXT NOT NULL,
        orders BIGINT NOT NULL, paid BIGINT NOT NULL,
        PRIMARY KEY (tenant, customer, currency)
    )",
];

const REMEMBER_CUSTOMER: &str = "
    INSERT INTO order_customers_v1 (tenant, order_id, customer)
    VALUES ($1, $2, $3)
";

const COUNT_ORDER: &str = "
    INSERT INTO customer_totals_v1 AS t (tenant, customer, currency, orders, paid)
    VALUES ($1, $2, $3, 1, 0)
    ON CONFLICT (tenant, customer, currency) DO UPDATE SET orders = t.orders + 1
";

const ADD_PAYMENT: &str = "
    UPDATE customer_totals_v1
    SET paid = paid + $4
    WHERE tenant = $1 AND currency = $3
      AND customer = (SELECT customer FROM order_customers_v1 WHERE tenant = $1 AND order_id = $2)
";

/// What no query of rows by a condition gives: the share of each in the whole.
const BEST_CUSTOMERS: &str = "
    SELECT customer, currency, orders, paid, CAST(100 * paid / sum(paid) OVER (PARTITION BY currency) AS BIGINT) AS percent
    FROM customer_totals_v1
    WHERE tenant = 'default' AND paid > 0
    ORDER BY paid DESC, customer
    LIMIT 5
";

impl TransactionProjection for CustomerTotals {
    type Event = OrderEvent;
    const NAME: &'static str = "customer_totals";

    async fn set_up(&self, tx: &mut ProjectionTransaction<'_>) -> Result<(), ProjectionError> {
        for sql in MAKE {
            tx.execute(sql, &[]).await?;
        }
        Ok(())
    }

    async fn apply(
        &self,
        event: &Recorded<OrderEvent>,
        tx: &mut ProjectionTransaction<'_>,
    ) -> Result<(), ProjectionError> {
        let (tenant, order) = (event.stream.tenant().as_str(), event.stream.aggregate_id());
        let paid = match &event.event {
            OrderEvent::Placed { customer, total, .. } => {
                tx.execute(REMEMBER_CUSTOMER, &[&tenant, &order, customer]).await?;
                tx.execute(COUNT_ORDER, &[&tenant, customer, &total.currency]).await?;
                return Ok(());
            }
            OrderEvent::Paid { amount, .. } => *amount,
            OrderEvent::Refunded { amount, .. } => amount.negated(),
            _ => return Ok(()),
        };
        // A statement that finds no row is no error for the database, but it is one here.
        match tx.execute(ADD_PAYMENT, &[&tenant, &order, &paid.currency, &paid.minor]).await? {
            1 => Ok(()),
            _ => Err(ProjectionError::new(format!("no customer has placed `{order}` in {}", paid.currency))),
        }
    }
}

/// The totals beside the other read models.
pub fn with_totals(views: ProjectionsBuilder) -> ProjectionsBuilder {
    shop::with_list(views).with_transaction(CustomerTotals)
}

/// A customer as the owner sees them: customer, currency, orders, paid, percent.
pub type Best = (String, String, i64, i64, i64);

/// The shop's own queries, for each engine.
pub trait Queries {
    /// The customers who have paid most.
    fn best_customers(&self) -> impl Future<Output = Result<Vec<Best>, Fault>> + Send;
}

impl Queries for SqliteDatabase {
    async fn best_customers(&self) -> Result<Vec<Best>, Fault> {
        Ok(sqlx::query_as(BEST_CUSTOMERS).fetch_all(&mut *self.read().await?).await?)
    }
}

impl Queries for PostgresDatabase {
    async fn best_customers(&self) -> Result<Vec<Best>, Fault> {
        Ok(sqlx::query_as(BEST_CUSTOMERS).fetch_all(&mut *self.read().await?).await?)
    }
}

/// Runs the scene at `location` with orders from `number` on, and prints to `out` what happens.
pub async fn play(location: &Location, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    match location {
        Location::File(path) => play_on(annals::sqlite(path).await?, number, out).await,
        Location::Postgres(url) => play_on(PostgresOptions::new(url).migrate().open().await?, number, out).await,
    }
}

/// The same on a store that is open; it is closed in the end.
pub async fn play_on<S>(store: S, number: i64, out: &mut dyn Write) -> Result<(), Fault>
where
    S: TransactionalStore<Database: ReadModelDatabase + Queries>,
{
    let shop = Shop::over_with(store.clone(), with_totals).await?;
    writeln!(out, "Alice and Bob order and pay; Alice's second order is cancelled and refunded.")?;
    order(&shop, number, "alice", 12_900).await?;
    order(&shop, number + 1, "bob", 4_300).await?;
    let cancelled = order(&shop, number + 2, "alice", 2_100).await?;
    let done = shop.orders.send(&cancelled, Cancel { reason: "ordered twice".to_owned() }).await?;
    shop.caught_up(done.position).await?;

    writeln!(out, "\nBest customers (table customer_totals_v1), by a query of the shop's own:")?;
    let best = store.database().best_customers().await?;
    let mut table = Builder::default();
    table.push_record(["customer", "currency", "orders", "paid", "percent"]);
    for (customer, currency, orders, paid, percent) in best {
        table.push_record([customer, currency, orders.to_string(), decimal(paid), percent.to_string()]);
    }
    writeln!(out, "{}", table.build().with(Style::sharp()))?;
    let all = shop.until(|all| all.iter().all(|status| status.position >= done.position)).await?;
    for status in all.iter().filter(|status| *status.name == *CustomerTotals::NAME) {
        writeln!(out, "\nIts rows and its checkpoint were committed together, {} events so far.", status.applied)?;
    }
    shop.close().await
}

/// One order that is paid.
async fn order(shop: &Shop, number: i64, customer: &str, cents: i64) -> Result<OrderId, Fault> {
    let (id, customer) = (OrderId::new(format!("o-{number}"))?, CustomerId::new(customer)?);
    let price = Money::euro_cents(cents);
    let lines = vec![Line { product: "coffee".to_owned(), quantity: 1, price }];
    shop.orders.send(&id, Place { customer, lines }).await?;
    shop.orders.send(&id, Pay { payment: PaymentId::new(format!("pay-{number}"))?, amount: price }).await?;
    Ok(id)
}
