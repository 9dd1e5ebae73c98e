//! Reads: packed pages of the log and of streams.

pub(super) mod pages;
pub(super) mod rows;
