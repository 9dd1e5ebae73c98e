//! What the service tells those who run it: lines of a log, spans of traces, and metrics.
//!
//! The crates write to the facades `tracing` and `metrics`, which cost next to nothing as long as nobody listens. Here is who listens:
//! one layer for logs and traces, and a recorder that Prometheus reads.

mod lines;
mod metrics;
mod otlp;
mod requests;
mod spans;

use std::time::Duration;

use serde::Deserialize;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;

pub use self::lines::Format;
pub use self::metrics::{Metrics, routes};
pub use self::requests::{measured, method_of, route_of};

use self::lines::Lines;
use self::metrics::Recorded;
use self::otlp::Otlp;
use self::spans::Spans;
use crate::Fault;

/// How long the last lines and spans are waited for when the service ends.
const LAST: Duration = Duration::from_secs(2);

/// The log, which is written to the standard error.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// For people or for programs.
    pub format: Format,
    /// The lowest level that is written: of all, or by crate, as in `info,annals_eventstore=debug`.
    pub level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: Format::Text, level: "info".to_owned() }
    }
}

/// Traces.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceSettings {
    /// The address of a collector that speaks OTLP over HTTP, such as `http://127.0.0.1:4318`. Without one no span leaves the process.
    pub otlp: Option<String>,
    /// What the collector knows the service as.
    pub service: String,
    /// Which share of the traces that begin here is kept, from 0 to 1. A caller's own trace is kept if the caller keeps it.
    pub kept: f64,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self { otlp: None, service: "example-orders".to_owned(), kept: 1.0 }
    }
}

/// All of it, until the service ends.
pub struct Telemetry {
    lines: Lines,
    otlp: Option<Otlp>,
    recorded: Recorded,
}

impl Telemetry {
    /// Listens to the facades, for the whole process.
    ///
    /// # Errors
    /// A setting cannot work, or somebody in the process listens already.
    pub fn start(log: &LogSettings, traces: &TraceSettings) -> Result<Self, Fault> {
        if !(0.0..=1.0).contains(&traces.kept) {
            return Err(format!("`traces.kept` is {}, and not a share from 0 to 1", traces.kept).into());
        }
        let wrong = |e: &dyn std::fmt::Display| {
            format!("`log.level` is no level, as `info` or `info,annals_eventstore=debug` is: {e}")
        };
        // The parser takes a word that is no level for the name of a crate, and then nothing is written.
        let misspelt =
            log.level.split(',').find(|part| !part.contains('=') && part.trim().parse::<LevelFilter>().is_err());
        let levels: Targets = match misspelt {
            None => log.level.parse().map_err(|e| wrong(&e))?,
            Some(word) => return Err(wrong(&format!("`{word}`")).into()),
        };
        let lines = Lines::start(log.format)?;
        let otlp = traces.otlp.as_deref().map(|address| Otlp::start(address, &traces.service)).transpose()?;
        let recorded = Recorded::start()?;
        let spans = Spans::new(levels, lines.clone(), otlp.clone());
        tracing::subscriber::set_global_default(Registry::default().with(spans))?;
        Ok(Self { lines, otlp, recorded })
    }

    /// Writes and sends what is left, for as long as that does not take too long.
    pub async fn close(self) {
        if let Some(otlp) = self.otlp {
            otlp.close(LAST).await;
        }
        self.lines.flush(LAST).await;
    }
}
