//! The key of a side effect.

use std::fmt;

use annals_eventstore::EventId;
use uuid::Uuid;

/// The space of the keys; chosen once.
const NAMESPACE: Uuid = Uuid::from_u128(0x5b0c_8a1e_3f47_4d6c_9e02_71c4_a6d9_18f3);

/// What makes a side effect that is asked for twice one effect: pass it to the receiver as its idempotency key.
///
/// It is made of the reactor's name, the id of the event and the part of the event
/// ([`Recorded::part`](annals_eventstore::Recorded::part)), and of nothing else. So it is the same in every try, after every
/// restart and in every process, and another for any other event, part or reactor. It is a UUID of version 5 (RFC 9562).
/// Its text has 36 characters, hexadecimal digits and `-`, which every header of HTTP takes.
///
/// ```
/// use annals_eventstore::{EventId, IdSource, SeededIds};
/// use annals_projections::EffectKey;
///
/// let event = EventId::new(SeededIds::new(7).next_id())?;
/// let key = EffectKey::new("mailer", event, 0);
/// assert_eq!(key, EffectKey::new("mailer", event, 0));
/// assert_ne!(key, EffectKey::new("mailer", event, 1));
/// assert_ne!(key, EffectKey::new("printer", event, 0));
/// let header = ("Idempotency-Key", key.to_string());
/// assert_eq!(header.1.len(), 36);
/// // A second effect of the same event at the same receiver.
/// assert_ne!(key.effect("copy for the archive"), key);
/// # Ok::<(), annals_eventstore::Invalid>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EffectKey(Uuid);

impl EffectKey {
    /// The key of an event's part for the reactor called `reactor`; the runner makes it, and tests of receivers.
    #[must_use]
    pub fn new(reactor: &str, event_id: EventId, part: u32) -> Self {
        // The ends have fixed lengths, so no two inputs give the same bytes.
        let mut bytes = reactor.as_bytes().to_vec();
        bytes.extend(event_id.get().as_bytes());
        bytes.extend(part.to_be_bytes());
        Self(Uuid::new_v5(&NAMESPACE, &bytes))
    }

    /// The key of one of several effects, where `react` asks for more than one. `effect` is a name that never changes.
    #[must_use]
    pub fn effect(&self, effect: &str) -> Self {
        Self(Uuid::new_v5(&self.0, effect.as_bytes()))
    }

    /// The key as a UUID.
    #[must_use]
    pub fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl fmt::Display for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EffectKey({self})")
    }
}
