//! The repository: loads an aggregate, decides, and appends what was decided.

mod answer;
mod attempt;
mod cache;
mod error;
mod handle;
mod settle;
#[cfg(test)]
mod tests;

#[cfg(feature = "sqlite")]
pub(crate) use attempt::Attempt;
#[cfg(feature = "sqlite")]
pub(crate) use cache::Known;

pub use answer::{Executed, Loaded};
pub use error::ExecuteError;
pub use handle::{AggregateStore, Repository};
pub use settle::SettleToken;
