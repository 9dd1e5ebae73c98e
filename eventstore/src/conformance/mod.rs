//! The contract of a store as clauses that run: the obligations of [`EventStore`](crate::EventStore), for every store and
//! every wrapper around a store.
//!
//! A store takes part by a [`Backend`], its environment, and one line:
//!
//! ```
//! use std::sync::Arc;
//!
//! use annals_eventstore::conformance::{self, Capabilities, Backend, Setup};
//! use annals_eventstore::{EventStore, MemoryStore};
//!
//! struct InMemory;
//!
//! #[async_trait::async_trait]
//! impl Backend for InMemory {
//!     fn capabilities(&self) -> Capabilities {
//!         Capabilities { durable: false, clock: true, snapshots: true }
//!     }
//!
//!     async fn open(&self, setup: &Setup) -> Arc<dyn EventStore> {
//!         Arc::new(MemoryStore::builder().clock(setup.clock.clone()).limits(setup.limits.clone()).build())
//!     }
//! }
//!
//! conformance::suite! {
//!     memory => InMemory,
//! }
//! ```
//!
//! The macro makes a test of every clause for every store. A capability that a store does not declare is no leave to
//! skip: the clauses that would need it check that the store indeed lacks it. The clauses do not depend on engines.

#![expect(clippy::unwrap_used, reason = "a clause fails by panicking, and its name states what it expected")]

mod backend;
mod case;
mod list;
mod run;

mod append;
mod as_of;
mod bad_input;
mod cancel;
mod checkpoint;
mod close;
mod content;
mod durable;
mod limits;
mod load;
mod log;
mod names;
mod races;
mod repeat;
mod requests;
mod several_streams;
mod snapshots;
mod streams;
mod subscribe;
mod tenants;
mod time;
mod versions;

pub use backend::{Backend, Capabilities, Setup};
pub use run::{names, run};

// Hidden at the root of the crate, where the macro is defined, so it must be re-exported here.
#[doc(inline)]
pub use crate::__conformance_suite as suite;
