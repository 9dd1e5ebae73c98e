//! Which run of a server a connection reaches. What is known about the log is valid only for the run in which it was read:
//! the next run may have lost commits that were not flushed, and may allocate the same positions again.

use std::sync::Arc;

/// A run ends with the server, or when the server recovers from a killed process. After a recovery all sessions are gone,
/// but the start time is unchanged. A recovery resets all statistics, so the time of their reset is part of the value. (A
/// reset by hand begins a new run too, which costs one more query.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerRun(Arc<str>);

impl From<String> for ServerRun {
    fn from(run: String) -> Self {
        Self(run.into())
    }
}

/// SQL for the run of the server that evaluates it, as text.
macro_rules! server_run {
    () => {
        "concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()), \
         extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()))"
    };
}
pub(crate) use server_run;
