//! What users of the derives can see: what the derived code does, and what is refused with which words.

mod aggregate;
mod event;
mod given_crate;
mod mirror;
mod read_model;
mod shadowed;
mod ui;
