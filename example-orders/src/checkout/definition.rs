//! The checkout as a saga: what is done in which order, and how each step is undone. It is a value, which is checked when it is
//! built; nothing runs yet.
//!
//! A `local` step is a command of the order: its events and the outcome of the step are one append. A `remote` one calls a service
//! through a policy, and what it is about to call is recorded first, so that a saga which was interrupted is continued. A
//! step that may have had its effect is undone. After the pivot there is no way back: `undo` does not compile there, and what is
//! refused waits for a person.

use std::sync::Arc;
use std::time::Duration;

use annals::sagas::{Call, Definition, LocalCommand, Saga, StepError, command};
use annals::{Decide, Repository};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::domain::money::Money;
use crate::domain::order::OrderCommand::{Cancel, Pay, Place, Reserve, Ship};
use crate::domain::order::{CustomerId, Line, Order, OrderError, OrderEvent, OrderId, PaymentId, Status};
use crate::services::{Client, Clients, Origin};
use crate::services::{payment, shipping, stock};

/// How long a checkout may take in all, also while a service is down and its customer has left. Then it is undone.
const DEADLINE: Duration = Duration::from_secs(300);

/// The input of a checkout, and what its steps keep for later ones.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Checkout {
    pub order: OrderId,
    pub customer: CustomerId,
    pub lines: Vec<Line>,
    /// The price that the customer saw.
    pub total: Money,
    pub payment: PaymentId,
    /// For which shop the services are called, and in which trace.
    pub origin: Origin,
    /// The warehouse that has set the pieces aside; empty before that.
    #[serde(default)]
    pub warehouse: String,
    /// The carrier's number of the parcel; empty before it has one.
    #[serde(default)]
    pub tracking: String,
}

impl Checkout {
    /// What the payment service is asked.
    fn charge(&self) -> payment::Charge {
        payment::Charge { order: self.order.clone(), payment: self.payment.clone(), amount: self.total }
    }

    /// What the warehouse is asked.
    fn reserve(&self) -> stock::Reserve {
        stock::Reserve { order: self.order.clone(), lines: self.lines.clone() }
    }

    /// What the carrier is asked.
    fn fetch(&self) -> shipping::Fetch {
        shipping::Fetch { order: self.order.clone() }
    }
}

/// The saga `checkout`, over the orders of a store and three services.
pub fn checkout(orders: &Repository<Order>, services: &Clients) -> Result<Definition<Checkout>, annals::Invalid> {
    let Clients { payment, stock, shipping } = services;
    Saga::<Checkout>::new("checkout")
        .deadline(DEADLINE)
        .local("place", order(orders, |c| Place { customer: c.customer.clone(), lines: c.lines.clone() }))
        .undo(order(orders, |_| CallOff))
        .remote("charge", &payment.policy, ask(payment, "/charge", Checkout::charge))
        .keep(|_, _: PaymentId| ())
        .undo(take_back(payment, "/charge"))
        .local("pay", order(orders, |c| Pay { payment: c.payment.clone(), amount: c.total }))
        .no_undo("the order is cancelled as a whole, and notes the refund then")
        .remote("set-aside", &stock.policy, ask(stock, "/reserve", Checkout::reserve))
        .keep(|c, warehouse| c.warehouse = warehouse)
        .undo(take_back(stock, "/reserve"))
        .local("reserve", order(orders, |c| Reserve { warehouse: c.warehouse.clone() }))
        .no_undo("the order is cancelled as a whole")
        .pivot()
        .remote("fetch", &shipping.policy, ask(shipping, "/fetch", Checkout::fetch))
        .keep(|c, number| c.tracking = number)
        .local("ship", order(orders, |c| Ship { carrier: "snail".to_owned(), tracking: c.tracking.clone() }))
        .build()
}

/// Asks to cancel the order, unless its customer did that meanwhile. An undo that has nothing to do is no failure.
struct CallOff;

impl Decide<CallOff> for Order {
    type Rejection = OrderError;

    fn decide(&self, _: &CallOff) -> Result<Vec<OrderEvent>, OrderError> {
        if self.status == Status::Cancelled {
            return Ok(Vec::new());
        }
        self.decide(&Cancel { reason: "the checkout was not possible".to_owned() })
    }
}

/// A step that is a command of the order.
fn order<D>(orders: &Repository<Order>, ask: fn(&Checkout) -> D) -> impl Fn(&Checkout) -> LocalCommand + use<D>
where
    Order: Decide<D, Id = OrderId, Rejection = OrderError>,
    D: Send + Sync + 'static,
{
    let orders = orders.clone();
    move |checkout| command(&orders, checkout.order.clone(), ask(checkout))
}

/// A step that is a call of a service: `request` makes its body.
fn ask<Q, T>(
    service: &Client,
    path: &'static str,
    request: fn(&Checkout) -> Q,
) -> impl Fn(Arc<Checkout>, Call) -> BoxFuture<'static, Result<T, StepError>> + use<Q, T>
where
    Q: Serialize + Send + Sync + 'static,
    T: DeserializeOwned + Send + 'static,
{
    let service = service.clone();
    move |checkout, call| {
        let service = service.clone();
        async move {
            let body = request(&checkout);
            service.send(path, &body, &checkout.origin, call.key(), call.deadline()).await
        }
        .boxed()
    }
}

/// How that is undone. The key of the call says that it is.
fn take_back(
    service: &Client,
    path: &'static str,
) -> impl Fn(Arc<Checkout>, Call) -> BoxFuture<'static, Result<(), StepError>> + use<> {
    ask(service, path, |checkout| checkout.order.clone())
}
