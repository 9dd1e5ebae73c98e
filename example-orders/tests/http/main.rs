//! The service over real HTTP: the binary is started as a user starts it, on a SQLite file and on PostgreSQL.

mod access;
mod as_of;
mod checkouts;
mod once;
mod pages;
mod routes;
mod seen;
mod server;
mod service;
