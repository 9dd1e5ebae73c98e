//! What the run of an instance is told from outside.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use tracing::Span;

/// Handed to the run of one instance.
#[derive(Debug, Default)]
pub(crate) struct Control {
    stopped: AtomicBool,
    /// The version up to which the run has seen the stream.
    version: AtomicI64,
    look: Notify,
    span: Mutex<Option<Span>>,
}

impl Control {
    /// Lets it begin no further call.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Lets it look at its stream also while a call is under way: a signal or a person has changed it, or a row shows a
    /// version that it has not seen.
    pub(crate) fn look(&self, row: Option<i64>) {
        if row.is_none_or(|version| version > self.version.load(Ordering::Relaxed)) {
            self.look.notify_one();
        }
    }

    pub(crate) fn set_version(&self, version: i64) {
        self.version.store(version, Ordering::Relaxed);
    }

    /// The span of the run has begun.
    pub(crate) fn set_span(&self, span: &Span) {
        *self.span.lock().unwrap_or_else(PoisonError::into_inner) = Some(span.clone());
    }

    /// The span of a run that is over, for what is said of how it ended. It ends when this is dropped.
    pub(crate) fn take_span(&self) -> Span {
        self.span.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_else(Span::none)
    }

    pub(crate) async fn changed(&self) {
        self.look.notified().await;
    }
}
