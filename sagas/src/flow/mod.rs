//! Choreographed flows: reactors that answer events with commands, and what tracks each flow as a saga.

mod steps;
mod timeline;
mod tracker;

pub use steps::{Flow, FlowSteps};
pub use timeline::{FlowEvent, timeline};

pub(crate) use tracker::Tracker;
