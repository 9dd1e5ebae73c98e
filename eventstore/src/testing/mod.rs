//! Kit for tests of those who build on annals.

mod faulty;

pub use faulty::{Fault, FaultyStore};
