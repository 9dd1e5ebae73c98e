//! The service over real HTTP: the binary is started as a user starts it, on a SQLite file and on PostgreSQL.

mod access;
mod as_of;
mod browser;
mod checkouts;
mod connections;
mod dashboard;
mod dashboard_past;
mod dashboard_trouble;
mod degraded;
mod document;
mod lesser;
mod load;
mod once;
mod operators;
mod pages;
mod routes;
mod seen;
mod server;
mod service;
mod sessions;
mod telemetry;
mod traces;
