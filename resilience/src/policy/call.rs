use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::deadline::Deadline;

/// What an attempt should know, handed to the closure of a call.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub(super) attempt: u32,
    pub(super) deadline: Deadline,
    pub(super) connect: Duration,
    pub(super) read: Duration,
}

impl Call {
    /// 1 for the first attempt.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Until when an answer is of use: the end of the attempt, or the caller's deadline if that is earlier. Hand it on.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// How long to wait for a connection; never beyond the deadline.
    pub fn connect_timeout(&self) -> Duration {
        self.deadline.left().map_or(self.connect, |left| left.min(self.connect))
    }

    /// How long to wait for the next bytes of an answer; never beyond the deadline. It is no limit for the whole call: that
    /// is the policy's.
    pub fn read_timeout(&self) -> Duration {
        self.deadline.left().map_or(self.read, |left| left.min(self.read))
    }
}

/// Names one call to a dependency, so that it has its effect once however often it is sent.
///
/// From 1 to 200 visible ASCII characters, as the HTTP header `Idempotency-Key` carries them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey(Arc<str>);

/// A text that is no idempotency key. Answer with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has from 1 to {} visible ASCII characters", IdempotencyKey::LONGEST)]
pub struct KeyError;

impl IdempotencyKey {
    /// The most characters of a key.
    pub const LONGEST: usize = 200;

    /// Takes over a key.
    ///
    /// # Errors
    /// [`KeyError`] if it is empty, too long, or has other characters than visible ASCII.
    pub fn new(key: impl Into<Arc<str>>) -> Result<Self, KeyError> {
        let key = key.into();
        let fits = (1..=Self::LONGEST).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then_some(Self(key)).ok_or(KeyError)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for IdempotencyKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for IdempotencyKey {
    type Err = KeyError;

    fn from_str(key: &str) -> Result<Self, KeyError> {
        Self::new(key)
    }
}
