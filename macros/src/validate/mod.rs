//! VALIDATE: one function per rule, each with why the rule exists. What passes can be expanded without failing.

mod aggregate;
mod event;
mod read_model;
mod shared;

pub(crate) use aggregate::{ValidAggregate, ValidSnapshot, aggregate};
pub(crate) use event::{EventKind, Shape, ValidEvent, event};
pub(crate) use read_model::{Storage, ValidColumn, ValidReadModel, read_model};
