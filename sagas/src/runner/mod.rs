//! Sagas that many processes run together.

mod any_saga;
mod builder;
mod check;
mod handle;
mod in_flight;
mod instances;
mod look;
mod shared;
#[cfg(test)]
mod tests;
mod wait;

pub use builder::SagasBuilder;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use builder::SagasExt;
pub use check::{CheckError, Unfit};
pub use handle::{RunnerStatus, Sagas};
pub use instances::{Ask, SagaInstance, SagaInstances};
