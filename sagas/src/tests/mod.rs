//! The engine and the explorer on a checkout.

pub(crate) mod checkout;
mod engine;
mod explored;
mod failures;
pub(crate) mod random;
