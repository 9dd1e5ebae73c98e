//! The store for many writers and several machines: a PostgreSQL database.

mod append;
mod fault;
mod horizon;
mod migrate;
mod open;
mod options;
mod pool;
mod read;
mod rows;
mod store;
mod streams;
mod url;
mod waiting;

pub use options::PostgresOptions;
pub use store::{PostgresStore, postgres};
