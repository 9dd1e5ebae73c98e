//! What appends of commands say of themselves, by the facades [`tracing`] and [`metrics`]. `docs/telemetry.md` lists the names.

use std::future::Future;
use std::time::Instant;

use metrics::{counter, histogram};
use tracing::field::Empty;
use tracing::{Instrument, info_span};

use super::error::ExecuteError;
use crate::append::Appended;
use crate::context::Context;
use crate::error::ErrorFamily;
use crate::metadata::TraceParent;
use crate::stream::StreamId;

/// Runs an append in a span of the trace of its command, counts it, and measures how long its caller waits.
pub(super) async fn observed<R>(
    stream: &StreamId,
    context: &Context,
    append: impl Future<Output = Result<Appended, ExecuteError<R>>>,
) -> Result<Appended, ExecuteError<R>> {
    let trace_parent = context.metadata().trace_parent.as_ref().map(TraceParent::as_str);
    let span = info_span!("append", %stream, trace_parent, result = Empty, position = Empty);
    let begun = Instant::now();
    let appended = append.instrument(span.clone()).await;
    let result = match &appended {
        Ok(appended) if appended.repeated => "repeated",
        Ok(_) => "stored",
        Err(error) => match error.family() {
            Some(ErrorFamily::Conflict) => "conflict",
            Some(ErrorFamily::OutcomeUnknown) => "unknown",
            _ => "failed",
        },
    };
    span.record("result", result);
    if let Ok(appended) = &appended {
        span.record("position", appended.position.get());
    }
    counter!("annals_appends_total", "result" => result).increment(1);
    histogram!("annals_append_seconds").record(begun.elapsed());
    appended
}
