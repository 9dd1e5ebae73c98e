//! Reads: pages of the log and of streams, and how far the log is final.

pub(super) mod as_of;
pub(super) mod copy;
pub(super) mod holders;
pub(super) mod horizon;
pub(super) mod pages;
pub(super) mod rows;
pub(super) mod streams;
pub(super) mod unsettled;
