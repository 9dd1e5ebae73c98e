//! What an open page is about, and who may be told of it: those who may ask the API for the same.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use annals::{Aggregate, Context, StreamId, Tenant};
use axum::http::Method;
use tokio::sync::OnceCell;

use crate::dashboard::visitor::Visitor;
use crate::dashboard::{projections, sagas};
use crate::domain::customer::Customer;
use crate::domain::order::{CustomerId, Order, OrderId};
use crate::read_models::list::OrderList;
use crate::service::api::checkouts;
use crate::service::app::App;
use crate::service::problem::Problem;

/// What a page is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// All orders of the shop, and the names of its customers.
    Orders,
    /// One order, and its checkout.
    Order(OrderId),
    /// All checkouts of the shop.
    Sagas,
    /// How the service is: looked at every two seconds.
    State,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Orders => f.write_str("orders"),
            Self::Order(order) => write!(f, "order:{order}"),
            Self::Sagas => f.write_str("sagas"),
            Self::State => f.write_str("state"),
        }
    }
}

impl FromStr for Topic {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        match (text, text.strip_prefix("order:")) {
            ("orders", _) => Ok(Self::Orders),
            ("sagas", _) => Ok(Self::Sagas),
            ("state", _) => Ok(Self::State),
            (_, Some(order)) => Ok(Self::Order(OrderId::new(order)?)),
            _ => Err(Problem::bad("topic", "a topic is `orders`, `order:ID`, `sagas` or `state`")),
        }
    }
}

/// What has changed.
#[derive(Clone, Debug)]
pub enum Notice {
    /// These streams have new events, and the read models show them.
    Streams(Arc<Changed>),
    /// It is time to look at what is no event.
    Look,
}

/// Streams that have new events.
#[derive(Debug)]
pub struct Changed {
    streams: HashSet<StreamId>,
    /// Whose orders are among them; looked up once, when the first page of a customer asks.
    customers: OnceCell<HashSet<(Tenant, CustomerId)>>,
}

impl Changed {
    pub fn new(streams: HashSet<StreamId>) -> Self {
        Self { streams, customers: OnceCell::new() }
    }

    /// Whether something of this customer is among them.
    async fn is_of(&self, app: &App, shop: &Tenant, customer: &CustomerId) -> bool {
        let is_name = |stream: &StreamId| {
            stream.aggregate_type() == Customer::TYPE
                && stream.tenant() == shop
                && stream.aggregate_id() == customer.as_str()
        };
        self.streams.iter().any(is_name)
            || self.customers.get_or_init(|| self.customers(app)).await.contains(&(shop.clone(), customer.clone()))
    }

    async fn customers(&self, app: &App) -> HashSet<(Tenant, CustomerId)> {
        let mut orders: BTreeMap<&Tenant, Vec<OrderId>> = BTreeMap::new();
        for stream in self.streams.iter().filter(|stream| stream.aggregate_type() == Order::TYPE) {
            orders.entry(stream.tenant()).or_default().extend(OrderId::new(stream.aggregate_id()));
        }
        let mut customers = HashSet::new();
        for (shop, orders) in orders {
            match app.shop.views.find_many_of_tenant::<OrderList>(shop, &orders).await {
                Ok(rows) => customers.extend(rows.into_iter().flatten().map(|row| (shop.clone(), row.customer))),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "pages of customers may be out of date");
                }
            }
        }
        customers
    }
}

impl Topic {
    /// Whether a visitor may be told of it.
    ///
    /// # Errors
    /// The page of it is not for the role of the key, or the order is somebody else's.
    pub async fn is_for(&self, visitor: &Visitor) -> Result<(), Problem> {
        let route = match self {
            Self::Orders => "/orders",
            Self::Order(_) => "/orders/{order}/checkout",
            Self::Sagas => sagas::ROUTE,
            Self::State => projections::ROUTE,
        };
        visitor.needs(&Method::GET, route)?;
        let (app, caller) = (&visitor.dashboard.app, visitor.caller());
        let (Self::Order(order), Some(_)) = (self, &caller.customer) else { return Ok(()) };
        let orders = app.checkouts.orders.with(Context::of(caller.tenant.clone()));
        let placed = orders.load(order).await?;
        if placed.state.customer.as_ref().is_some_and(|customer| caller.sees(customer)) {
            return Ok(());
        }
        // Its checkout has begun perhaps, and will place it.
        checkouts::find(app, caller, order).await.map(drop)
    }

