//! The domain: orders and credits, their events, commands and rules, without any I/O.

pub mod credit;
pub mod evolution;
pub mod money;
pub mod order;
