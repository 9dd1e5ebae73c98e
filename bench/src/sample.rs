//! The events of measurements: about 100 bytes of JSON each.

use annals::engine::Payload;
use annals::{EventId, NewEvent, StreamId, Tenant};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The payload of an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Paid {
    pub(crate) payment: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) method: String,
}

/// The `n`-th event.
pub(crate) fn paid(n: u64) -> Paid {
    Paid {
        payment: format!("payment-{n:012}"),
        amount: i64::try_from(n % 100_000).unwrap_or_default(),
        currency: "EUR".to_owned(),
        method: "card".to_owned(),
    }
}

/// The event name.
pub(crate) const NAME: &str = "order.paid";

/// A new id that grows with time.
#[expect(clippy::disallowed_methods, reason = "measurements need no reproducible ids")]
pub(crate) fn id() -> Uuid {
    Uuid::now_v7()
}

/// The `n`-th event with a new id.
pub(crate) fn event(n: u64) -> NewEvent {
    let payload = Payload::of(&paid(n)).expect("it is plain JSON");
    NewEvent::raw(EventId::new(id()).expect("it is not nil"), NAME, 1, payload).expect("the name is valid")
}

/// A stream.
pub(crate) fn stream(id: &str) -> StreamId {
    StreamId::new(Tenant::default(), "order", id).expect("the name is valid")
}
