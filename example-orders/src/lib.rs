//! A small shop on annals: the manual as a program. README.md beside this folder has the reading order.
//!
//! The library is what `main.rs` runs, and what the tests in `tests/` start.

#![expect(unreachable_pub, reason = "the files are written as those of a library would be")]

pub mod checkout;
mod command_line;
pub mod connections;
mod dashboard;
pub mod degradation;
pub mod domain;
pub mod load;
mod location;
mod read_models;
mod scenes;
pub mod service;
pub mod services;
mod shop;
#[cfg(test)]
mod tests;

pub use command_line::run;

/// Any error that stops a scene or the service.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;
