//! The routes, by what they are about. Each says in its document who may use it, and that is enforced.

pub(crate) mod analytics;
pub(crate) mod checkouts;
mod cursor;
mod customers;
pub(crate) mod list;
mod operator;
pub(crate) mod orders;
mod past;
#[cfg(test)]
mod plans;
mod preferences;
mod router;
mod steps;
mod texts;
mod toggles;
pub(crate) mod views;
mod write;

pub use list::Wanted;
pub use router::{Gates, Once, document, router};
pub use views::OrderPage;
