//! Appends: one call of a stored function, groups that share a statement, and appends inside of transactions.

pub(super) mod blocked_streams;
pub(super) mod group;
pub(super) mod in_transaction;
pub(super) mod plan;
pub(super) mod replication;
pub(super) mod shares;
pub(super) mod single;
pub(super) mod writer;
