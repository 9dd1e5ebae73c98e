//! The embedded store: one SQLite file, one writer at a time, readers that never block it.

mod append;
mod database;
mod fault;
mod file;
mod insert;
mod open;
mod options;
mod read;
mod requests;
mod rows;
mod store;
mod unit_of_work;
mod writer;

#[cfg(test)]
mod tests;

pub use database::{SqliteDatabase, SqliteReader, SqliteTransaction};
pub use options::{SqliteOptions, Synchronous};
pub use store::{SqliteStore, sqlite};
pub use unit_of_work::SqliteUnitOfWork;
