//! The repository: loads an aggregate, decides, and appends the events.

mod answer;
mod cache;
mod error;
mod execution;
mod handle;
mod reading;
mod scope;
mod settle;
#[cfg(test)]
mod tests;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use execution::Execution;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use scope::CommandScope;

pub use answer::{Executed, Loaded};
pub use error::ExecuteError;
pub use handle::{AggregateStore, Repository};
pub use settle::SettleToken;
