//! The repository: loads an aggregate, decides, and appends the events.

mod answer;
mod as_of;
mod cache;
mod decision;
mod error;
mod handle;
mod history;
mod observed;
mod reading;
mod scope;
mod settle;
mod snapshots;
mod subject;
#[cfg(test)]
mod tests;
mod turns;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use scope::CommandScope;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use subject::One;

pub use answer::{Executed, Loaded};
pub use as_of::LoadedAsOf;
pub use error::ExecuteError;
pub use handle::{AggregateStore, Repository};
pub use history::{FieldChange, HistoryStep};
pub use settle::SettleToken;
