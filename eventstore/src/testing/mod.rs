//! Helpers for tests of applications (feature `testing`): [`given`] / when / then for aggregates,
//! [`FaultyStore`] for what happens when the store fails, [`schema_lock!`] for stored events that keep their shape and
//! meaning, [`shapes_of`] for a golden file of stored names.
//!
//! Time and ids are held by [`ManualClock`](crate::ManualClock) and [`SeededIds`](crate::SeededIds), which need no
//! feature.

mod faulty;
mod given;
mod lock;
mod stored;
#[cfg(test)]
mod tests;

pub use faulty::{Fault, FaultyStore};
pub use given::{Decided, Given, Then, given, given_nothing};
pub use lock::SchemaLock;
pub use stored::shapes_of;

#[doc(inline)]
pub use crate::schema_lock;
