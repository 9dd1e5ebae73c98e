//! The read models: each is a fold of events into rows.

pub mod analytics;
pub mod detail;
pub mod list;
pub mod statement;
