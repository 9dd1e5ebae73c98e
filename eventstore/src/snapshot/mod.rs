//! Snapshots: saved states, from which a load continues. They are a cache: deleting them costs only time.

mod codec;
mod key;
mod queue;
mod store;
#[cfg(test)]
mod tests;
mod thinning;

pub(crate) use key::Snapshots;
pub(crate) use queue::Job;
pub(crate) use thinning::{Row, surplus};

pub use codec::SnapshotCodec;
pub use key::SnapshotStats;
pub use queue::SnapshotQueue;
pub use store::{Snapshot, SnapshotStore, StoredSnapshot};
