//! Steps on payloads as JSON, for what types cannot say.

use serde_json::Value;

/// Why a step cannot give a newer event; `"no currency".into()` is one.
pub type StepError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Gives the payloads of a split with their names.
pub(super) type SplitFn = fn(Value) -> Result<Vec<(&'static str, Value)>, StepError>;

/// A stored name and a schema version.
pub(super) type Stored = (&'static str, u32);

/// A step from one stored name and schema version to another, on payloads as JSON: for what `#[event(upcast(..))]` cannot say.
///
/// A const list of steps is declared once per event type, by `#[event(upcasters = STEPS)]`. What a step gives goes through
/// the rest of the chain by its own name and version: the next step, `upcast(..)`, or the type itself. While the program is
/// compiled, the list is checked: no two steps begin at one version, none at a version that the type writes, and from each of
/// them there is a way to what the type writes.
///
/// Steps are pure: they run again at every read. A step that fails or panics makes the event an error
/// ([`DecodeError::Upcast`](crate::DecodeError::Upcast)), which names the step; the event is never skipped.
///
/// ```
/// # mod annals { pub use annals_eventstore::*; pub use annals_macros::Event; }
/// use annals::{Event, JsonUpcaster, Payload, StepError};
/// use serde::{Deserialize, Serialize};
/// use serde_json::{Value, json};
///
/// #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
/// #[event(upcasters = STEPS)]
/// enum PaymentEvent {
///     #[event(name = "payment.received", version = 2)]
///     Received { cents: i64 },
///     #[event(name = "receipt.sent")]
///     ReceiptSent { to: String },
/// }
///
/// const STEPS: &[JsonUpcaster] = &[
///     JsonUpcaster::rename(("payment.taken", 1), ("payment.received", 1)),
///     // A payment once carried the address of its receipt.
///     JsonUpcaster::split(("payment.received", 1), &[("payment.received", 2), ("receipt.sent", 1)], separate_receipt),
///     JsonUpcaster::drop(("payment.viewed", 1)),
/// ];
///
/// fn separate_receipt(payment: Value) -> Result<Vec<(&'static str, Value)>, StepError> {
///     let to = payment["receipt_to"].as_str().ok_or("no `receipt_to`")?;
///     let (received, sent) = (json!({ "cents": payment["cents"] }), json!({ "to": to }));
///     Ok(vec![("payment.received", received), ("receipt.sent", sent)])
/// }
///
/// let stored = Payload::from_json(r#"{"cents": 500, "receipt_to": "ann@example.org"}"#)?;
/// let read = PaymentEvent::read("payment.taken", 1, &stored)?;
/// let sent = PaymentEvent::ReceiptSent { to: "ann@example.org".into() };
/// assert_eq!(read.as_slice(), [PaymentEvent::Received { cents: 500 }, sent]);
/// assert!(PaymentEvent::read("payment.viewed", 1, &stored)?.as_slice().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct JsonUpcaster {
    pub(super) from: Stored,
    pub(super) step: Step,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// To the next version of the same name.
    Change(fn(Value) -> Result<Value, StepError>),
    Rename(Stored),
    Split(&'static [Stored], SplitFn),
    Drop,
}

impl JsonUpcaster {
    /// From a name and version to the next version of the same name: `change` gets the payload and gives the newer one.
    #[must_use]
    pub const fn change(from: (&'static str, u32), change: fn(Value) -> Result<Value, StepError>) -> Self {
        Self { from, step: Step::Change(change) }
    }

    /// From a name that is no longer written to another, with the same payload.
    #[must_use]
    pub const fn rename(from: (&'static str, u32), to: (&'static str, u32)) -> Self {
        Self { from, step: Step::Rename(to) }
    }

    /// From one event to several: `split` gives the payloads in order, each with its name, which is one of those in `into`;
    /// none, one or several of each.
    #[must_use]
    pub const fn split(from: (&'static str, u32), into: &'static [(&'static str, u32)], split: SplitFn) -> Self {
        Self { from, step: Step::Split(into, split) }
    }

    /// From an event that means nothing any more to no event. It still counts in the versions of its stream.
    #[must_use]
    pub const fn drop(from: (&'static str, u32)) -> Self {
        Self { from, step: Step::Drop }
    }

    /// What it gives with this number, from 0.
    pub(super) const fn output(&self, number: usize) -> Option<Stored> {
        match self.step {
            Step::Change(_) if number == 0 => Some((self.from.0, self.from.1 + 1)),
            Step::Rename(to) if number == 0 => Some(to),
            Step::Split(into, _) if number < into.len() => Some(into[number]),
            _ => None,
        }
    }
}
