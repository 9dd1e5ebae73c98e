//! The embedded store: one SQLite file, one writer at a time, readers that never block it.

mod append;
mod connection;
mod fault;
mod options;
mod read;
mod snapshots;
mod store;
mod unit_of_work;

#[cfg(test)]
mod tests;

pub use connection::database::{SqliteDatabase, SqliteReader, SqliteTransaction};
pub use options::{SqliteOptions, Synchronous};
pub use store::{SqliteStore, sqlite};
pub use unit_of_work::SqliteUnitOfWork;
