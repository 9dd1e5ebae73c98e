//! The repository: loads an aggregate, decides, and appends the events.

mod answer;
mod cache;
mod decision;
mod error;
mod handle;
mod reading;
mod scope;
mod settle;
mod snapshots;
mod subject;
#[cfg(test)]
mod tests;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use scope::CommandScope;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use subject::One;

pub use answer::{Executed, Loaded};
pub use error::ExecuteError;
pub use handle::{AggregateStore, Repository};
pub use settle::SettleToken;
