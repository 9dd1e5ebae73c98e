//! The flow of a choreographed checkout: which events its steps are, which event undoes which, and which say that it fails. The flow
//! calls nobody. It gives the checkout a row, a timeline, and a time limit, which is an event like any other.

use std::time::Duration;

use annals::sagas::{Flow, FlowSteps, SagaEvent};
use annals::{CorrelationId, Event};

use super::parts::{PaymentEvent, ShipmentEvent, StockEvent};
use crate::domain::order::OrderEvent;

/// What the correlation id of a flow begins with. The number of the order follows.
pub const FLOW: &str = "flow-";

/// The step that needs the payment service.
pub(super) const PAID: &str = "payment.completed";

/// All that the reactors listen to, also what is recorded of the flow itself.
#[derive(Event, Clone, Debug)]
pub enum CheckoutEvent {
    #[event(transparent)]
    Order(OrderEvent),
    #[event(transparent)]
    Payment(PaymentEvent),
    #[event(transparent)]
    Stock(StockEvent),
    #[event(transparent)]
    Shipment(ShipmentEvent),
    #[event(transparent)]
    Flow(SagaEvent),
}

/// The flow, and how many seconds it may take.
pub struct CheckoutFlow<const SECONDS: u64>;

impl<const SECONDS: u64> Flow for CheckoutFlow<SECONDS> {
    type Event = CheckoutEvent;
    const NAME: &'static str = "checkouts";

    /// Orders are placed without a flow, too.
    fn follows(correlation: &CorrelationId) -> bool {
        correlation.as_str().starts_with(FLOW)
    }

    fn steps() -> FlowSteps {
        FlowSteps::begin("order.placed")
            .step(PAID)
            .undone_by("payment.refunded")
            .fails("payment.failed")
            .fails("refund.initiated")
            .step("inventory.reserved")
            .undone_by("inventory.released")
            .fails("reservation.failed")
            .step("shipment.created")
            .undone_by("shipment.recalled")
            .fails("shipment.failed")
            .timeout(Duration::from_secs(SECONDS))
    }
}
