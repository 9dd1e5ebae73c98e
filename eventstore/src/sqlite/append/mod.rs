//! Appends: the group commit, its rounds, and request keys.

pub(super) mod direct;
pub(super) mod insert;
pub(super) mod lone;
pub(super) mod requests;
pub(super) mod round;
pub(super) mod writer;
