//! VALIDATE: one function per rule, with the reason for the rule. Valid input can be expanded without failing.

mod aggregate;
mod event;
mod read_model;
mod shared;

pub(crate) use aggregate::{ValidAggregate, ValidSnapshot, aggregate};
pub(crate) use event::{EventKind, Shape, ValidEvent, event};
pub(crate) use read_model::{Storage, TENANT, ValidColumn, ValidReadModel, read_model};
