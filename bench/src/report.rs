//! One result: ours, the baseline, and the ratio.

use std::fmt;

use serde::Serialize;

/// One measured case.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) case: String,
    pub(crate) store: String,
    pub(crate) clients: usize,
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) baseline: String,
    pub(crate) baseline_per_second: Option<f64>,
    pub(crate) ratio: Option<f64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} on {}, {} clients", self.case, self.store, self.clients)?;
        writeln!(
            f,
            "  annals    {:>12.0} /s   p50 {:.0} us   p99 {:.0} us",
            self.per_second, self.p50_us, self.p99_us
        )?;
        match (self.baseline_per_second, self.ratio) {
            (Some(rate), Some(ratio)) => {
                writeln!(f, "  baseline  {rate:>12.0} /s   {}", self.baseline)?;
                write!(f, "  ratio     {ratio:>12.2}")
            }
            _ => write!(f, "  no baseline"),
        }
    }
}
