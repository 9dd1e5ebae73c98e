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
use annals::{EventStore, Repository, prelude::*};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::Fault;
use crate::checkout::services::Service;
use crate::domain::money::Money;
use crate::domain::order::OrderCommand::{Cancel, Pay, Place, Reserve, Ship};
use crate::domain::order::{CustomerId, Line, Order, OrderCommand, OrderId, PaymentId};

/// The input of a checkout, and what its steps keep for later ones.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Checkout {
    pub order: OrderId,
    pub customer: CustomerId,
    pub lines: Vec<Line>,
    /// The price that the customer saw.
    pub total: Money,
    pub payment: PaymentId,
    /// The carrier's number of the parcel; empty before it has one.
    pub tracking: String,
}

/// Who takes part in a checkout.
#[derive(Clone)]
pub struct Participants {
    pub orders: Repository<Order>,
    pub payments: Service,
    pub stock: Service,
    pub shipping: Service,
}

pub fn checkout(of: &Participants) -> Result<Definition<Checkout>, annals::Invalid> {
    let Participants { payments, stock, shipping, .. } = of;
    Saga::<Checkout>::new("checkout")
        .deadline(Duration::from_secs(300))
        .local("place", of.order(|c| Place { customer: c.customer.clone(), lines: c.lines.clone() }))
        .undo(of.order(|_| Cancel { reason: "the checkout was not possible".to_owned() }))
        .remote("charge", &payments.policy, fulfil(payments))
        .undo(take_back(payments))
        .local("pay", of.order(|c| Pay { payment: c.payment.clone(), amount: c.total }))
        .no_undo("the order is cancelled as a whole, and notes the refund then")
        .remote("set-aside", &stock.policy, fulfil(stock))
        .undo(take_back(stock))
        .local("reserve", of.order(|_| Reserve { warehouse: "north".to_owned() }))
        .no_undo("the order is cancelled as a whole")
        .pivot()
        .remote("fetch", &shipping.policy, fulfil(shipping))
        .keep(|c, number| c.tracking = number)
        .local("ship", of.order(|c| Ship { carrier: "snail".to_owned(), tracking: c.tracking.clone() }))
        .build()
}

impl Participants {
    pub fn of(store: &(impl EventStore + Clone)) -> Result<Self, Fault> {
        Ok(Self {
            orders: store.aggregate(),
            payments: Service::new("payments", store)?,
            stock: Service::new("stock", store)?,
            shipping: Service::new("shipping", store)?,
        })
    }

    /// A step that is a command of the order.
    fn order(&self, ask: fn(&Checkout) -> OrderCommand) -> impl Fn(&Checkout) -> LocalCommand + use<> {
        let orders = self.orders.clone();
        move |checkout| command(&orders, checkout.order.clone(), ask(checkout))
    }
}

/// A step that is a call of a service.
fn fulfil(service: &Service) -> impl Fn(Arc<Checkout>, Call) -> BoxFuture<'static, Result<String, StepError>> + use<> {
    let service = service.clone();
    move |checkout, call| {
        let service = service.clone();
        async move { service.fulfil(&checkout.order, &call).await }.boxed()
    }
}

/// How that is undone.
fn take_back(service: &Service) -> impl Fn(Arc<Checkout>, Call) -> BoxFuture<'static, Result<(), StepError>> + use<> {
    let service = service.clone();
    move |checkout, call| {
        let service = service.clone();
        async move { service.take_back(&checkout.order, &call).await }.boxed()
    }
}
