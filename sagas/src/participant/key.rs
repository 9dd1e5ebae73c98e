//! How a step is named, and what its effect is handed.

use std::fmt;
use std::sync::Arc;

use annals_eventstore::{Invalid, Tenant};
use annals_resilience::{Deadline, IdempotencyKey};

use crate::event::Direction;

/// Names a step of one instance of a saga, as both of its calls do: `checkout-7/charge` for the keys `checkout-7/charge/do` and
/// `checkout-7/charge/undo`.
///
/// It has 1 to 195 visible ASCII characters. What comes before its last `/` is the saga, which becomes the correlation id of the
/// events.
///
/// ```
/// use annals_resilience::IdempotencyKey;
/// use annals_sagas::Direction;
/// use annals_sagas::participant::StepKey;
///
/// let (step, direction) = StepKey::of(&IdempotencyKey::new("checkout-7/charge/undo")?)?;
/// assert_eq!((step.as_str(), direction), ("checkout-7/charge", Direction::Undo));
/// assert_eq!(step.do_key().as_str(), "checkout-7/charge/do");
/// assert!(StepKey::of(&IdempotencyKey::new("checkout-7")?).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepKey(Arc<str>);

impl StepKey {
    /// Checks the text and makes a key of it.
    ///
    /// # Errors
    /// [`Invalid`] with the field `step`.
    pub fn new(text: impl AsRef<str>) -> Result<Self, Invalid> {
        let text = text.as_ref();
        let refused =
            |problem: String| Invalid::new("step", problem, "name the saga and its step: `checkout-7/charge`");
        if text.is_empty() || text.starts_with('$') || text.starts_with("__") {
            return Err(refused(format!("`{text}` is empty, or begins with `$` or `__`")));
        }
        IdempotencyKey::new(format!("{text}/{}", Direction::Undo))
            .map_err(|e| refused(format!("`{text}` makes no key: {e}")))?;
        Ok(Self(text.into()))
    }

    /// The step of a call, and whether it is to be done or undone.
    ///
    /// # Errors
    /// [`Invalid`] with the field `step` if the key does not end in `/do` or `/undo`, or the rest of it is no step.
    pub fn of(key: &IdempotencyKey) -> Result<(Self, Direction), Invalid> {
        let (step, direction) = match key.as_str().rsplit_once('/') {
            Some((step, "do")) => (step, Direction::Do),
            Some((step, "undo")) => (step, Direction::Undo),
            _ => {
                let problem = format!("of the key `{key}` is not named");
                return Err(Invalid::new("step", problem, "end the key in `/do` or `/undo`"));
            }
        };
        Ok((Self::new(step)?, direction))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key under which the step is done.
    #[must_use]
    pub fn do_key(&self) -> IdempotencyKey {
        self.key(Direction::Do)
    }

    /// The key under which it is undone.
    #[must_use]
    pub fn undo_key(&self) -> IdempotencyKey {
        self.key(Direction::Undo)
    }

    pub(crate) fn key(&self, direction: Direction) -> IdempotencyKey {
        IdempotencyKey::new(format!("{self}/{direction}")).expect("`new` has tried the longer of both")
    }

    /// The saga, if it is named.
    pub(crate) fn saga(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(saga, _)| saga).filter(|saga| !saga.is_empty())
    }
}

impl fmt::Display for StepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an effect is handed for one call.
#[derive(Clone, Debug)]
pub struct StepCall {
    pub(crate) step: StepKey,
    pub(crate) direction: Direction,
    pub(crate) tenant: Tenant,
    pub(crate) deadline: Deadline,
}

impl StepCall {
    /// The step.
    #[must_use]
    pub fn step(&self) -> &StepKey {
        &self.step
    }

    /// The key of the effect: `{step}/do` or `{step}/undo`. The same for every call; hand it to the service, which must have the
    /// effect once.
    #[must_use]
    pub fn key(&self) -> IdempotencyKey {
        self.step.key(self.direction)
    }

    /// Whose step it is.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// When the effect is dropped; hand it to the service.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }
}
