//! Reactors: side effects of events, at least once, in order per stream.

mod attempt;
mod effect_key;
mod engine;
mod error;
mod handle;
mod keeper;
mod lanes;
mod leased;
mod reactions;
#[expect(clippy::module_inception, reason = "the trait that the folder is about")]
mod reactor;
mod start;
mod status;
#[cfg(test)]
pub(crate) mod tests;
mod window;

pub use effect_key::EffectKey;
pub use error::ReactorError;
pub use handle::ParkedStream;
pub use reactor::{Reacting, Reactor};
pub use status::{ReactorState, ReactorStatus};

pub(crate) use keeper::{ASKED, Failing, Kept, Opened, Opening, ReactorKeeper, check_tenant, checkpoint_name};
pub(crate) use leased::Reactors;
pub(crate) use reactions::{AnyReactor, TypedReactor};
#[cfg(test)]
pub(crate) use start::unit_of;
pub(crate) use start::{KnownReactor, Member, check, prepare};
