//! The store for many writers and several machines: a PostgreSQL database.

mod append;
mod connection;
mod database;
mod fault;
mod micros;
mod migrate;
mod notify;
mod open;
mod options;
mod read;
mod snapshots;
mod store;
#[cfg(test)]
mod tests;
mod unit_of_work;

pub use database::{PostgresDatabase, PostgresReader, PostgresTransaction};
pub use fault::{answer_within, next_within};
pub use micros::Micros;
pub use options::PostgresOptions;
pub use store::{PostgresStore, postgres};
pub use unit_of_work::PostgresUnitOfWork;
