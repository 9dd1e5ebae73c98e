//! What a user of the store crate can see, in one test binary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chaos;
mod conformance;
mod grudging;
mod homes;
mod memory;
mod model;
mod outsider;
#[cfg(feature = "postgres")]
mod postgres;
mod read;
mod rewound;
mod taken_apart;
mod together;
