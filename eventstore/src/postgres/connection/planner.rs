//! Settings that a store's connections do not leave to others: of the planner, so that no state of the tables spoils a plan,
//! and the isolation of transactions.
//!
//! A session keeps the plans of its statements. One that was made while the log was short would read and sort all of it,
//! and goes on doing so until the table is analysed again. Every statement of ours has an index in its order, so the
//! connections of a store do without the other ways; the caller's own statements get them back. A statement that has no
//! way but those would seem so dear that the server compiles it first, so there is none: also the sequence is read by a
//! function, not as a table.

/// For every connection of a store, from its beginning.
pub(crate) const BY_INDEX: [(&str, &str); 2] = [("enable_seqscan", "off"), ("enable_bitmapscan", "off")];

/// The same. A statement that waits for another's append must see it then, which it does not in a transaction that keeps
/// its snapshot; and a role or a database may have that as its default.
pub(crate) const READ_COMMITTED: (&str, &str) = ("default_transaction_isolation", "read committed");

/// The same for one transaction.
macro_rules! by_index {
    () => {
        "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"
    };
}
pub(crate) use by_index;

/// Takes it back for a session. It is restored by `RESET ALL`.
pub(crate) const DEFAULT_PLANNER: &str = "SET enable_seqscan = on; SET enable_bitmapscan = on";

/// Takes it back for a transaction.
macro_rules! default_planner {
    () => {
        "SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on"
    };
}
pub(crate) use default_planner;

/// For a transaction that is planned freely, and in which statements of ours run too: each is planned for its values, and no
/// plan is kept that the connection would use for the store again.
pub(crate) const KEEP_NO_PLAN: &str = "SET LOCAL plan_cache_mode = force_custom_plan;";
