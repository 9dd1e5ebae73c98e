//! Connections to the file: opening it, the write lock, and whether the file is still the one that was opened.

pub(super) mod database;
pub(super) mod file;
mod interrupt;
mod migrate;
pub(super) mod open;
pub(super) mod session;
