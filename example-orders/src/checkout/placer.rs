//! What has placed an order. One order has one checkout at most, whichever requests come under one key and to which process: that in
//! whose name its first event was recorded.

use annals::{Aggregate, CorrelationId, EventStore, RecordedEvent, StreamId, StreamVersion, Tenant};

use super::handle::{CheckoutError, Checkouts, Flow, id};
use crate::domain::order::{CustomerId, Order, OrderError, OrderEvent, OrderId};

/// What has placed an order.
pub(super) enum Placer {
    /// There is no such order, or not yet: a saga begins before it places its order.
    Nobody,
    /// Its checkout, in this variant.
    Checkout(Flow),
    /// A request without a checkout.
    Other,
}

impl Checkouts {
    /// The first event of an order, if there is one.
    async fn placed(&self, shop: &Tenant, order: &OrderId) -> Result<Option<RecordedEvent>, CheckoutError> {
        let stream = StreamId::new(shop.clone(), Order::TYPE, order.as_str())?;
        Ok(self.store.load_page(&stream, StreamVersion::NONE, 1).await?.events.into_iter().next())
    }

    /// Whose order it is, if there is one. That can be read also where a later event cannot.
    pub async fn customer_of(&self, shop: &Tenant, order: &OrderId) -> Result<Option<CustomerId>, CheckoutError> {
        let Some(placed) = self.placed(shop, order).await? else { return Ok(None) };
        Ok(placed.typed::<OrderEvent>()?.into_iter().find_map(|event| match event.event {
            OrderEvent::Placed { customer, .. } => Some(customer),
            _ => None,
        }))
    }

    /// What has placed the order.
    pub(super) async fn placer(&self, shop: &Tenant, order: &OrderId) -> Result<Placer, CheckoutError> {
        let Some(placed) = self.placed(shop, order).await? else { return Ok(Placer::Nobody) };
        // All that a saga or a flow does has its id.
        let in_the_name_of = placed.metadata.correlation_id;
        for flow in [Flow::Orchestrated, Flow::Choreographed] {
            if in_the_name_of.as_ref().map(CorrelationId::as_str) == Some(id(flow, order)?.as_str()) {
                return Ok(Placer::Checkout(flow));
            }
        }
        Ok(Placer::Other)
    }

    /// Refuses a checkout of an order that something else has placed.
    pub(super) async fn check_is_free(&self, shop: &Tenant, order: &OrderId, flow: Flow) -> Result<(), CheckoutError> {
        match self.placer(shop, order).await? {
            Placer::Nobody => Ok(()),
            Placer::Checkout(of) if of == flow => Ok(()),
            Placer::Checkout(_) | Placer::Other => Err(OrderError::PlacedAlready.into()),
        }
    }
}
