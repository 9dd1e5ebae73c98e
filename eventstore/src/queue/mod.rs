//! Appends that wait to be written: bounded per tenant, one tenant after the other.

mod bounds;
mod fifo;
#[cfg(test)]
mod tests;

pub(crate) use bounds::Bounds;
pub(crate) use fifo::{EndOfQueue, Queue, Taken};
