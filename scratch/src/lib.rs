//! A PostgreSQL server for tests.
//!
//! The first test that needs it starts a cluster in the folder for temporary files. All test processes of one build folder
//! share it. It listens on a socket in its folder, and with TLS on a free port of 127.0.0.1. A pgbouncer in front of it is
//! started on demand. A watchdog stops and removes both when no test process has used them for a while.
//!
//! `ANNALS_POSTGRES_URL` names a server to use instead, for tests that can run on any server. `ANNALS_POSTGRES_BIN` names
//! the folder of the server's programs, to run another major version. The default is the programs on the path, or
//! Debian's newest.
//!
//! A [`Server`] is for tests that crash it or need a standby; one test owns it. A [`SmallDisk`] is a disk that a test can
//! fill.

pub mod again;
mod binaries;
mod cluster;
mod database;
mod pooler;
mod server;
mod small_disk;
mod tls;

pub use database::Database;
pub use server::{Frozen, Server, Stop};
pub use small_disk::SmallDisk;
pub use tls::Tls;
