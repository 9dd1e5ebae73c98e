//! Tests of reactors over a store in memory: the engine in paused time, and what every database must keep.

mod close;
mod failures;
mod keepers;
pub(crate) mod mailer;
mod order;
mod parked;
mod people;
mod progress;
mod unclean;
mod unit;
