//! The payment service: charges an order once, and gives the money back.
//!
//! The step of a participant is a command of the entry, in the same store: charge and answer are one append. A real one would
//! call a bank, which is outside of its store; then the handler is `remote`, and the bank gets the key too.

use annals::sagas::participant::Participant;
use annals::sagas::{answering, command};
use annals::{Decide, Repository};
use axum::Router;
use serde::{Deserialize, Serialize};

use super::book::{Entry, EntryEvent, Refused, TakeBack};
use crate::domain::money::Money;
use crate::domain::order::{OrderId, PaymentId};

/// The most that a card is charged for one order.
const CARD_LIMIT: Money = Money::euro_cents(500_000);

/// Asks to charge an order.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Charge {
    pub order: OrderId,
    pub payment: PaymentId,
    pub amount: Money,
}

impl Decide<Charge> for Entry {
    type Rejection = Refused;

    fn decide(&self, charge: &Charge) -> Result<Vec<EntryEvent>, Refused> {
        if charge.amount.minor > CARD_LIMIT.minor {
            return Err(Refused(format!("the card is not charged more than {CARD_LIMIT}")));
        }
        self.make(charge.amount.minor)
    }
}

/// `POST /charge`, in both directions.
pub fn routes(participant: &Participant, book: &Repository<Entry>) -> Router {
    let (charging, refunding) = (book.clone(), book.clone());
    Router::new().route(
        "/charge",
        participant.local(
            move |charge: Charge| {
                let payment = charge.payment.clone();
                answering(&charging, charge.order.clone(), charge, move |_| payment.clone())
            },
            move |order: OrderId| command(&refunding, order, TakeBack),
        ),
    )
}
