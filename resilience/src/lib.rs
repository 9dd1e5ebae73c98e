//! Calls to systems that fail. A part of `annals` that knows nothing of events, and can be used alone.
//!
//! ```
//! use annals_resilience::{CallError, Classify, Class, Deadline, IdempotencyKey, Policy, retry::Retry};
//! use std::time::Duration;
//!
//! # #[derive(Debug, thiserror::Error)]
//! # #[error("payment answered {0}")]
//! # struct PaymentError(u16);
//! # struct Payments;
//! # impl Payments {
//! #     async fn charge(&self, order: &str, key: &IdempotencyKey, deadline: Deadline) -> Result<String, PaymentError> {
//! #         let _ = (order, key, deadline.to_header());
//! #         Ok("paid".to_owned())
//! #     }
//! # }
//! // The error of the client says which failures may pass.
//! impl Classify for PaymentError {
//!     fn class(&self) -> Class {
//!         Class::of_status(self.0, None)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let pay = Payments;
//! # let (order, key) = ("7".to_owned(), IdempotencyKey::new("order-7/charge")?);
//! // Once per dependency: attempts of 10 s, a breaker, three attempts, 20 calls at once.
//! let payments = Policy::medium("payment").retry(Retry::default()).bulkhead(20).build()?;
//!
//! // Per call: each attempt is handed the key, and the deadline to hand on.
//! let paid = payments
//!     .keyed(&key, |call, key| pay.charge(&order, key, call.deadline()))
//!     .deadline(Deadline::within(Duration::from_secs(5)))
//!     .await?;
//! # assert_eq!(paid, "paid");
//! # Ok(())
//! # }
//! ```
//!
//! | you want to | look at |
//! |---|---|
//! | call a dependency with all guards around it | [`policy`], [`Policy`] |
//! | know all defaults | [`defaults`] |
//! | stop calling what is down | [`breaker`] |
//! | try again, but not too often | [`retry`] |
//! | bound what runs at once | [`bulkhead`] |
//! | bound what runs in a minute | [`rate_limit`] |
//! | answer when there is no answer | [`fallback`] |
//! | change features while the process runs | [`toggle`] |
//! | run a request once, however often it is sent | `receiver` |
//! | say whether the process lives, and wants requests | [`health`] |
//! | try all that out | [`chaos`] |
//! | stop when nobody waits any more | [`deadline`] |
//! | understand an error | [`CallError`], [`SettingsError`] |
//!
//! Everything runs on tokio's clock, so tests can pause it.
//!
//! Features: `tower` (a policy as a layer), `http` (layers for a service's own HTTP), `axum` (routes and extractors).

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod breaker;
pub mod bulkhead;
#[cfg(test)]
mod cases;
pub mod chaos;
mod class;
pub mod deadline;
mod duration_text;
mod error;
pub mod fallback;
pub mod health;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "axum")]
#[cfg(test)]
mod loopback;
pub mod policy;
pub mod rate_limit;
mod ratio;
#[cfg(feature = "http")]
pub mod receiver;
pub mod retry;
pub mod toggle;

#[doc = include_str!("../docs/defaults.md")]
pub mod defaults {}

#[cfg(feature = "http")]
pub use crate::http::AnswerBody;
pub use class::{ByError, Class, Classify, ErrorJudge, Judge, ResultJudge};
pub use deadline::Deadline;
pub use error::{CallError, Guard, LastBecause, Reason, Refusal, Setting, SettingsError, TimeLimit};
pub use policy::{
    Call, DuplicatePolicy, IdempotencyKey, KeyError, Pending, Policies, Policy, PolicyBuilder, PolicySettings,
    PolicyState, Profile, UnknownPolicy,
};
#[cfg(feature = "tower")]
pub use policy::{PolicyLayer, PolicyService};
