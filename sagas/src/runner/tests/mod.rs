//! The table and the runner.
