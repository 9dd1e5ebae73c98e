//! The reads that every store shares, written once over the contract: whole streams, the log, subscriptions, listings.

mod ahead;
mod events;
mod ext;
mod overlap;
mod pages;
mod room;
mod stream_pages;
mod streams;
mod subscription;

pub(crate) use overlap::{Overlap, OverlappingPages};

pub use events::EventStream;
pub use ext::EventStoreExt;
pub use pages::Pages;
pub use room::ReadAhead;
pub use streams::Streams;
pub use subscription::Subscription;
