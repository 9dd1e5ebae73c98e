//! What users of the derives can see: what the derived code does, and which input is refused with which message.

mod aggregate;
mod event;
mod forbidden;
mod given_crate;
mod mirror;
mod read_model;
mod shadowed;
mod ui;
mod upcast;
