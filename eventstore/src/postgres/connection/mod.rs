//! Connections: from the URL to a session that is checked, pooled and borrowed by users.

pub(super) mod borrowed;
pub(super) mod planner;
pub(super) mod pool;
pub(super) mod server_run;
pub(super) mod session;
pub(super) mod url;
