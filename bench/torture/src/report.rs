//! The report of a run.

use std::fmt;

use serde::Serialize;

use crate::check::{Delivery, LogCheck};
use crate::crash::Crashes;
use crate::progress::Tally;
use crate::readers::waits::WaitReport;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) case: &'static str,
    pub(crate) store: &'static str,
    pub(crate) reader: &'static str,
    pub(crate) seed: u64,
    pub(crate) writers: u32,
    pub(crate) processes: u32,
    pub(crate) seconds: f64,
    pub(crate) appends_per_second: f64,
    pub(crate) tally: Tally,
    pub(crate) log: LogCheck,
    /// The sum of all readers.
    pub(crate) delivered: Delivery,
    /// Acknowledged events that are not in the log, or differ there.
    pub(crate) lost: u64,
    /// Events of units of work without their row, and such rows without their event.
    pub(crate) torn: u64,
    pub(crate) reads: Vec<Read>,
    pub(crate) resumed: u64,
    pub(crate) on_standby: u64,
    pub(crate) killed_backends: u64,
    pub(crate) killed_readers: u64,
    pub(crate) crashes: Crashes,
    pub(crate) waits: Option<WaitReport>,
    pub(crate) peak_resident_mb: Option<f64>,
    /// Other failures: unexpected errors, readers that make no progress.
    pub(crate) failures: Vec<String>,
}

/// One reader.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Read {
    pub(crate) way: String,
    pub(crate) wanted: String,
    #[serde(flatten)]
    pub(crate) delivery: Delivery,
}

impl Report {
    /// Whether nothing is wrong. Naive readers should find something wrong, or the run has shown nothing.
    pub(crate) fn passed(&self) -> bool {
        let Delivery { missed, duplicated, inverted, inverted_in_stream, untrue, .. } = self.delivered;
        self.log.inverted + self.log.skipped_versions + self.lost + self.torn == 0
            && missed + duplicated + inverted + inverted_in_stream + untrue == 0
            && self.failures.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tally, log, delivered, crashes, .. } = self;
        writeln!(
            f,
            "torture on {}, {} readers, {} writers in {} processes, {:.0} s, seed {}",
            self.store, self.reader, self.writers, self.processes, self.seconds, self.seed
        )?;
        writeln!(
            f,
            "  appends      {:>11}   {:.0} /s (what one transaction adds to one stream, acknowledged), {} events",
            tally.appends, self.appends_per_second, tally.events
        )?;
        writeln!(f, "  appended     {:>11}   events in the log; {} positions have no event", log.appended, log.gaps)?;
        writeln!(f, "  delivered    {:>11}   events, to {} readers", delivered.delivered, self.reads.len())?;
        writeln!(f, "  missed       {:>11}", delivered.missed)?;
        writeln!(f, "  duplicated   {:>11}", delivered.duplicated)?;
        writeln!(
            f,
            "  inverted     {:>11}   delivered after a later event; {} of them after one of their own stream",
            delivered.inverted, delivered.inverted_in_stream
        )?;
        writeln!(f, "  untrue       {:>11}   delivered, but not in the log, or different there", delivered.untrue)?;
        writeln!(f, "  misplaced    {:>11}   in the log before an earlier version of their stream", log.inverted)?;
        writeln!(f, "  skipped      {:>11}   versions that a stream has not", log.skipped_versions)?;
        writeln!(f, "  lost         {:>11}   acknowledged events that are not in the log", self.lost)?;
        writeln!(f, "  torn         {:>11}   units of work that the log or their table has only in part", self.torn)?;
        writeln!(
            f,
            "  writers: {} through the library, {} units of work, {} rolled back, {} savepoints undone, {} prepared, {} to several streams, {} conflicts, \
             {} failed or unknown, {} found stored when repeated, {} backends killed",
            tally.library,
            tally.units,
            tally.rolled_back,
            tally.savepoints,
            tally.prepared,
            tally.to_several_streams,
            tally.conflicts,
            tally.unknown,
            tally.repeated,
            self.killed_backends
        )?;
        writeln!(
            f,
            "  readers: {} times resumed, {} of them on a standby, {} times killed",
            self.resumed, self.on_standby, self.killed_readers
        )?;
        writeln!(
            f,
            "  crashes: {}, {} of them by a killed backend, {} with a promotion; {} positions allocated again, unreachable for \
             {} ms at most",
            crashes.crashes,
            crashes.recoveries,
            crashes.promotions,
            crashes.positions_reused,
            crashes.longest_outage_ms
        )?;
        if let Some((least, most)) = crashes.sequence_ahead {
            writeln!(f, "  the sequence was {least} to {most} ahead of the log after a promotion")?;
        }
        if let Some(waits) = &self.waits {
            writeln!(f, "{waits}")?;
        }
        if let Some(peak) = self.peak_resident_mb {
            writeln!(f, "  memory: {peak:.0} MB resident at most")?;
        }
        for failure in &self.failures {
            writeln!(f, "  FAILED: {failure}")?;
        }
        for (number, read) in self.reads.iter().enumerate() {
            let Delivery { delivered, missed, duplicated, inverted, inverted_in_stream, untrue } = read.delivery;
            writeln!(
                f,
                "  reader {number}, {} of {}: {delivered} delivered, {missed} missed, {duplicated} duplicated, {inverted} \
                 inverted ({inverted_in_stream} in their stream), {untrue} untrue",
                read.way, read.wanted
            )?;
        }
        write!(f, "{}", if self.passed() { "nothing is wrong" } else { "SOMETHING IS WRONG" })
    }
}

/// The largest resident memory of this process, as the kernel counts it.
pub(crate) fn peak_resident_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(reader: &'static str) -> Report {
        Report {
            case: "torture",
            store: "postgres",
            reader,
            seed: 1,
            writers: 1,
            processes: 1,
            seconds: 1.0,
            appends_per_second: 1.0,
            tally: Tally::default(),
            log: LogCheck::default(),
            delivered: Delivery::default(),
            lost: 0,
            torn: 0,
            reads: Vec::new(),
            resumed: 0,
            on_standby: 0,
            killed_backends: 0,
            killed_readers: 0,
            crashes: Crashes::default(),
            waits: None,
            peak_resident_mb: None,
            failures: Vec::new(),
        }
    }

    #[test]
    fn anything_wrong_with_readers_or_the_log_fails_the_run() {
        let wrongs: [fn(&mut Report); 10] = [
            |report| report.delivered.missed = 1,
            |report| report.delivered.duplicated = 1,
            |report| report.delivered.inverted = 1,
            |report| report.delivered.inverted_in_stream = 1,
            |report| report.delivered.untrue = 1,
            |report| report.log.inverted = 1,
            |report| report.log.skipped_versions = 1,
            |report| report.lost = 1,
            |report| report.torn = 1,
            |report| report.failures.push("a process has failed".to_owned()),
        ];
        for reader in ["ours", "naive"] {
            assert!(report(reader).passed());
            assert!(report(reader).to_string().ends_with("nothing is wrong"));
            for (number, wrong) in wrongs.iter().enumerate() {
                let mut report = report(reader);
                wrong(&mut report);
                assert!(!report.passed(), "wrong {number}");
                assert!(report.to_string().ends_with("SOMETHING IS WRONG"), "{report}");
            }
        }
    }
}
