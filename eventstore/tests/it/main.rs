//! What a user of the store crate can see, in one test binary.

mod chaos;
mod conformance;
mod homes;
mod memory;
mod model;
mod read;
