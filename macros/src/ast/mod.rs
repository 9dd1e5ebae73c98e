//! PARSE: the input as our own trees, with every span. Rules are checked later.

mod aggregate;
mod body;
mod event;
mod read_model;

pub(crate) use aggregate::{AggregateInput, Snapshot};
pub(crate) use body::Body;
pub(crate) use event::{EventInput, EventLabels, VariantInput};
pub(crate) use read_model::{ColumnInput, ReadModelInput};
