//! What a run says at its end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::checkouts::Ends;
use super::drive::Sent;
use super::latencies::Latencies;
use super::read_back::ReadBack;
use super::repeat::Repeats;

/// What a run has measured and found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests that were sent.
    pub requests: usize,
    /// From the start to the last answer.
    pub time: Duration,
    /// From when each was to be sent to its answer.
    pub latencies: Latencies,
    /// Answers by their status; 0 stands for those that did not come.
    pub answers: BTreeMap<u16, usize>,
    /// What was sent again.
    pub repeats: Repeats,
    /// How the checkouts ended, if there were any.
    pub checkouts: Option<Ends>,
    /// Whether each order is there, once.
    pub read_back: ReadBack,
    /// How long after the end the list showed them.
    pub shown_after: Duration,
}

impl Report {
    /// What can be said before anything is sent again.
    pub fn of(all: &[Sent]) -> Self {
        let mut answers = BTreeMap::new();
        for sent in all {
            *answers.entry(sent.answer.status.unwrap_or(0)).or_insert(0) += 1;
        }
        Self {
            requests: all.len(),
            time: all.iter().map(|sent| sent.answered).max().unwrap_or_default(),
            latencies: all.iter().map(|sent| sent.answered.saturating_sub(sent.intended)).collect(),
            answers,
            repeats: Repeats::default(),
            checkouts: None,
            read_back: ReadBack::default(),
            shown_after: Duration::ZERO,
        }
    }

    /// Answers of success per second.
    pub fn per_second(&self) -> f64 {
        let done: usize = self.answers.iter().filter(|(status, _)| (200..300).contains(*status)).map(|(_, n)| n).sum();
        done as f64 / self.time.as_secs_f64().max(f64::EPSILON)
    }

    /// What must not be; `None` if each order that was acknowledged is there, once.
    pub fn problem(&self) -> Option<String> {
        let ReadBack { acknowledged, lost, duplicated, unexpected } = &self.read_back;
        let differ = &self.repeats.another_order;
        if lost.is_empty() && duplicated.is_empty() && unexpected.is_empty() && differ.is_empty() {
            return (*acknowledged == 0).then(|| "no order was acknowledged".to_owned());
        }
        let example = lost.iter().chain(duplicated).chain(unexpected).chain(differ).next();
        Some(format!(
            "of {acknowledged} orders {} are lost, {} duplicated, {} there though nobody acknowledged them, and {} requests got another \
             order when they were sent again; one of them is `{}`",
            lost.len(),
            duplicated.len(),
            unexpected.len(),
            differ.len(),
            example.map_or("", String::as_str)
        ))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, per_second) = (self.time.as_secs_f64(), self.per_second());
        writeln!(f, "  {} requests in {seconds:.1} s: {per_second:.0} done per second", self.requests)?;
        writeln!(f, "  latency   {}, from when each was to be sent", self.latencies)?;
        let answers = self.answers.iter().map(|(status, count)| match status {
            0 => format!("none: {count}"),
            status => format!("{status}: {count}"),
        });
        writeln!(f, "  answers   {}", answers.collect::<Vec<_>>().join(", "))?;
        if self.answers.contains_key(&429) {
            writeln!(
                f,
                "  limits    429 is that of the tenant or of its keys: ORDERS_LIMITS__CALLS, ORDERS_LIMITS__BURST, \
                 ORDERS_IDEMPOTENCY__KEYS_OF_A_CALLER"
            )?;
        }
        let Repeats { unknown, unknown_still, acknowledged, another_order } = &self.repeats;
        writeln!(
            f,
            "  repeated  {unknown} without an outcome, of which {unknown_still} still have none; {acknowledged} that were answered, of \
             which {} got another order",
            another_order.len()
        )?;
        if let Some(ends) = &self.checkouts {
            let statuses = ends.by_status.iter().map(|(status, count)| format!("{count} {status}"));
            let later = ends.later.as_secs_f64();
            writeln!(
                f,
                "  checkouts {}; {} had not ended when the last was sent, the last of them {later:.1} s later",
                statuses.collect::<Vec<_>>().join(", "),
                ends.backlog
            )?;
        }
        let ReadBack { acknowledged, lost, duplicated, unexpected } = &self.read_back;
        let (lost, duplicated, unexpected) = (lost.len(), duplicated.len(), unexpected.len());
        let after = self.shown_after.as_secs_f64();
        writeln!(
            f,
            "  orders    {acknowledged} acknowledged, {lost} lost, {duplicated} duplicated, {unexpected} not acknowledged; the list showed all after {after:.2} s"
        )
    }
}
