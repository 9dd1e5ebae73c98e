//! The carrier: fetches the parcel of an order once, and brings it back.

use annals::sagas::participant::Participant;
use annals::sagas::{answering, command};
use annals::{Decide, Repository};
use axum::Router;
use serde::{Deserialize, Serialize};

use super::book::{Entry, EntryEvent, Refused, TakeBack};
use crate::domain::order::OrderId;

/// Asks to fetch the parcel of an order.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Fetch {
    pub order: OrderId,
}

impl Decide<Fetch> for Entry {
    type Rejection = Refused;

    fn decide(&self, _: &Fetch) -> Result<Vec<EntryEvent>, Refused> {
        self.make(1)
    }
}

/// `POST /fetch`, in both directions. The answer is the number of the parcel.
pub fn routes(participant: &Participant, book: &Repository<Entry>) -> Router {
    let (fetching, returning) = (book.clone(), book.clone());
    Router::new().route(
        "/fetch",
        participant.local(
            move |fetch: Fetch| {
                let number = format!("SN-{}", fetch.order);
                answering(&fetching, fetch.order.clone(), fetch, move |_| number.clone())
            },
            move |order: OrderId| command(&returning, order, TakeBack),
        ),
    )
}
