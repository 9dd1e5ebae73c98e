//! What the choreography notes about the payment, the reservation and the shipment of an order: a stream for each.
//!
//! Calls and events cross: an answer may come when its effect is being taken back. So each part only moves forward, and what it
//! has gone beyond is not noted. That is the whole of its rules.

use annals::{Aggregate, Event, Evolve};
use serde::{Deserialize, Serialize};

use crate::domain::money::Money;
use crate::domain::order::{Line, OrderId, PaymentId};

/// How far a part is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    #[default]
    Open,
    Done,
    /// It was refused, and what an earlier try may have done is undone without a note.
    Failed,
    /// It is taken back, whether or not it was done.
    Undoing,
    Undone,
}

impl Progress {
    fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Open, Self::Done | Self::Failed | Self::Undoing)
                | (Self::Done, Self::Undoing)
                | (Self::Undoing, Self::Undone)
        )
    }
}

/// A part of a checkout.
pub trait Part: Evolve<Event: Clone> + Aggregate<Id = OrderId> {
    fn progress(&self) -> Progress;
    /// How far a part is behind an event.
    fn behind(event: &Self::Event) -> Progress;
    fn failed(reason: String) -> Self::Event;
    fn undone() -> Self::Event;

    /// The event, unless the part has gone beyond it.
    fn note(&self, event: &Self::Event) -> Result<Vec<Self::Event>, std::convert::Infallible> {
        let may = self.progress().may_become(Self::behind(event));
        Ok(may.then(|| event.clone()).into_iter().collect())
    }
}

/// What can happen to the payment of an order.
#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub enum PaymentEvent {
    #[event(name = "payment.completed")]
    Completed {
        payment: PaymentId,
        lines: Vec<Line>,
        /// What was charged; none was noted at first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        amount: Option<Money>,
    },
    #[event(name = "payment.failed")]
    Failed { reason: String },
    #[event(name = "refund.initiated")]
    RefundInitiated,
    #[event(name = "payment.refunded")]
    Refunded,
}

/// What can happen to the pieces of an order.
#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub enum StockEvent {
    #[event(name = "inventory.reserved")]
    Reserved { warehouse: String },
    #[event(name = "reservation.failed")]
    Failed { reason: String },
    #[event(name = "release.initiated")]
    ReleaseInitiated,
    #[event(name = "inventory.released")]
    Released,
}

/// What can happen to the parcel of an order.
#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub enum ShipmentEvent {
    #[event(name = "shipment.created")]
    Created { tracking: String },
    #[event(name = "shipment.failed")]
    Failed { reason: String },
    #[event(name = "recall.initiated")]
    RecallInitiated,
    #[event(name = "shipment.recalled")]
    Recalled,
}

/// The payment of an order.
#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "payment", id = OrderId, event = PaymentEvent)]
pub struct Payment {
    progress: Progress,
}

impl Evolve for Payment {
    fn evolve(&mut self, event: &PaymentEvent) {
        self.progress = Self::behind(event);
    }
}

impl Part for Payment {
    fn progress(&self) -> Progress {
        self.progress
    }

    fn behind(event: &PaymentEvent) -> Progress {
        match event {
            PaymentEvent::Completed { .. } => Progress::Done,
            PaymentEvent::Failed { .. } => Progress::Failed,
            PaymentEvent::RefundInitiated => Progress::Undoing,
            PaymentEvent::Refunded => Progress::Undone,
        }
    }

    fn failed(reason: String) -> PaymentEvent {
        PaymentEvent::Failed { reason }
    }

    fn undone() -> PaymentEvent {
        PaymentEvent::Refunded
    }
}

/// The pieces of an order.
#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "reservation", id = OrderId, event = StockEvent)]
pub struct Reservation {
    progress: Progress,
    /// Where the pieces are.
    pub warehouse: String,
}

impl Evolve for Reservation {
    fn evolve(&mut self, event: &StockEvent) {
        self.progress = Self::behind(event);
        if let StockEvent::Reserved { warehouse } = event {
            self.warehouse.clone_from(warehouse);
        }
    }
}

impl Part for Reservation {
    fn progress(&self) -> Progress {
        self.progress
    }

    fn behind(event: &StockEvent) -> Progress {
        match event {
            StockEvent::Reserved { .. } => Progress::Done,
            StockEvent::Failed { .. } => Progress::Failed,
            StockEvent::ReleaseInitiated => Progress::Undoing,
            StockEvent::Released => Progress::Undone,
        }
    }

    fn failed(reason: String) -> StockEvent {
        StockEvent::Failed { reason }
    }

    fn undone() -> StockEvent {
        StockEvent::Released
    }
}

/// The parcel of an order.
#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "shipment", id = OrderId, event = ShipmentEvent)]
pub struct Shipment {
    progress: Progress,
    /// The carrier's number of the parcel.
    pub tracking: String,
}

impl Evolve for Shipment {
    fn evolve(&mut self, event: &ShipmentEvent) {
        self.progress = Self::behind(event);
        if let ShipmentEvent::Created { tracking } = event {
            self.tracking.clone_from(tracking);
        }
    }
}

impl Part for Shipment {
    fn progress(&self) -> Progress {
        self.progress
    }

    fn behind(event: &ShipmentEvent) -> Progress {
        match event {
            ShipmentEvent::Created { .. } => Progress::Done,
            ShipmentEvent::Failed { .. } => Progress::Failed,
            ShipmentEvent::RecallInitiated => Progress::Undoing,
            ShipmentEvent::Recalled => Progress::Undone,
        }
    }

    fn failed(reason: String) -> ShipmentEvent {
        ShipmentEvent::Failed { reason }
    }

    fn undone() -> ShipmentEvent {
        ShipmentEvent::Recalled
    }
}
