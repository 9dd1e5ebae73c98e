//! What a user of the store crate can see, in one test binary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cached;
mod chaos;
mod conformance;
mod grudging;
mod homes;
mod memory;
mod model;
mod outsider;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[expect(unreachable_pub, reason = "the examples of the documentation share it")]
mod order {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs"));
}
#[cfg(feature = "postgres")]
mod postgres;
mod read;
mod rewound;
mod taken_apart;
mod together;
