//! Given / when / then for projections.

mod given;
mod table;
mod then;

pub use given::{Given, GivenEvents, given_events};
pub(crate) use table::MemoryTable;
pub use then::ProjectionTest;
