//! Why a side effect failed, and whether it is tried again.

use std::error::Error;
use std::fmt;

use annals_eventstore::{AppendError, DatabaseError, ErrorFamily, Invalid, OpenError, ReadError};

use crate::error::{StartError, Stopped, WaitError};

/// Why a reactor could not handle an event.
///
/// Any error becomes one by `?`. An error of annals, or one with an error of annals among its sources, knows its
/// [`ErrorFamily`]: invalid and broken ones are permanent, the others transient. **Any other error is transient**: a mail server
/// that is down looks like this. What will never work is said by [`ReactorError::permanent`].
///
/// A rejection of a command, [`ExecuteError::Rejected`](annals_eventstore::ExecuteError::Rejected), has no family and so is
/// transient; decide in `react` what it means.
///
/// - *Transient*: the event is tried again, after waits that double from 200 ms to one minute and lose up to a half at
///   random. The waits and their growth survive a restart. There is no limit unless [`Reacting::tries`](crate::Reacting::tries)
///   sets one.
/// - *Permanent*: the reactor stops, or parks the stream with [`Reacting::dead_letter`](crate::Reacting::dead_letter).
///
/// It is no `Error` itself, so that every error can become one.
///
/// ```
/// use annals_projections::ReactorError;
///
/// fn address(text: &str) -> Result<&str, ReactorError> {
///     if text.contains('@') { Ok(text) } else { Err(ReactorError::permanent(format!("`{text}` is no address"))) }
/// }
///
/// fn count(text: &str) -> Result<u32, ReactorError> {
///     Ok(text.parse()?)
/// }
///
/// assert!(address("ann").unwrap_err().is_permanent());
/// assert!(!count("many").unwrap_err().is_permanent());
/// ```
pub struct ReactorError {
    permanent: bool,
    pub(crate) source: Box<dyn Error + Send + Sync>,
}

impl ReactorError {
    /// It will fail each time: an error, or a text, which is a lower-case fragment.
    pub fn permanent(why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { permanent: true, source: why.into() }
    }

    /// It may work later: an error, or a text, which is a lower-case fragment.
    pub fn transient(why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { permanent: false, source: why.into() }
    }

    /// Whether it would fail each time.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for ReactorError {
    fn from(source: E) -> Self {
        let permanent = matches!(family(&source), Some(ErrorFamily::Invalid | ErrorFamily::Broken));
        Self { permanent, source: source.into() }
    }
}

/// The family of the first error in the chain that has one.
fn family(error: &(dyn Error + 'static)) -> Option<ErrorFamily> {
    let mut next = Some(error);
    while let Some(error) = next {
        let own = None
            .or_else(|| error.downcast_ref::<AppendError>().map(AppendError::family))
            .or_else(|| error.downcast_ref::<ReadError>().map(ReadError::family))
            .or_else(|| error.downcast_ref::<DatabaseError>().map(DatabaseError::family))
            .or_else(|| error.downcast_ref::<OpenError>().map(OpenError::family))
            .or_else(|| error.downcast_ref::<StartError>().map(StartError::family))
            .or_else(|| error.downcast_ref::<WaitError>().map(WaitError::family))
            .or_else(|| error.downcast_ref::<Stopped>().map(Stopped::family))
            .or_else(|| error.is::<Invalid>().then_some(ErrorFamily::Invalid));
        if own.is_some() {
            return own;
        }
        next = error.source();
    }
    None
}

impl fmt::Debug for ReactorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ReactorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}
