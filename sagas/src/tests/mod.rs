//! The engine and the explorer on a checkout.

mod approval;
pub(crate) mod checkout;
mod data;
mod declared;
mod drawing;
mod engine;
mod explored;
mod failures;
mod flows;
pub(crate) mod random;
mod undoing;
