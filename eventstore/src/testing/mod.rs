//! Kit for tests of those who build on annals.

mod faulty;
mod given;
mod stored;
#[cfg(test)]
mod tests;

pub use faulty::{Fault, FaultyStore};
pub use given::{Decided, Given, Then, given, given_nothing};
pub use stored::shapes_of;
