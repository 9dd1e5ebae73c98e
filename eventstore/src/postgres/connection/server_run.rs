//! Which run of a server a connection reaches. What is remembered of the log counts only in the run in which it was seen:
//! the next one may have lost what was committed and not waited for, and give out the same positions anew.

use std::sync::Arc;

/// A run ends with the server, and when it recovers from a killed process: then all sessions end, but it says that it was
/// started when it was before. A recovery forgets all statistics, so they tell when it was. (That somebody resets them by
/// hand begins a run too, which costs a look.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerRun(Arc<str>);

impl From<String> for ServerRun {
    fn from(run: String) -> Self {
        Self(run.into())
    }
}

/// The run of the server that evaluates it, as a text.
macro_rules! server_run {
    () => {
        "concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()), \
         extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()))"
    };
}
pub(crate) use server_run;
