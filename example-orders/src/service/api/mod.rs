//! The routes, by what they are about. Each says in its document who may use it, and that is enforced.

mod analytics;
mod checkouts;
mod cursor;
mod customers;
mod list;
mod operator;
mod orders;
mod past;
mod router;
mod steps;
mod views;
mod write;

pub use router::{Gates, Once, document, router};
