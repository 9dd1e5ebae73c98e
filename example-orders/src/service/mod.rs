//! The shop as a service: an HTTP API over the aggregates of `domain/` and the read models of `read_models/`.

pub(crate) mod access;
pub(crate) mod api;
pub(crate) mod app;
pub(crate) mod ask;
mod document;
mod drain;
pub mod health;
mod partners;
pub(crate) mod problem;
mod seed;
mod seen;
mod serve;
mod settings;
mod telemetry;
mod trace;
mod unread;

pub use access::{KeySettings, Role, new_key};
pub use partners::PartnerSettings;
pub use serve::{asked_to_stop, serve};
pub use settings::{Flags, Secret, Settings, SettingsFault};
pub use telemetry::{Format, LogSettings, Telemetry, TraceSettings};
pub use trace::{Tracing, trace};
