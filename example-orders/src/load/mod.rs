//! The shop under load: requests over real HTTP at a fixed rate, or as many as it takes, and then whether every order that was
//! acknowledged is there, once.

mod checkouts;
mod client;
mod drive;
mod latencies;
mod options;
mod own;
mod play;
mod read_back;
mod repeat;
mod report;

pub use options::Options;
pub use play::{measure, play};
pub use read_back::ReadBack;
pub use report::Report;
