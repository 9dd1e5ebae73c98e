//! Given / when / then for projections (feature `testing`); [`given_events`] begins it. No database is needed.

mod given;
mod run;
mod then;

pub use given::{GivenEvent, GivenEvents, given_events};
pub use then::ProjectionTest;
