//! Upcasters: pure steps from an event as it was stored to what the code knows today.

mod check;
mod message;
mod read;
mod step;
#[cfg(test)]
mod tests;

pub use check::reads;
pub(crate) use message::Message;
pub use read::{convert, read_stored};
pub use step::{JsonUpcaster, StepError};
