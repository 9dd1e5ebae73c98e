//! Sagas: business transactions over several services that end completed, compensated or visibly stuck, whatever crashes.
//!
//! A [`Saga`] declares steps; a step before the pivot declares how it is undone. An [`Engine`] runs instances of it: what it is
//! about to do is recorded before each call, and the outcome after it, in a stream of the instance's own. So an instance
//! that was interrupted anywhere is continued, or compensated, by [`Engine::run`].
//!
//! ```
//! use annals_eventstore::{MemoryStore, SystemClock};
//! use annals_resilience::Policy;
//! use annals_sagas::{Engine, Saga, SagaId, Status, StepError};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, Clone)]
//! struct Trip { hotel: String, flight: String, booking: Option<u32> }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (hotels, flights) = (Policy::medium("hotels").build()?, Policy::medium("flights").build()?);
//! let trip = Saga::<Trip>::new("trip")
//!     .remote("book-hotel", &hotels, |trip, call| async move {
//!         println!("book {} under the key {}", trip.hotel, call.key().as_str());
//!         Ok(17)
//!     })
//!     .keep(|trip, booking: u32| trip.booking = Some(booking))
//!     .undo(|trip, _call| async move {
//!         println!("cancel booking {:?}", trip.booking);
//!         Ok(())
//!     })
//!     .remote("book-flight", &flights, |_trip, _call| async { Err::<(), _>(StepError::refused("sold out")) })
//!     .no_undo("a flight is not booked until it is paid")
//!     .build()?;
//!
//! let trips = Engine::new(MemoryStore::new(), trip, SystemClock);
//! let id = SagaId::new("trip-1")?;
//! trips.start(&id, Trip { hotel: "Post".into(), flight: "ZW 7".into(), booking: None }).await?;
//! assert_eq!(trips.run(&id).await?.status, Status::Compensated);
//! # Ok(())
//! # }
//! ```
//!
//! The service that a remote step calls, which must do it once and undo it once, is a [`participant`].
//!
//! # Many processes
//!
//! [`Sagas`] is the runner: `store.sagas().with(trip).start()` runs the instances of a store in this process, beside others that
//! run the same, takes over what processes that have died left, and wakes what waits for a time. Its table `saga_instances`
//! ([`SagaInstance`]) is for people and queries.
//!
//! | you want to | look at |
//! |---|---|
//! | run instances in several processes | [`SagasBuilder`], [`Sagas::start`], [`Sagas::wait_for`], [`Sagas::close`] |
//! | send what an instance waits for | [`Sagas::signal`] |
//! | let a person approve a step | [`Saga::approval`], [`Sagas::approvals`], [`Sagas::approve`], [`Sagas::reject`] |
//! | see what waits for a person, and decide | [`Sagas::stuck`], [`Sagas::preview`], [`Sagas::intervene`], [`Intervention`] |
//! | know how a process does | [`Sagas::runner`], [`Sagas::projections`] |
//! | know whether a build fits what runs | [`SagasBuilder::check`], and below |
//!
//! # Flows
//!
//! Where no saga directs the steps, and reactors answer events with commands instead, a [`Flow`] declares which events the steps
//! are. [`SagasBuilder::track`] follows them: each flow has a row, a [`timeline`], and a time limit.
//!
//! # Other builds
//!
//! An instance goes on in another build if each step that it has begun is there under its name and kind, behind no step that was
//! not done before it, and its data, with what steps have kept, can be read. Else it becomes [stuck](Status::Stuck) with the reason, before anything is called, and goes on when a person
//! retries it in a build in which it fits. Steps that it has not begun may change at will. If a build lacks a whole saga, its
//! instances wait, and [`Sagas::runner`] names the saga.
//!
//! # Features
//!
//! `sqlite` and `postgres` (where the table of the runner is), `http` (what an answer over HTTP means for a step), `axum` (handlers
//! of a participant), `testing` (given / when / then, and the explorer).

#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod call;
mod calls;
mod control;
mod definition;
mod drawing;
mod engine;
mod error;
mod event;
mod flow;
mod instance;
mod local;
mod mismatch;
mod observed;
pub mod participant;
mod person;
mod plan;
mod retry;
mod run;
mod runner;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(test)]
mod tests;
mod text;

pub use builder::{AfterPivot, BeforePivot, NeedsLocalUndo, NeedsUndo, Parallel, Phase, Saga};
pub use call::{Call, StepError};
pub use definition::{Definition, SagaData};
pub use drawing::SVG_STYLES;
pub use engine::{Engine, SagaStatus};
pub use error::SagaError;
pub use event::{Direction, Intervention, SagaEvent};
pub use flow::{Flow, FlowEvent, FlowSteps, timeline};
pub use instance::{Instance, SagaId, Status};
pub use local::{LocalCommand, answering, command};
pub use person::{By, Decision};
pub use retry::StepRetry;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use runner::SagasExt;
pub use runner::{Ask, CheckError, RunnerStatus, SagaInstance, SagaInstances, Sagas, SagasBuilder, Unfit};
