//! What the shops of the demonstration begin with: customers, and orders in every status.
//!
//! It is written by the commands that any request uses. Every command has a request key, so that a start that was cut off in the middle
//! is gone on with by the next one.

use annals::{Context, Tenant};

use crate::Fault;
use crate::domain::customer::Name;
use crate::domain::money::{Currency, Money};
use crate::domain::order::OrderCommand::{Cancel, Deliver, Pay, Place, Reserve, Return, Ship};
use crate::domain::order::{CustomerId, Line, OrderCommand, OrderId, PaymentId};
use crate::shop::Shop;

/// Tenant, customer, name.
const CUSTOMERS: [(&str, &str, &str); 4] = [
    ("alpha", "alice", "Alice Adams"),
    ("alpha", "bob", "Bob Brown"),
    ("beta", "carol", "Carol Clark"),
    ("beta", "dave", "Dave Dunn"),
];

/// Tenant, order, customer, product, pieces, cents, and how many steps it has gone: paid, reserved, shipped, delivered, returned.
/// Both shops have an order `o-1001`.
const ORDERS: [(&str, &str, &str, &str, u32, i64, usize); 12] = [
    ("alpha", "o-1001", "alice", "espresso cup", 2, 1_250, 4),
    ("alpha", "o-1002", "bob", "grinder", 1, 12_900, 3),
    ("alpha", "o-1003", "alice", "teapot", 1, 3_500, 1),
    ("alpha", "o-1004", "bob", "filter papers", 3, 420, 0),
    ("alpha", "o-1005", "alice", "kettle", 1, 4_900, 5),
    ("alpha", "o-1006", "bob", "milk jug", 2, 1_800, 2),
    ("alpha", "o-1007", "alice", "scales", 1, 6_400, 1),
    ("beta", "o-1001", "carol", "desk lamp", 1, 5_900, 3),
    ("beta", "o-1002", "dave", "bulb", 6, 350, 4),
    ("beta", "o-1003", "carol", "extension lead", 1, 1_990, 0),
    ("beta", "o-1004", "dave", "dimmer", 2, 2_450, 1),
    ("beta", "o-1005", "carol", "floor lamp", 1, 14_900, 2),
];

/// An order that is cancelled, and its customer's reason.
const CANCELLED: (&str, &str, &str) = ("alpha", "o-1007", "found one at home");

/// Fills the shops.
///
/// # Errors
/// The store cannot be written.
pub async fn seed(shop: &Shop) -> Result<(), Fault> {
    for (tenant, customer, name) in CUSTOMERS {
        let customers = shop.customers.with(Context::of(Tenant::new(tenant)?));
        customers.send(&CustomerId::new(customer)?, Name { name: name.to_owned() }).await?;
    }
    for (tenant, order, customer, product, quantity, cents, steps) in ORDERS {
        let price = Money { minor: cents, currency: Currency::Eur };
        let lines = vec![Line { product: product.to_owned(), quantity, price }];
        let amount = Money { minor: cents * i64::from(quantity), ..price };
        let place = Place { customer: CustomerId::new(customer)?, lines };
        let led: [OrderCommand; 5] = [
            Pay { payment: PaymentId::new(format!("pay-{tenant}-{order}"))?, amount },
            Reserve { warehouse: "north".to_owned() },
            Ship { carrier: "snail".to_owned(), tracking: format!("SN-{order}") },
            Deliver { signed_by: customer.to_owned() },
            Return { reason: "too loud".to_owned() },
        ];
        for (step, command) in std::iter::once(place).chain(led.into_iter().take(steps)).enumerate() {
            send(shop, tenant, order, &step.to_string(), command).await?;
        }
    }
    let (tenant, order, reason) = CANCELLED;
    send(shop, tenant, order, "cancel", Cancel { reason: reason.to_owned() }).await
}

async fn send(shop: &Shop, tenant: &str, order: &str, step: &str, command: OrderCommand) -> Result<(), Fault> {
    let orders = shop.orders.with(Context::of(Tenant::new(tenant)?));
    orders.send_once(&OrderId::new(order)?, format!("seed-{order}-{step}"), command).await?;
    Ok(())
}
