//! Read models and the projections that build them. A part of `annals`, which most depend on instead.
//!
//! | you want to | look at |
//! |---|---|
//! | say what a table looks like | [`ReadModel`], [`Column`], [`text_column!`] |
//! | fold events into its rows | [`Projection`], [`Rows`]; one row per stream: [`StreamProjection`], [`StreamRow`] |
//! | write the rows by SQL of your own | [`TransactionProjection`], [`ProjectionTransaction`] |
//! | choose between these | [Which kind of projection](#which-kind-of-projection) |
//! | run that | `store.projections()` of `ProjectionsExt` (feature `sqlite` or `postgres`), [`Projections::of`], [`ProjectionsBuilder::start`] |
//! | look at the dead letters of a stream projection, retry and drop them | [`Projections::dead_letters`], [`Projections::retry`], [`Projections::drop_dead_letter`] |
//! | know which have failed, for a supervisor | [`Projections::health`], [`Projections::stops`] |
//! | pause, resume, start again | [`Projections::pause`], [`Projections::resume`], [`Projections::start_again`] |
//! | look at what a reactor has set aside, retry it | [`Projections::parked`], [`Projections::retry_parked`] |
//! | read rows by key or condition | [`Projections::find`], [`Projections::select`] |
//! | read them as they were | [`Projections::as_of`], one of a stream projection: [`Projections::find_as_of`] |
//! | send mails, call others: side effects | [`Reactor`], [`EffectKey`], [`ProjectionsBuilder::react`] |
//! | read your own writes, watch, end | [`Projections::wait_for`], [`Projections::status`], [`Projections::close`] |
//! | keep the rows of tenants apart | [Tenants](#tenants) |
//! | change one that runs | [Deploying a changed projection](#deploying-a-changed-projection) |
//! | understand why one stopped | [`Stopped`], [`StopCause`], [`StartError`] |
//!
//! Features: `sqlite` (default) for read models in a SQLite file, `postgres` for read models in a PostgreSQL database, `testing`
//! for given / when / then.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(feature = "sqlite", doc = "")]
#![cfg_attr(feature = "sqlite", doc = include_str!("../docs/kinds.md"))]
#![cfg_attr(feature = "sqlite", doc = "")]
#![cfg_attr(feature = "sqlite", doc = include_str!("../docs/tenants.md"))]
#![cfg_attr(feature = "sqlite", doc = "")]
#![cfg_attr(feature = "sqlite", doc = include_str!("../docs/deploying.md"))]
#![cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    expect(dead_code, reason = "without a database nothing runs the folds")
)]

// Derived code says `::annals_projections`; so it also compiles in the tests of this crate.
extern crate self as annals_projections;

mod as_of;
mod balance;
mod batch;
mod builder;
mod changes;
mod column;
mod column_types;
mod commit;
mod control;
mod database;
mod dead_letters;
mod error;
mod find_as_of;
mod fold;
mod folding;
mod handle;
mod health;
mod keeper;
mod key_order;
mod known_rows;
mod loading;
mod member;
mod memory_table;
mod metrics;
mod pace;
mod page_reader;
mod parking;
mod pass;
mod projection;
mod reactor;
mod read_model;
mod reads;
mod rows;
mod serde_column;
mod shape;
mod slot;
mod status;
mod stops;
mod stream_key;
mod stream_options;
mod stream_projection;
mod stream_row;
mod switch;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod token;
mod transaction;
mod wait;

pub use as_of::{AsOfError, RowsAsOf};
pub use builder::ProjectionsBuilder;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use builder::ProjectionsExt;
pub use changes::{KeyText, RowError};
pub use column::{Column, ColumnError, ColumnType, ColumnValue};
pub use database::ReadModelDatabase;
pub use dead_letters::{DeadLetter, Retried};
pub use error::{
    ControlError, Elsewhere, EventPlace, ProjectionError, ProjectionProgress, QueryError, StartError, StopCause,
    Stopped, WaitError,
};
pub use find_as_of::RowAsOf;
pub use handle::Projections;
pub use health::{HealthOf, ProjectionHealth, Verdict};
#[doc(hidden)]
pub use keeper::MayLeave;
pub use projection::Projection;
pub use reactor::{EffectKey, ParkedStream, Reacting, Reactor, ReactorError, ReactorState, ReactorStatus};
pub use read_model::{ColumnSpec, IndexSpec, ReadModel, RowKey, RowKeyPrefix, SpecError, TableSpec};
pub use reads::QueryValue;
pub use rows::Rows;
pub use slot::slot_of;
pub use status::{LastError, ProjectionState, ProjectionStatus, SlotStatus};
pub use stops::Stops;
pub use stream_key::StreamKey;
pub use stream_options::StreamOptions;
pub use stream_projection::StreamProjection;
pub use stream_row::StreamRow;
pub use token::PositionToken;
pub use transaction::{Controlled, InTransaction, ProjectionTransaction, TransactionProjection};

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