    /// Whether a page of this topic has to be made again, for somebody of a shop or of all of them, or for a customer of one.
    pub async fn wants(
        &self,
        notice: &Notice,
        app: &App,
        shop: Option<&Tenant>,
        customer: Option<&CustomerId>,
    ) -> bool {
        self.is_about(notice, shop)
            && match (self, notice, shop, customer) {
                // A customer's list has the customer's orders alone.
                (Self::Orders, Notice::Streams(changed), Some(shop), Some(customer)) => {
                    changed.is_of(app, shop, customer).await
                }
                _ => true,
            }
    }

    fn is_about(&self, notice: &Notice, shop: Option<&Tenant>) -> bool {
        let Notice::Streams(changed) = notice else { return *self == Self::State };
        changed.streams.iter().filter(|stream| shop.is_none_or(|shop| stream.tenant() == shop)).any(|stream| {
            let (kind, id) = (stream.aggregate_type(), stream.aggregate_id());
            match self {
                Self::Orders => kind == Order::TYPE || kind == Customer::TYPE,
                // The id of a checkout ends with that of its order.
                Self::Order(order) if kind == Order::TYPE => id == order.as_str(),
                Self::Order(order) => {
                    id.strip_suffix(order.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('-'))
                }
                Self::Sagas => kind == "saga",
                Self::State => false,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_told_of_its_shop_and_its_order_only() {
        let shop = |name| Tenant::new(name).expect("a tenant");
        let notice = |tenant, kind, id: &str| {
            let stream = StreamId::new(shop(tenant), kind, id).expect("a stream");
            Notice::Streams(Arc::new(Changed::new(HashSet::from([stream]))))
        };
        let order: Topic = "order:o-1".parse().expect("a topic");
        for (topic, tenant, kind, id, is_about) in [
            (&order, "alpha", "order", "o-1", true),
            (&order, "beta", "order", "o-1", false),
            (&order, "alpha", "order", "o-11", false),
            (&order, "alpha", "order", "x-o-1", false),
            (&order, "alpha", "saga", "checkout-o-1", true),
            (&order, "alpha", "saga", "flow-o-1", true),
            (&order, "alpha", "saga", "checkout-o-11", false),
            (&Topic::Orders, "alpha", "order", "o-2", true),
            (&Topic::Orders, "alpha", "customer", "alice", true),
            (&Topic::Orders, "beta", "order", "o-2", false),
            (&Topic::Orders, "alpha", "saga", "checkout-o-1", false),
            (&Topic::Sagas, "alpha", "saga", "checkout-o-1", true),
            (&Topic::Sagas, "beta", "saga", "checkout-o-1", false),
            (&Topic::State, "alpha", "order", "o-1", false),
        ] {
            assert_eq!(
                topic.is_about(&notice(tenant, kind, id), Some(&shop("alpha"))),
                is_about,
                "{topic} {tenant} {kind} {id}"
            );
        }
        // Who sees all shops is told of all.
        assert!(Topic::Sagas.is_about(&notice("beta", "saga", "checkout-o-1"), None));
        assert!(Topic::State.is_about(&Notice::Look, Some(&shop("alpha"))));
        assert!(!Topic::Orders.is_about(&Notice::Look, Some(&shop("alpha"))));
    }

    #[test]
    fn every_topic_is_read_as_it_is_written() {
        for text in ["orders", "order:o-1", "sagas", "state"] {
            assert_eq!(text.parse::<Topic>().expect("a topic").to_string(), text);
        }
        assert!("order:".parse::<Topic>().is_err() && "other".parse::<Topic>().is_err());
    }
}
