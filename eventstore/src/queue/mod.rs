//! What waits: appends to be written, bounded per tenant, and reads for a connection; one tenant after the other.

mod bounds;
mod fifo;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod permits;
#[cfg(test)]
mod tests;

pub(crate) use bounds::Bounds;
pub(crate) use fifo::{EndOfQueue, Queue, Taken};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) use permits::{Permit, Permits};
