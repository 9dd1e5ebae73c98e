//! `torture`: many writers, readers that are stopped and resumed, and a server that crashes; then a judge.

mod board;
mod crash;
mod draws;
mod fact;
mod hosts;
mod judge;
mod lead;
mod options;
mod part;
mod place;
mod process;
mod pulse;
mod readers;
mod record;
mod report;
mod trouble;
mod writers;

pub(crate) use lead::lead;
pub(crate) use options::Options;
pub(crate) use part::run as part;

type Fault = Box<dyn std::error::Error + Send + Sync>;
