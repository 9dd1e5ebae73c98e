//! The engine and the explorer on a checkout.

mod checkout;
mod engine;
mod explored;
mod random;
