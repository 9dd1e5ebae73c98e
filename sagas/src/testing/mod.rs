//! Tests of sagas: [`given`] begins a given / when / then of one path, with answers in place of services and a virtual clock; and
//! [`explore`] tries a saga under every outcome of its calls and approvals, with a crash at every append.
//!
//! ```
//! use annals_resilience::Policy;
//! use annals_sagas::Saga;
//! use annals_sagas::testing::explore;
//! use std::sync::Mutex;
//!
//! /// What the bank knows.
//! #[derive(Default)]
//! struct Bank { charged: Mutex<bool> }
//!
//! let explored = explore((), Bank::default, |bank, _store| {
//!     let (charge, refund) = (bank.clone(), bank.clone());
//!     Saga::<()>::new("pay")
//!         .remote("charge", &Policy::fast("bank").build().expect("it is sound"), move |_, _call| {
//!             *charge.charged.lock().expect("nobody panics") = true;
//!             async { Ok(()) }
//!         })
//!         .undo(move |_, _call| {
//!             *refund.charged.lock().expect("nobody panics") = false;
//!             async { Ok(()) }
//!         })
//!         .build()
//!         .expect("it is sound")
//! })
//! .invariant("who did not complete has paid nothing", |bank, end| end.completed() == *bank.charged.lock().expect("nobody panics"))
//! .run();
//! assert!(explored.completed > 0 && explored.compensated > 0);
//! ```

mod explorer;
mod given;
mod laws;
mod schedule;
mod world;

pub use explorer::{End, Explored, Explorer, explore};
pub use given::{SagaTest, given};
#[cfg(test)]
pub(crate) use laws::broken;
#[cfg(test)]
pub(crate) use schedule::{Choice, Point};
#[cfg(test)]
pub(crate) use world::{PausedClock, recorded, run};
