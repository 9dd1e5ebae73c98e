//! The warehouse: sets the pieces of an order aside once, and puts them back.

use annals::sagas::participant::Participant;
use annals::sagas::{answering, command};
use annals::{Decide, Repository};
use axum::Router;
use serde::{Deserialize, Serialize};

use super::book::{Entry, EntryEvent, Refused, TakeBack};
use crate::domain::order::{Line, OrderId};

/// The most pieces that are there for one order.
const PIECES: i64 = 10;

/// Asks to set pieces aside.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Reserve {
    pub order: OrderId,
    pub lines: Vec<Line>,
}

impl Decide<Reserve> for Entry {
    type Rejection = Refused;

    fn decide(&self, reserve: &Reserve) -> Result<Vec<EntryEvent>, Refused> {
        let pieces = reserve.lines.iter().map(|line| i64::from(line.quantity)).sum();
        if pieces > PIECES {
            return Err(Refused(format!("there are {PIECES} pieces for an order, not {pieces}")));
        }
        self.make(pieces)
    }
}

/// `POST /reserve`, in both directions. The answer is the name of the warehouse.
pub fn routes(participant: &Participant, book: &Repository<Entry>) -> Router {
    let (reserving, releasing) = (book.clone(), book.clone());
    Router::new().route(
        "/reserve",
        participant.local(
            move |reserve: Reserve| answering(&reserving, reserve.order.clone(), reserve, |_| "north".to_owned()),
            move |order: OrderId| command(&releasing, order, TakeBack),
        ),
    )
}
