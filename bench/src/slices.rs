//! Two sides alternate in slices of time, so that a noisy machine affects both.

use std::time::Duration;

use crate::report::{Report, peak_resident_mb};

/// What one side did in its slices so far.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) units: u64,
    pub(crate) busy: Duration,
    pub(crate) latencies_us: Vec<f64>,
}

impl Tally {
    /// Adds one slice: units done, time taken, and the latency of each operation.
    pub(crate) fn add(&mut self, units: u64, busy: Duration, latencies: impl IntoIterator<Item = Duration>) {
        self.units += units;
        self.busy += busy;
        self.latencies_us.extend(latencies.into_iter().map(|d| d.as_secs_f64() * 1e6));
    }

    pub(crate) fn per_second(&self) -> f64 {
        if self.busy.is_zero() { 0.0 } else { self.units as f64 / self.busy.as_secs_f64() }
    }

    fn percentile(&mut self, part: f64) -> f64 {
        if self.latencies_us.is_empty() {
            return 0.0;
        }
        self.latencies_us.sort_by(f64::total_cmp);
        let last = self.latencies_us.len() - 1;
        self.latencies_us[(last as f64 * part) as usize]
    }
}

/// Puts both sides into a report.
pub(crate) fn report(
    case: &str,
    store: &str,
    clients: usize,
    mut ours: Tally,
    baseline: Option<(&str, Tally)>,
) -> Report {
    let per_second = ours.per_second();
    let baseline_per_second = baseline.as_ref().map(|(_, tally)| tally.per_second());
    Report {
        case: case.to_owned(),
        store: store.to_owned(),
        clients,
        processes: 1,
        per_second,
        p50_us: ours.percentile(0.50),
        p99_us: ours.percentile(0.99),
        baseline: baseline.map_or("none", |(name, _)| name).to_owned(),
        baseline_per_second,
        ratio: baseline_per_second.map(|rate| per_second / rate),
        peak_resident_mb: peak_resident_mb(),
    }
}

/// How many slices a measurement of `seconds` has, and how long each is.
pub(crate) fn plan(seconds: Duration) -> (usize, Duration) {
    let slices = (seconds.as_secs_f64() / 0.5).round().max(1.0);
    (slices as usize, seconds.div_f64(slices))
}
