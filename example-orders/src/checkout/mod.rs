//! The checkout over three services: as a saga, and as a choreography.

mod choreography;
pub(crate) mod definition;
pub(crate) mod flow;
mod handle;
mod parts;
mod standing;
pub(crate) mod timeline;

pub use handle::{Cart, CheckoutError, Checkouts, Flow, id};
pub use standing::{Moment, Standing};
