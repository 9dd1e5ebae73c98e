//! Given / when / then for projections (feature `testing`); [`given_events`] begins it. No database is needed.

mod given;
mod table;
mod then;

pub use given::{Given, GivenEvents, given_events};
pub(crate) use table::MemoryTable;
pub use then::ProjectionTest;
