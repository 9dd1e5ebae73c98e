//! The table and the runner.

mod backlog;
mod rows;
mod runs;
