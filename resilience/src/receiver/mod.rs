#![doc = include_str!("../../docs/receiver.md")]

mod answer;
#[cfg(feature = "axum")]
mod extract;
mod fingerprint;
mod layer;
mod memory;
mod records;
#[cfg(feature = "axum")]
#[cfg(test)]
mod tests;

pub use answer::Answer;
#[cfg(feature = "axum")]
pub use extract::NoKey;
pub use fingerprint::Fingerprint;
pub use layer::{Receiver, ReceiverService, ReceiverSettings};
pub use memory::{MemoryClaim, MemoryRecords, MemorySettings};
pub use records::{Caller, Claim, Found, RecordId, Records, RecordsError, Share};
