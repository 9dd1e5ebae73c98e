//! The shop as a service: an HTTP API over the aggregates of `domain/` and the read models of `read_models/`.

mod serve;
mod settings;

pub use serve::{asked_to_stop, serve};
pub use settings::{Flags, Settings, SettingsFault};
