//! The checkout over three services: as a saga, and as a choreography.

mod choreography;
pub(crate) mod definition;
pub(crate) mod flow;
pub(crate) mod handle;
pub(crate) mod parts;
mod placer;
mod standing;
pub mod timeline;

pub use handle::{Cart, CheckoutError, Checkouts, Flow, id};
pub use standing::{Moment, Standing, flow_and_order};
