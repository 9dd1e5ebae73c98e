//! What is recorded about a step.

use std::sync::Arc;

use annals_macros::Event;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One event of the stream of a step.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum StepEvent {
    /// An effect outside of the store is about to be made.
    #[event(name = "participant.do_begun")]
    DoBegun {
        /// The fingerprint of the request.
        request: String,
        at: Timestamp,
        /// When the effect is dropped at the latest.
        until: Timestamp,
        /// The path of the handler that was called, if it was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<Arc<str>>,
    },
    #[event(name = "participant.done")]
    Done {
        request: String,
        answer: Value,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<Arc<str>>,
    },
    /// For good.
    #[event(name = "participant.do_refused")]
    DoRefused {
        request: String,
        reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<Arc<str>>,
    },
    /// The effect ended without an answer, and may be made again.
    #[event(name = "participant.do_failed")]
    DoFailed { error: String },
    #[event(name = "participant.undo_begun")]
    UndoBegun { at: Timestamp, until: Timestamp },
    /// As the first event it is a tombstone.
    #[event(name = "participant.undone")]
    Undone,
    /// The undo ended without success, and may be made again.
    #[event(name = "participant.undo_failed")]
    UndoFailed { error: String },
}
