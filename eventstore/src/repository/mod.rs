//! The repository: loads an aggregate, decides, and appends what was decided.

mod answer;
mod attempt;
mod cache;
mod error;
mod handle;
mod reading;
mod settle;
#[cfg(test)]
mod tests;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod within;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use within::{Within, execute_within};

pub use answer::{Executed, Loaded};
pub use error::ExecuteError;
pub use handle::{AggregateStore, Repository};
pub use settle::SettleToken;
