//! Messages to customers: a reactor that hands each to the notification service, once for each event.
//!
//! The service is the least that the shop needs. So its pool is small, ten messages at once, and while it is down nothing but messages
//! waits. While they are switched off, they are left out: nobody wants those of last week.

use std::time::Duration;

use annals::Recorded;
use annals::projections::{EffectKey, Reacting, Reactor, ReactorError};
use annals::resilience::toggle::Toggle;
use annals::resilience::{CallError, PolicySettings, Profile};
use annals::sagas::StepError;
use annals::sagas::participant::StepKey;

use crate::Fault;
use crate::domain::order::{OrderEvent, OrderId};
use crate::services::{Client, Origin, notification::Notify};

/// How many messages are sent at once.
const POOL: u32 = 10;

/// Sends a message for what customers want to know of their orders.
pub struct Notifications {
    service: Client,
    toggle: Toggle<bool>,
}

impl Notifications {
    /// The client of the service at this address.
    ///
    /// # Errors
    /// The settings do not fit each other.
    pub fn client(url: &str) -> Result<Client, Fault> {
        let settings = PolicySettings {
            profile: Profile::Medium,
            timeout: Some(Duration::from_secs(5)),
            bulkhead: Some(POOL.into()),
            ..PolicySettings::default()
        };
        Client::new("notification", url, settings)
    }

    /// Messages through the service. What it refuses waits for a person, with the later messages of the same order.
    pub fn new(service: Client, toggle: Toggle<bool>) -> Reacting<Self> {
        Self { service, toggle }.streams_at_once(POOL as usize).dead_letter()
    }
}

impl Reactor for Notifications {
    type Event = OrderEvent;
    const NAME: &'static str = "notifications";

    async fn react(&self, event: &Recorded<OrderEvent>, key: &EffectKey) -> Result<(), ReactorError> {
        let order: OrderId = event.aggregate_id()?;
        let (what, text) = match &event.event {
            OrderEvent::Placed { total, .. } => ("placed", format!("Thank you for your order {order} of {total}.")),
            OrderEvent::Shipped { carrier, tracking } => {
                ("shipped", format!("Your order {order} is on its way with {carrier}, number {tracking}."))
            }
            OrderEvent::Cancelled { reason } => ("cancelled", format!("Your order {order} is cancelled: {reason}.")),
            _ => return Ok(()),
        };
        if !self.toggle.is_on() {
            return Ok(());
        }
        let notify = Notify { message: OrderId::new(format!("{order}-{what}"))?, text };
        let trace = event.metadata.trace_parent.as_ref().map(ToString::to_string);
        let origin = Origin { shop: event.stream.tenant().to_string(), trace };
        let step = StepKey::new(format!("notification/{key}"))?;
        match self.service.call("/notify", &notify, &origin, &step.do_key()).await {
            // It would refuse it again.
            Err(refused @ CallError { source: Some(StepError::Refused { .. }), .. }) => {
                Err(ReactorError::permanent(refused))
            }
            sent => Ok(sent?),
        }
    }
}
