//! EXPAND: valid trees to tokens. Nothing here can fail.
//!
//! Every name goes through the hidden module of annals, so that it does not matter what the user calls `Result`, `u32`
//! or annals itself; local names begin with `__`, so that they cannot match a constant of the user.

mod aggregate;
mod event;
mod read_model;
mod span;

pub(crate) use aggregate::aggregate;
pub(crate) use event::event;
pub(crate) use read_model::read_model;
