//! The lines on standard output.

use std::io::Write;

use serde::Serialize;

use crate::Fault;

/// One finished operation, or a change of what a process runs.
#[derive(Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(crate) enum Line<'a> {
    /// An append to one stream, or the part of an append to several streams that belongs to it.
    Append { s: &'a str, exp: i64, ids: &'a [String], r: &'a str, t0: i128, t1: i128 },
    /// A load of a whole stream.
    Load { s: &'a str, ids: &'a [String], t0: i128, t1: i128 },
    /// The `n`-th event of a subscription from the beginning, counted from 0.
    Sub { c: u32, n: u64, id: String },
    /// A process has started to run a projection.
    Run { name: &'a str, projection: &'a str, slots: u32, lease_ms: u128, t: i128 },
    /// The slots that the process works on, after a change.
    Own { name: &'a str, slots: &'a [u32], t: i128 },
    /// The projection has stopped because of an error.
    Stopped { name: &'a str, why: &'a str, t: i128 },
    /// The process has given its slots back. It has applied so many events in all.
    End { name: &'a str, applied: u64, t: i128 },
    /// A saga has ended, is stuck at a step, or was waited for in vain.
    Saga { id: &'a str, r: &'a str, at: Option<&'a str>, why: Option<&'a str>, t0: i128, t1: i128 },
}

/// Prints a line and flushes it.
pub(crate) fn print(line: &Line<'_>) -> Result<(), Fault> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// CLOCK_MONOTONIC in nanoseconds, which all processes of a machine share.
pub(crate) fn monotonic() -> i128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}
