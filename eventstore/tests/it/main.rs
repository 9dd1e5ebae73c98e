//! What a user of the store crate can see, in one test binary.

mod memory;
mod read;
