//! Participants: the service that the remote step of a saga calls. It does a step once, undoes it once, and never does it after
//! that.
//!
//! What is known of a step is a stream of its own in the store of the service, so nothing expires, and it works on every store.
//!
//! | the step is | in code | over HTTP (feature `axum`) |
//! |---|---|---|
//! | a command of an aggregate in the same store | [`Participant::do_local`], [`Participant::undo_local`] | `Participant::local` |
//! | an effect outside of it | [`Participant::do_remote`], [`Participant::undo_remote`] | `Participant::remote` |
//!
//! The saga's side of HTTP is `outcome` (feature `http`).
//!
//! ```
//! use annals_eventstore::MemoryStore;
//! use annals_sagas::StepError;
//! use annals_sagas::participant::{Participant, ParticipantError, StepKey};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let payments = Participant::new(MemoryStore::new());
//! let step = StepKey::new("checkout-7/charge")?;
//! let charge = |_call| async { Ok::<u32, StepError>(17) }; // here the provider is called
//!
//! assert_eq!(payments.do_remote(&step, &3_00, charge).await?, 17);
//! assert_eq!(payments.do_remote(&step, &3_00, charge).await?, 17); // the stored answer: nothing is called
//!
//! payments.undo_remote(&step, |_call, receipt: Option<u32>| async move {
//!     assert_eq!(receipt, Some(17));
//!     Ok(())
//! }).await?;
//! let late = payments.do_remote(&step, &3_00, charge).await;
//! assert!(matches!(late, Err(ParticipantError::Undone { .. })));
//! # Ok(())
//! # }
//! ```

mod error;
mod event;
mod handle;
mod key;
mod local;
#[cfg(feature = "http")]
mod outcome;
mod remote;
#[cfg(feature = "axum")]
mod routes;
mod state;

pub use error::ParticipantError;
pub use handle::Participant;
pub use key::{StepCall, StepKey};
#[cfg(feature = "http")]
pub use outcome::outcome;
pub(crate) use state::StepState;
