//! Read models and the projections that build them. A part of `annals`, which most depend on instead.
//!
//! | you want to | look at |
//! |---|---|
//! | say what a table looks like | [`ReadModel`], [`Column`], [`text_column!`] |
//! | fold events into its rows | [`Projection`], [`Rows`] |
//! | run that | `store.projections()` of `ProjectionsExt` (feature `sqlite` or `postgres`), [`Projections::over`], [`ProjectionsBuilder::start`] |
//! | read your own writes, watch, end | [`Projections::wait_for`], [`Projections::status`], [`Projections::close`] |
//! | understand why one stopped | [`Stopped`], [`StopCause`], [`StartError`] |
//!
//! # Deploying a changed projection
//!
//! Whatever changes the rows of a projection, or what it reads, needs a raised [`Projection::VERSION`]: another fold, other
//! columns, a new kind of event, another tenant. What can be noticed of that is refused at the start of a projection whose
//! `VERSION` was not raised ([`StartError::ShapeChanged`], [`StartError::EventsChanged`], [`StartError::TenantChanged`]); a
//! changed fold cannot be noticed.
//!
//! A raised version builds a table of its own, `order_list_v2`, from the beginning of the log, while the old one serves.
//! Queries use the stable name, `order_list`, which is a view. When the new version has read all that the old one has, the
//! name shows it, in one transaction. So old and new builds can run side by side, and be started and ended in any order:
//!
//! - The name only moves up. A build with a lower version than the name has shown, started again in the middle of a deploy
//!   say, keeps its own table up to date and leaves the name, and the new version's table and indexes, alone.
//! - [`Projections::wait_for`] waits until *queries by the name* see an event, whichever process feeds the version shown. If
//!   no process does, it says so when its time is over: which version, how far, and when it was last moved.
//! - A deploy is taken back by [`Projections::show`] in the old build. The version that it was taken back from does not take
//!   the name again by itself; one that is higher does.
//! - A raised version keeps every column that the name shows, with its type; else queries of builds that still run would
//!   fail. It may add some. To drop or retype one, give the read model a new table name, `order_list_2` say: start says so
//!   ([`StartError::ColumnsLost`]).
//! - Indexes are added by a start and never dropped, as an old build may still need them; drop those that are declared no
//!   longer by hand.
//!
//! Name the columns in queries by the name: PostgreSQL refuses a prepared `SELECT *` once the view has more columns.
//! Tables of old versions are kept. When no build needs one any more, drop it, and its row in the table of checkpoints. A
//! version whose table is gone is built anew when a build with it starts, whether its row is gone or not.
//!
//! Features: `sqlite` (default) for read models in a SQLite file, `postgres` for read models in a PostgreSQL database, `testing`
//! for given / when / then.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    expect(dead_code, reason = "without a database nothing runs the folds")
)]

// Derived code says `::annals_projections`; so it also compiles in the tests of this crate.
extern crate self as annals_projections;

mod batch;
mod builder;
mod changes;
mod column;
mod column_types;
mod commit;
mod database;
mod error;
mod fold;
mod folding;
mod handle;
mod member;
mod page_reader;
mod pass;
mod projection;
mod read_model;
mod rows;
mod serde_column;
mod shape;
mod status;
mod switch;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod wait;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use builder::ProjectionsExt;
pub use builder::{Over, ProjectionsBuilder};
pub use changes::RowError;
pub use column::{Column, ColumnError, ColumnType, ColumnValue};
pub use database::ReadModelDatabase;
pub use error::{
    Elsewhere, EventPlace, ProjectionError, ProjectionProgress, StartError, StopCause, Stopped, WaitError,
};
pub use handle::Projections;
pub use projection::Projection;
pub use read_model::{ColumnSpec, IndexSpec, ReadModel, RowKey, SpecError, TableSpec};
pub use rows::Rows;
pub use status::{ProjectionState, ProjectionStatus};

/// What derived code calls. Not for people; no promise is made about it.
#[doc(hidden)]
pub mod __private {
    pub use core;
    pub use std::string::String;
    pub use std::vec::Vec;

    pub use crate::column::{Column, ColumnError, ColumnType, ColumnValue, next_column};
    pub use crate::read_model::{ColumnSpec, IndexSpec, ReadModel, TableSpec};
    pub use crate::serde_column::{
        json_from_column, json_normalize, json_to_column, text_from_column, text_normalize, text_to_column,
    };
}
