//! The engine and the kits for tests on a checkout.

mod approval;
pub(crate) mod checkout;
mod data;
mod declared;
mod drawing;
mod engine;
mod explored;
mod failures;
mod flows;
mod given;
pub(crate) mod random;
mod undo;
mod undoing;
