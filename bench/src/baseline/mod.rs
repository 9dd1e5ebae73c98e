//! The bare databases: the same tables, indexes and triggers, by plain sqlx.

pub(crate) mod postgres;
pub(crate) mod sqlite;
