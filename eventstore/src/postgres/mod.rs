//! The store for many writers and several machines: a PostgreSQL database.

mod append;
mod fault;
mod group;
mod held_up;
mod horizon;
mod migrate;
mod open;
mod options;
mod plan;
mod pool;
mod read;
mod rows;
mod store;
mod streams;
mod writer;

pub use options::PostgresOptions;
pub use store::{PostgresStore, postgres};
