//! What a run has shown.

use std::fmt;

use serde::Serialize;

use crate::torture::crash::Crashes;
use crate::torture::judge::{Delivery, LogVerdict};
use crate::torture::part::Tally;
use crate::torture::readers::watch::Wait;

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
    pub(crate) log: LogVerdict,
    /// Of all readers.
    pub(crate) delivered: Delivery,
    /// Acknowledged events that are not in the log as they were acknowledged.
    pub(crate) lost: u64,
    pub(crate) reads: Vec<Read>,
    pub(crate) resumed: u64,
    pub(crate) on_standby: u64,
    pub(crate) killed_backends: u64,
    pub(crate) killed_readers: u64,
    pub(crate) crashes: Crashes,
    pub(crate) longest_wait: Option<Wait>,
    pub(crate) most_over_writer: Option<Wait>,
    pub(crate) peak_resident_mb: Option<f64>,
    /// What went wrong in another way: errors that should not come, readers that stand still.
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
    /// Whether the judgement is as it should be: nothing wrong with our readers, missed events with naive ones.
    pub(crate) fn is_as_it_should_be(&self) -> bool {
        let writes = self.log.inverted + self.log.holes + self.lost == 0 && self.failures.is_empty();
        let Delivery { missed, duplicated, inverted, inverted_in_stream, untrue, .. } = self.delivered;
        match self.reader {
            "naive" => writes && missed > 0,
            _ => writes && missed + duplicated + inverted + inverted_in_stream + untrue == 0,
        }
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
        writeln!(f, "  appended     {:>11}   events in the log; {} numbers are dead", log.appended, log.dead_numbers)?;
        writeln!(f, "  delivered    {:>11}   events, to {} readers", delivered.delivered, self.reads.len())?;
        writeln!(f, "  missed       {:>11}", delivered.missed)?;
        writeln!(f, "  duplicated   {:>11}", delivered.duplicated)?;
        writeln!(
            f,
            "  inverted     {:>11}   delivered after a later event; {} of them after one of their own stream",
            delivered.inverted, delivered.inverted_in_stream
        )?;
        writeln!(f, "  untrue       {:>11}   delivered, but not in the log, or not so", delivered.untrue)?;
        writeln!(f, "  misplaced    {:>11}   in the log before an earlier version of their stream", log.inverted)?;
        writeln!(f, "  holes        {:>11}   versions that a stream has left out", log.holes)?;
        writeln!(f, "  lost         {:>11}   events that were acknowledged and are not in the log", self.lost)?;
        writeln!(
            f,
            "  writers: {} rolled back, {} savepoints undone, {} prepared, {} to several streams, {} conflicts, \
             {} failed or unknown, {} found stored when repeated, {} backends killed",
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
            "  crashes: {} immediate stops, {} of them with a promotion, {} numbers handed out again, away for {} ms at most",
            crashes.stops, crashes.promotions, crashes.numbers_again, crashes.longest_outage_ms
        )?;
        if let Some((least, most)) = crashes.sequence_ahead {
            writeln!(f, "  the sequence stood {least} to {most} ahead of the log after a promotion")?;
        }
        if let (Some(longest), Some(over)) = (self.longest_wait, self.most_over_writer) {
            writeln!(
                f,
                "  longest wait of a read: {:.0} ms, the oldest writer being {:.0} ms old; most beyond the oldest writer: \
                 {:.0} ms, it being {:.0} ms old",
                longest.waited_ms, longest.oldest_writer_ms, over.waited_ms, over.oldest_writer_ms
            )?;
        }
        if let Some(peak) = self.peak_resident_mb {
            writeln!(f, "  memory of the judge: {peak:.0} MB resident at most")?;
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
        write!(f, "{}", if self.is_as_it_should_be() { "as it should be" } else { "NOT AS IT SHOULD BE" })
    }
}
