//! What a user of the store crate can see, in one test binary.

mod conformance;
mod homes;
mod memory;
mod read;
