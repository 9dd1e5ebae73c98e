//! The notification service: sends each message once. It notes a message under its own number, as an order has several.

use annals::sagas::command;
use annals::sagas::participant::Participant;
use annals::{Decide, Repository};
use axum::Router;
use serde::{Deserialize, Serialize};

use super::book::{Entry, EntryEvent, Refused, TakeBack};
use crate::domain::order::OrderId;

/// Asks to send a message.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Notify {
    /// What names the message: its order and what happened to it.
    pub message: OrderId,
    /// What it says.
    pub text: String,
}

impl Decide<Notify> for Entry {
    type Rejection = Refused;

    fn decide(&self, _: &Notify) -> Result<Vec<EntryEvent>, Refused> {
        self.make(1)
    }
}

/// `POST /notify`. What was sent is not taken back, but nothing is sent later that was called off.
pub fn routes(participant: &Participant, book: &Repository<Entry>) -> Router {
    let (sending, calling_off) = (book.clone(), book.clone());
    Router::new().route(
        "/notify",
        participant.local(
            move |notify: Notify| command(&sending, notify.message.clone(), notify),
            move |message: OrderId| command(&calling_off, message, TakeBack),
        ),
    )
}
