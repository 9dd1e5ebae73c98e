//! The lines on standard output.

use std::io::Write;

use serde::Serialize;

use crate::Fault;

/// One finished operation.
#[derive(Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(crate) enum Line<'a> {
    /// An append to one stream, or the part of an append to several streams that belongs to it.
    Append { s: &'a str, exp: i64, ids: &'a [String], r: &'a str, t0: i128, t1: i128 },
    /// A load of a whole stream.
    Load { s: &'a str, ids: &'a [String], t0: i128, t1: i128 },
    /// The `n`-th event of a subscription from the beginning, counted from 0.
    Sub { c: u32, n: u64, id: String },
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
