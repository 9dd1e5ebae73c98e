//! The store for many writers and several machines: a PostgreSQL database.

mod append;
mod database;
mod fault;
mod group;
mod held_up;
mod horizon;
mod lent;
mod migrate;
mod open;
mod options;
mod pinned;
mod plan;
mod pool;
mod read;
mod rows;
mod session;
mod store;
mod streams;
#[cfg(test)]
mod tests;
mod writer;

pub use database::{PostgresDatabase, PostgresReader, PostgresTransaction};
pub use options::PostgresOptions;
pub use store::{PostgresStore, postgres};
