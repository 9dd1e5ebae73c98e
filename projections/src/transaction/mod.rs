//! Transaction projections: SQL of the user's own, in the transaction that moves the checkpoint.

mod connection;
mod controlled;
mod projection;
mod run;
mod typed;

pub use connection::ProjectionTransaction;
pub use controlled::{Controlled, InTransaction};
pub use projection::TransactionProjection;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use connection::Connection;
pub(crate) use run::{MOST_AT_ONCE, process};
pub(crate) use typed::{AnyTransaction, NO_TABLE, TypedTransaction};
