//! What a user of the store crate can see, in one test binary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod as_of;
mod backends;
#[cfg(feature = "sqlite")]
mod begin_with;
mod cached;
mod chaos;
mod conformance;
#[cfg(feature = "sqlite")]
mod correlation;
#[cfg(feature = "sqlite")]
mod evolving;
mod execute_two;
mod memory;
mod minimal_store;
mod model;
mod send_once;
mod snapshots;
mod third_party_store;
#[cfg(feature = "sqlite")]
mod time_marks;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[expect(unreachable_pub, reason = "the examples of the documentation share it")]
mod order {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs"));
}
#[cfg(feature = "postgres")]
mod postgres;
mod public_parts;
mod read;
mod rewound;
mod together;
#[cfg(feature = "sqlite")]
mod turns;
