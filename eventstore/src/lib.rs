//! Streams of events: stores, the repository that decides over them, and a kit to test both. A part of `annals`, which
//! most depend on instead.
//!
//! | you want to | look at |
//! |---|---|
//! | open a store | [`MemoryStore`]; `sqlite`, `SqliteOptions` (feature `sqlite`); `postgres`, `PostgresOptions` (feature `postgres`) |
//! | decide and append | [`AggregateStore::aggregate`], [`Repository`], [`Context`] |
//! | append, load, read and subscribe without aggregates | [`EventStore`], [`EventStoreExt`], [`Append`], [`Filter`] |
//! | commit events together with your own rows | `SqliteStore::begin` |
//! | load long streams fast | [`SnapshotPolicy`], [`Repository`] on snapshots, [`SnapshotStore`] for other engines |
//! | understand an error | [`ErrorFamily`], [`AppendError`], [`ReadError`], [`ExecuteError`] |
//!
//! Features: `sqlite` (default), `postgres`, `testing` (given/when/then, and a store that fails on demand) and
//! `conformance` (the contract of a store as clauses that run).

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    expect(dead_code, reason = "without a database nothing reads rows back or decides within transactions")
)]

// Derived code uses `::annals_eventstore`; so it also compiles in the tests of this crate.
extern crate self as annals_eventstore;

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod testing;

mod aggregate;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod answer;
mod append;
mod appended;
mod as_of;
mod backoff;
mod checked;
mod clock;
mod contained;
mod context;
mod database_error;
mod derived;
mod duplicate;
mod error;
#[cfg(test)]
mod error_tests;
mod event;
mod event_id;
mod filter;
mod forward;
mod invalid;
mod limits;
mod memory;
mod metadata;
mod name;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod name_interner;
mod open_error;
mod parts;
mod payload;
mod position;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod queue;
mod read;
mod repository;
mod request;
mod snapshot;
mod spawned;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
mod stream;
mod text_id;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod time_marks;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod unit_of_work;
mod upcast;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use annals_migrations::Migration;
#[cfg(feature = "postgres")]
pub use annals_migrations::POSTGRES_ROLES_EXAMPLE;

pub use aggregate::{Aggregate, Decide, Evolve, IntoEvents, SnapshotPolicy};
pub use append::{Append, AppendPart};
pub use appended::{Appended, AppendedStream};
pub use as_of::AsOf;
pub use backoff::Backoff;
pub use checked::{CheckedAppend, CheckedEvent, CheckedPart};
pub use clock::{Clock, IdSource, ManualClock, SeededIds, SystemClock, TimeOrderedIds};
pub use context::Context;
pub use database_error::DatabaseError;
pub use error::{AppendError, BackendError, DecodeError, ErrorFamily, Holder, OpenError, ReadError, Repeat};
pub use event::{Event, EventShape, EventsOf, NewEvent, Recorded, RecordedEvent};
pub use event_id::EventId;
pub use filter::{Filter, FilterConditions, StreamFilter};
pub use invalid::Invalid;
pub use limits::{Limits, MAX_EVENT_BYTES, MAX_METADATA_BYTES, MAX_PAGE_EVENTS, PAGE_BYTES, PageBudget, page_limit};
pub use memory::{MemoryStore, MemoryStoreBuilder};
pub use metadata::{Actor, CausationId, CorrelationId, Metadata, TraceParent};
pub use name::MAX_NAME_BYTES;
pub use parts::Parts;
pub use payload::{MAX_DEPTH, Payload};
pub use position::{After, Checkpoint, Incarnation, Position};
#[cfg(feature = "postgres")]
pub use postgres::{
    PostgresDatabase, PostgresOptions, PostgresReader, PostgresStore, PostgresTransaction, PostgresUnitOfWork, postgres,
};
pub use read::{EventStoreExt, EventStream, Pages, ReadAhead, Streams, Subscription};
pub use repository::{
    AggregateStore, ExecuteError, Executed, FieldChange, HistoryStep, Loaded, LoadedAsOf, Repository, SettleToken,
};
pub use request::{Fingerprint, RequestKey};
pub use snapshot::{Snapshot, SnapshotCodec, SnapshotQueue, SnapshotStats, SnapshotStore, StoredSnapshot};
#[cfg(feature = "sqlite")]
pub use sqlite::{
    SqliteDatabase, SqliteOptions, SqliteReader, SqliteStore, SqliteTransaction, SqliteUnitOfWork, Synchronous, sqlite,
};
pub use store::{EventStore, Page, StreamInfo, StreamPage};
pub use stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use unit_of_work::{Begun, RequestUnitOfWork, TransactionalStore, UnitOfWork};
pub use upcast::{JsonUpcaster, StepError};

/// What derived code calls. Not for people; no promise is made about it.
#[doc(hidden)]
pub mod __private {
    pub use core;
    pub use std::string::String;

    pub use crate::aggregate::{Aggregate, SnapshotPolicy};
    pub use crate::derived::{
        NoEvent, check_names, check_of, find_shape, has_name, join_of, join_shapes, unknown_name,
    };
    pub use crate::error::DecodeError;
    pub use crate::event::{Event, EventShape, EventsOf, aggregate_types};
    pub use crate::invalid::Invalid;
    pub use crate::parts::Parts;
    pub use crate::payload::{Payload, decode_struct, decode_variant, encode_struct, encode_variant, without_values};
    #[cfg(feature = "postgres")]
    pub use crate::postgres::{Micros, answer_within, next_within};
    pub use crate::snapshot::SnapshotCodec;
    pub use crate::text_id::{IdText, id_text, read_id};
    pub use crate::upcast::{JsonUpcaster, convert, read_stored, reads};
    pub use serde;
    pub use tokio::sync::watch;
}

/// The seed of random tests: `ANNALS_SEED` if it is set, so that a printed failure can be repeated.
#[cfg(test)]
pub(crate) fn testing_seed() -> u64 {
    let seed = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    seed.unwrap_or_else(|| fastrand::u64(..))
}
