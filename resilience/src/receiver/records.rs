use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::answer::Answer;
use super::fingerprint::Fingerprint;
use crate::http::BoxError;
use crate::policy::IdempotencyKey;

/// Who sends a request: the authenticated principal, as tenant and user. Never an address, which many may share.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Caller {
    name: Arc<str>,
    pub(super) group: Option<Arc<str>>,
}

impl Caller {
    /// The caller of this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), group: None }
    }

    /// The same caller as one of a group, such as a tenant, that shares the room for its keys. Callers of one name in two groups are two.
    #[must_use]
    pub fn of_group(self, group: impl Into<Arc<str>>) -> Self {
        Self { group: Some(group.into()), ..self }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The group.
    pub fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }
}

/// Which request a record is of: caller and key together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordId {
    /// Who sent it.
    pub caller: Caller,
    /// The key it came with.
    pub key: IdempotencyKey,
}

/// Where the receiver remembers requests and their answers.
///
/// An implementation upholds:
/// - Of all claims of one id, however many come at once, at most one is [`Found::New`] until that one is released.
/// - A record whose answer was kept is found for the time of retention, counted from then. It may lose the body, and must
///   not be forgotten earlier: the handler would run again. Without room for a new record, claims are
///   [`RecordsError::Full`].
/// - A claim that is dropped is released: the next one is new. If the process ends, its claims are released too, by a
///   lease for example.
pub trait Records: Send + Sync + 'static {
    /// The right to run the handler.
    type Claim: Claim;

    /// Looks up the record, and creates it if there is none.
    ///
    /// # Errors
    /// [`RecordsError`]; the handler is not run.
    fn claim(
        &self,
        id: &RecordId,
        fingerprint: &Fingerprint,
    ) -> impl Future<Output = Result<Found<Self::Claim>, RecordsError>> + Send;
}

/// The right to run the handler. Dropping it releases the key.
pub trait Claim: Send + 'static {
    /// Keeps the answer, so that repeats get it; only then the request is no longer in flight.
    ///
    /// # Errors
    /// [`RecordsError`]: the handler has run, so the key must stay claimed, at least until a lease ends.
    fn keep(self, answer: Answer) -> impl Future<Output = Result<(), RecordsError>> + Send;
}

/// What a claim found.
#[derive(Debug)]
pub enum Found<C> {
    /// No such request: run the handler.
    New(C),
    /// A request with this key is in flight.
    InFlight(Fingerprint),
    /// A request with this key was answered.
    Answered(Fingerprint, Answer),
}

/// The records cannot be used. Nothing was run; the same request may work later.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordsError {
    /// There is no room for another key.
    #[error("no room for another idempotency key{share}")]
    Full {
        /// Which share is used up.
        share: Share,
        /// When the oldest answer of that share is forgotten; `None` if that is not known.
        free_in: Option<Duration>,
    },
    /// Where the records are stored cannot be reached.
    #[error("the records of idempotency keys cannot be reached")]
    Unavailable(#[source] BoxError),
}

/// Of whose keys there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Share {
    /// Of the caller.
    Caller,
    /// Of the caller's group.
    Group,
    /// Of all callers.
    All,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// As the end of an error's text.
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caller => " of this caller",
            Self::Group => " of this caller's group",
            Self::All => "",
        })
    }
}
