//! Planner settings and isolation level of a store's own connections, so that table statistics cannot lead to a bad plan.
//!
//! A session caches the plans of its statements. A plan that was made while the log was short would scan and sort the whole
//! log, until the table is analysed again. Every statement of the store has an index in its order, so its connections turn
//! sequential and bitmap scans off; for the caller's own statements they are on. A statement that needs one of them would
//! have such a high cost that the server JIT-compiles it first, so there is none: even the sequence is read by a function,
//! not as a table.

/// Set on every connection of a store when it is opened.
pub(crate) const BY_INDEX: [(&str, &str); 2] = [("enable_seqscan", "off"), ("enable_bitmapscan", "off")];

/// Set with it. A statement that waits for another transaction's append must see that append afterwards, which a transaction
/// with one snapshot does not; and a role or a database may have another default isolation.
pub(crate) const READ_COMMITTED: (&str, &str) = ("default_transaction_isolation", "read committed");

/// The planner settings for one transaction.
macro_rules! by_index {
    () => {
        "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"
    };
}
pub(crate) use by_index;

/// Restores the planner's defaults for a session, until `RESET ALL`.
pub(crate) const DEFAULT_PLANNER: &str = "SET enable_seqscan = on; SET enable_bitmapscan = on";

/// Restores the planner's defaults for a transaction.
macro_rules! default_planner {
    () => {
        "SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on"
    };
}
pub(crate) use default_planner;

/// For a transaction with the planner's defaults in which the store's statements run too: each is planned for its values,
/// and no plan is cached that the connection would later use for the store.
pub(crate) const KEEP_NO_PLAN: &str = "SET LOCAL plan_cache_mode = force_custom_plan;";
