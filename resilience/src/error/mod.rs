//! What can go wrong: with a call, and with settings.

#[cfg(feature = "http")]
mod answer;
mod call;
mod settings;
#[cfg(test)]
mod tests;

pub use call::{CallError, Guard, LastBecause, Reason, Refusal, TimeLimit};
pub(crate) use settings::Check;
pub use settings::{Setting, SettingsError};
