//! A PostgreSQL server for tests.
//!
//! The first test that asks starts it: a cluster of its own in the folder for temporary files, reachable by a socket
//! there and with TLS on a free port of 127.0.0.1, shared by all test processes of one build folder; a pgbouncer before
//! it, if one is asked for. A watchdog stops and removes both when no test process has been there for a while.
//!
//! `ANNALS_POSTGRES_URL` names a server to use instead, where one is as good as another. `ANNALS_POSTGRES_BIN` names the
//! folder of the server's programs, to run another major version; without it they are those on the path, or the newest
//! of Debian's.
//!
//! A [`Server`] is for tests that crash one, or need a standby: it belongs to its owner alone. A [`SmallDisk`] is one that can
//! be filled, for those of any database.

pub mod again;
mod binaries;
mod cluster;
mod database;
mod pooler;
mod server;
mod small_disk;
mod tls;

pub use database::Database;
pub use server::{Server, Stop};
pub use small_disk::SmallDisk;
pub use tls::Tls;
