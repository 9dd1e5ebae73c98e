//! A PostgreSQL server for tests.
//!
//! The first test that asks starts it: a cluster of its own in the folder for temporary files, reachable by a socket in
//! that folder only, shared by all test processes of one build folder. A watchdog stops and removes it when no test
//! process has been there for a while. `ANNALS_POSTGRES_URL` names a server to use instead.
//!
//! A [`Server`] is for tests that crash one, or need a standby: it belongs to its owner alone.

mod binaries;
mod cluster;
mod database;
mod server;

pub use database::Database;
pub use server::{Server, Stop};
