//! The scenes of the command line: each shows one capability, and prints what happens.

pub mod dead_letters;
pub mod flows;
pub mod generations;
pub mod mail;
pub mod many;
pub mod on_account;
pub mod past;
pub mod payment;
pub mod resilience;
pub mod saga;
pub mod story;
pub mod tables;
pub mod totals;
pub mod two_processes;
pub mod two_shops;
