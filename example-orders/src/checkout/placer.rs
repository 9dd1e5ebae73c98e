//! What has placed an order. One order has one checkout at most, whichever requests come under one key and to which process: that in
//! whose name its first event was recorded.

use annals::{Aggregate, CorrelationId, EventStore, StreamId, StreamVersion, Tenant};

use super::handle::{CheckoutError, Checkouts, Flow, id};
use crate::domain::order::{Order, OrderError, OrderId};

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
    /// What has placed the order.
    pub(super) async fn placer(&self, shop: &Tenant, order: &OrderId) -> Result<Placer, CheckoutError> {
        let stream = StreamId::new(shop.clone(), Order::TYPE, order.as_str())?;
        let first = self.store.load_page(&stream, StreamVersion::NONE, 1).await?;
        let Some(placed) = first.events.into_iter().next() else { return Ok(Placer::Nobody) };
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
