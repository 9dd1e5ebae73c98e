//! The table and the runner.

mod rows;
mod runs;
