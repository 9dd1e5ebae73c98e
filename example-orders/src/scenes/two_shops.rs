//! The scene `-- two-shops`: two shops share the store, and have the same order numbers.
//!
//! Each shop is a tenant. A command says whose it is by its context; everything else follows from that: the stream, the rows of
//! read models that are `per_tenant`, and nothing of the other shop.

use std::io::Write;

use annals::{Context, Executed, Tenant};

use crate::Fault;
use crate::domain::money::Money;
use crate::domain::order::OrderCommand::{Cancel, Place};
use crate::domain::order::{CustomerId, Line, Order, OrderId};
use crate::scenes::tables;
use crate::shop::Shop;

/// Runs the scene and prints to `out` what happens. A second run finds the orders and prints the lists again.
pub async fn play(shop: &Shop, out: &mut dyn Write) -> Result<(), Fault> {
    let (north, south) = (Tenant::new("north")?, Tenant::new("south")?);
    let number = OrderId::new("o-1001")?;
    let orders_of = |tenant: &Tenant| shop.orders.with(Context::of(tenant.clone()));

    if orders_of(&north).load(&number).await?.version.get() == 0 {
        writeln!(out, "Both shops take their first order, and both call it {number}.")?;
        for (tenant, customer, product, cents) in
            [(&north, "alice", "kettle", 4_900), (&south, "bob", "grinder", 12_900)]
        {
            let customer = CustomerId::new(customer)?;
            let lines = vec![Line { product: product.to_owned(), quantity: 1, price: Money::euro_cents(cents) }];
            let placed = orders_of(tenant).send(&number, Place { customer, lines }).await?;
            print(out, "placed", &placed)?;
        }
        writeln!(out, "\nThe shop in the north cancels its order. The one in the south knows nothing of that.")?;
        let cancelled = orders_of(&north).send(&number, Cancel { reason: "the kettle leaks".into() }).await?;
        print(out, "cancelled", &cancelled)?;
    }

    shop.caught_up(shop.store.head().await?.position).await?;
    for tenant in [&north, &south] {
        writeln!(out, "\nOrder list of the shop `{tenant}`:")?;
        tables::show_list(&shop.views, tenant, out).await?;
    }
    tables::show_sales(&shop.views, out).await
}

fn print(out: &mut dyn Write, what: &str, done: &Executed<Order>) -> Result<(), Fault> {
    let stream = done.stream.to_string();
    Ok(writeln!(out, "  {stream:<20} {what:<10} {}, position {}", done.version, done.position)?)
}
