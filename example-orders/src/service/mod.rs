//! The shop as a service: an HTTP API over the aggregates of `domain/` and the read models of `read_models/`.

mod access;
mod api;
mod app;
mod ask;
mod document;
mod health;
mod partners;
mod problem;
mod seed;
mod seen;
mod serve;
mod settings;
mod trace;

pub use access::{KeySettings, Role, new_key};
pub use partners::PartnerSettings;
pub use serve::{asked_to_stop, serve};
pub use settings::{Flags, Secret, Settings, SettingsFault};
