//! The store for many writers and several machines: a PostgreSQL database.

mod append;
mod copy;
mod database;
mod fault;
mod group;
mod held_up;
mod holders;
mod horizon;
mod lent;
mod migrate;
mod news;
mod open;
mod options;
mod pinned;
mod plan;
mod pool;
mod read;
mod replication;
mod rows;
mod server_run;
mod session;
mod store;
mod streams;
#[cfg(test)]
mod tests;
mod unit_of_work;
mod unsettled;
mod url;
mod within;
mod writer;

pub use database::{PostgresDatabase, PostgresReader, PostgresTransaction};
pub use options::PostgresOptions;
pub use store::{PostgresStore, postgres};
pub use unit_of_work::PostgresUnitOfWork;
