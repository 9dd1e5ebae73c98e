//! One result: ours, the baseline, and the ratio.

use std::fmt;

use serde::Serialize;

/// One measured case.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) case: String,
    pub(crate) store: String,
    pub(crate) clients: usize,
    /// Processes, with `clients` each.
    pub(crate) processes: usize,
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) baseline: String,
    pub(crate) baseline_per_second: Option<f64>,
    pub(crate) ratio: Option<f64>,
    /// The largest resident memory of the process so far, both sides and filling included.
    pub(crate) peak_resident_mb: Option<f64>,
}

/// The largest resident memory of this process, as the kernel counts it.
pub(crate) fn peak_resident_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes / 1024.0)
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
                write!(f, "  ratio     {ratio:>12.2}")?;
            }
            _ => write!(f, "  no baseline")?,
        }
        match self.peak_resident_mb {
            Some(peak) => write!(f, "\n  memory    {peak:>12.1} MB resident at most"),
            None => Ok(()),
        }
    }
}
