//! Reads: packed pages of the log and of streams.

pub(super) mod as_of;
pub(super) mod pages;
pub(super) mod rows;
