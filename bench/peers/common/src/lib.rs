//! What every event store is asked to do when they are compared.
//!
//! Each store has an adapter, which is a [`Peer`]; [`serve`] lets it work in a process of its own, which takes one command per
//! line. The adapters use what the stores' documentation shows, and of several ways the fastest.

mod peer;
mod race;
mod work;
mod worker;

pub use peer::{Built, Fault, Page, Paid, Peer, Place, Setup, Totals};
pub use worker::{Answer, Options, Order, serve};
