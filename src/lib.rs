#![doc = include_str!("../README.md")]
//!
//! # Finding your way
//!
//! | you want to | look at |
//! |---|---|
//! | say what can happen | [`Event`], [`text_id!`] |
//! | change events that are stored | [how](guide::events_that_change); [`evolution`]; `testing::schema_lock!` (feature `testing`) |
//! | say what state follows, and decide | [`Aggregate`], [`Evolve`], [`Decide`] |
//! | load long streams fast | [how](guide::snapshots) |
//! | open a store | [`sqlite()`], [`SqliteOptions`], [`MemoryStore`]; `postgres`, `PostgresOptions` (feature `postgres`) |
//! | run commands | [`AggregateStore::aggregate`], [`Repository`], [`Context`], [`RequestKey`] |
//! | run a command over two aggregates | [`AggregateStore::execute_two`]; [how](guide::two_aggregates) |
//! | append, load, read and subscribe without aggregates | [`EventStore`], [`EventStoreExt`], [`Append`], [`Filter`] |
//! | commit events and rows of your own together | [`TransactionalStore::begin_with`]; [how](guide::unit_of_work); [`UnitOfWork`], [`SqliteStore::begin`], [`SqliteStore::append_in`]; `PostgresStore::begin`, `PostgresStore::append_in` |
//! | build read models | [`ReadModel`], [`Projection`], [`Rows`], or per stream [`StreamProjection`], [`StreamRow`]; by SQL of your own [`TransactionProjection`](projections::TransactionProjection); [`ProjectionsExt::projections`], [`ProjectionsBuilder`], [`Projections::show`] to roll back |
//! | run them in several processes | [how](guide::many_processes); [`Projections::pause`], [`Projections::dead_letters`], [`Projections::health`], [`Projections::stops`] |
//! | query them | [`Projections::find`], [`Projections::find_many`], [`Projections::select`] |
//! | send mails, call others when something has happened | [`Reactor`], [`EffectKey`], [`ProjectionsBuilder::react`]; [`Projections::parked`] |
//! | answer HTTP requests, each once | [how](guide::web) |
//! | call other systems that fail, and refuse what is too much | the module `resilience` (feature `resilience`) |
//! | run a business transaction over several services, and undo it if it fails | [how](guide::sagas); the module `sagas` (feature `sagas`) |
//! | be the service that such a transaction calls | [how](guide::participants); `sagas::participant` |
//! | ask what was true then | [`Repository::as_of`], [`Repository::history`], [`Projections::as_of`], [`Projections::find_as_of`], [`AsOf`], and [below](#what-was-true-then) |
//! | test all of that | the module `testing` (feature `testing`) |
//! | put another engine under it, or something in front of a store | [`EventStore`], and the module `conformance` (feature `conformance`) |
//! | understand an error | [`ErrorFamily`], [`AppendError`], [`ReadError`], [`ExecuteError`], [`OpenError`] |
//!
//! # What was true then
//!
//! Nothing that was stored is changed, so every state of the past can be asked for:
//!
//! ```
//! # use annals::{Aggregate, Event, Evolve, Projection, ProjectionError, ReadModel, Recorded, Rows, prelude::*};
//! # use serde::{Deserialize, Serialize};
//! # annals::text_id! { struct AccountId; }
//! # #[derive(Event, Serialize, Deserialize, Clone, Debug)]
//! # enum AccountEvent {
//! #     #[event(name = "account.deposited")]
//! #     Deposited { cents: i64 },
//! # }
//! # #[derive(Aggregate, Serialize, Default, Clone)]
//! # #[aggregate(name = "account", id = AccountId, event = AccountEvent)]
//! # struct Account { cents: i64 }
//! # impl Evolve for Account {
//! #     fn evolve(&mut self, AccountEvent::Deposited { cents }: &AccountEvent) { self.cents += cents; }
//! # }
//! # #[derive(ReadModel, Clone)]
//! # #[read_model(table = "balance", key = "account")]
//! # struct BalanceRow { account: AccountId, cents: i64 }
//! # struct Balances;
//! # impl Projection for Balances {
//! #     type Event = AccountEvent;
//! #     type Row = BalanceRow;
//! #     fn apply(&self, event: &Recorded<AccountEvent>, rows: &mut Rows<BalanceRow>) -> Result<(), ProjectionError> {
//! #         let account: AccountId = event.aggregate_id()?;
//! #         let AccountEvent::Deposited { cents } = event.event;
//! #         rows.get_or_insert_with(&account.clone(), || BalanceRow { account, cents: 0 })?.cents += cents;
//! #         Ok(())
//! #     }
//! # }
//! use annals::AsOf;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let store = annals::sqlite(folder.path().join("accounts.db")).await?;
//! # let accounts = store.aggregate::<Account>();
//! # let views = store.projections().with(Balances).start().await?;
//! # let id = AccountId::new("a-17")?;
//! # let deposit = |cents| accounts.execute(&id, move |_| Ok::<_, std::convert::Infallible>(AccountEvent::Deposited { cents }));
//! let first = deposit(5_00).await?;
//! deposit(3_00).await?;
//!
//! let then = accounts.as_of(&id, AsOf::version(1)).await?; // one aggregate as it was
//! assert_eq!(then.state.cents, 5_00);
//! let balances = views.as_of::<Balances>(AsOf::position(first.position)).await?; // a whole read model as it was
//! assert_eq!(balances.rows[0].cents, 5_00);
//! for step in accounts.history(&id).await? {
//!     println!("{} {}", step.event.name, step.changed[0]); // account.deposited cents: 0 -> 500
//! }
//! # views.close().await;
//! # Ok(()) }
//! ```
//!
//! [`AsOf::time`] asks for a time, such as yesterday. The order of the log is that of positions, so a time means all that was
//! stored before the first event that was recorded after it; a clock that was set back for a while changes nothing. Neither a
//! position nor a time divides an append: what was stored together is there together, or not at all.
//!
//! Each answer has its position, and asked for that position again it is the same for ever. Asked for a time again it is the
//! same too, as a time that is not over is refused, and running appends that could still be recorded at it are waited for. Only
//! a clock that is set back past a time that was asked for can add to its answer.
//!
//! An aggregate is read up to there. A read model is folded anew up to there, in memory, and not more than
//! [`ProjectionsBuilder::most_rows_as_of`] rows; nothing is stored. One row of a stream projection is found by reading its stream
//! alone: [`Projections::find_as_of`]. Versions are those of one stream, so [`AsOf::version`] is for aggregates and for such
//! rows, and also gives states in the middle of an append.
//!
//! # Features
//!
//! What a feature gives has its name as a badge where this documentation is built as on docs.rs: by nightly, with
//! `--cfg docsrs`.
//!
//! | feature | default | gives |
//! |---|---|---|
//! | `macros` | yes | the derives [`Event`], [`Aggregate`] and [`ReadModel`] |
//! | `sqlite` | yes | the embedded store |
//! | `postgres` | no | the store for many writers and several machines |
//! | `projections` | yes | read models and the runner that keeps them up to date |
//! | `resilience` | no | circuit breaker, retry, bulkhead, rate limit, deadlines, fallback and health, without events |
//! | `resilience-tower` | no | a policy as a layer of tower |
//! | `resilience-http` | no | layers for a service's own HTTP: requests that run once, rate limits with their headers |
//! | `resilience-axum` | no | all of that, and routes and extractors for axum |
//! | `sagas` | no | declared steps over several services, each with its undo; participants, which do and undo such steps once |
//! | `sagas-http` | no | what an answer over HTTP means for a step |
//! | `sagas-axum` | no | that, and handlers of participants for axum |
//! | `testing` | no | given/when/then, a store that fails on demand, and the lock of stored shapes |
//! | `conformance` | no | the contract of a store as clauses that run |
//! | `full` | no | everything that runs in production; layers and routes for HTTP are asked for by name |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(
        feature = "macros",
        feature = "sqlite",
        feature = "projections",
        feature = "resilience-axum",
        feature = "sagas-axum",
        feature = "testing"
    )),
    allow(
        rustdoc::broken_intra_doc_links,
        reason = "the manual also names what a smaller choice of features leaves out"
    )
)]

// Derived code says `::annals`; so it also compiles in this crate.
extern crate self as annals;

pub use annals_eventstore::{
    Actor, Aggregate, AggregateStore, Append, AppendError, Appended, AsOf, Checkpoint, Context, CorrelationId, Decide,
    ErrorFamily, Event, EventId, EventStore, EventStoreExt, Evolve, ExecuteError, Executed, ExpectedVersion,
    FieldChange, Filter, Fingerprint, HistoryStep, Invalid, Loaded, LoadedAsOf, MemoryStore, Metadata, NewEvent,
    OpenError, Position, ReadError, Recorded, RecordedEvent, Repository, RequestKey, SettleToken, StreamId,
    StreamVersion, Subscription, Tenant,
};

#[cfg(not(feature = "projections"))]
pub use annals_eventstore::text_id;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use annals_eventstore::{Begun, RequestUnitOfWork, TransactionalStore, UnitOfWork};

#[cfg(feature = "sqlite")]
pub use annals_eventstore::{SqliteOptions, SqliteStore, sqlite};

#[cfg(feature = "postgres")]
pub use annals_eventstore::{PostgresOptions, PostgresStore, postgres};

#[cfg(feature = "macros")]
pub use annals_macros::{Aggregate, Event, ReadModel};

#[cfg(all(feature = "projections", any(feature = "sqlite", feature = "postgres")))]
pub use annals_projections::ProjectionsExt;
#[cfg(feature = "projections")]
pub use annals_projections::{
    EffectKey, Projection, ProjectionError, Projections, ProjectionsBuilder, Reactor, ReactorError, ReadModel, Rows,
    StreamProjection, StreamRow,
};

/// The embedded store: the names beside [`SqliteStore`] and [`SqliteOptions`].
#[cfg(feature = "sqlite")]
pub mod sqlite {
    pub use annals_eventstore::{
        Migration, SqliteDatabase, SqliteOptions, SqliteReader, SqliteStore, SqliteTransaction, SqliteUnitOfWork,
        Synchronous,
    };
}

/// The store for many writers and several machines: the names beside [`PostgresStore`] and [`PostgresOptions`].
#[cfg(feature = "postgres")]
pub mod postgres {
    pub use annals_eventstore::{
        Migration, POSTGRES_ROLES_EXAMPLE as ROLES_EXAMPLE, PostgresDatabase, PostgresOptions, PostgresReader,
        PostgresStore, PostgresTransaction, PostgresUnitOfWork,
    };
}

/// Read models: the names beside [`Projection`], [`Rows`] and [`ProjectionsBuilder`].
///
/// Types of columns ([`Column`](projections::Column), [`text_column!`](projections::text_column)), the state of a running
/// projection ([`ProjectionStatus`](projections::ProjectionStatus)) and what can go wrong.
///
/// How to: [choose a kind of projection](annals_projections#which-kind-of-projection), [keep the rows of tenants apart](annals_projections#tenants),
/// [deploy a changed projection](annals_projections#deploying-a-changed-projection).
#[cfg(feature = "projections")]
pub mod projections {
    pub use annals_projections::{
        AsOfError, Column, ColumnError, ColumnSpec, ColumnType, ColumnValue, ControlError, Controlled, DeadLetter,
        EffectKey, Elsewhere, EventPlace, HealthOf, InTransaction, IndexSpec, KeyText, LastError, ParkedStream,
        PositionToken, Projection, ProjectionError, ProjectionHealth, ProjectionProgress, ProjectionState,
        ProjectionStatus, ProjectionTransaction, Projections, ProjectionsBuilder, QueryError, QueryValue, Reacting,
        Reactor, ReactorError, ReactorState, ReactorStatus, ReadModel, ReadModelDatabase, Retried, RowAsOf, RowError,
        RowKey, RowKeyPrefix, Rows, RowsAsOf, SlotStatus, SpecError, StartError, StopCause, Stopped, Stops, StreamKey,
        StreamOptions, StreamProjection, StreamRow, TableSpec, TransactionProjection, Verdict, WaitError, text_column,
    };
}

/// Events that change: the names beside the words `upcast` and `upcasters` of [`Event`](derive@crate::Event).
pub mod evolution {
    pub use annals_eventstore::{JsonUpcaster, Parts, StepError};
}

/// How to: pages with an example each.
#[cfg(all(any(doc, doctest), feature = "macros", feature = "projections"))]
pub mod guide {
    #[doc = include_str!("../docs/events-that-change.md")]
    pub mod events_that_change {}

    #[doc = include_str!("../docs/snapshots.md")]
    pub mod snapshots {}

    #[doc = include_str!("../docs/two-aggregates.md")]
    pub mod two_aggregates {}

    #[cfg(all(feature = "resilience", feature = "sqlite"))]
    #[doc = include_str!("../docs/many-processes.md")]
    pub mod many_processes {}

    #[doc = include_str!("../docs/telemetry.md")]
    pub mod telemetry {}

    #[cfg(feature = "sqlite")]
    #[doc = include_str!("../docs/unit-of-work.md")]
    pub mod unit_of_work {}

    #[cfg(all(feature = "resilience-axum", feature = "sqlite"))]
    #[doc = include_str!("../docs/web.md")]
    pub mod web {}

    #[cfg(all(feature = "sagas", feature = "sqlite", feature = "testing"))]
    #[doc = include_str!("../docs/sagas.md")]
    pub mod sagas {}

    #[cfg(feature = "sagas-axum")]
    #[doc = include_str!("../docs/participants.md")]
    pub mod participants {}
}

/// For those who implement a store, a clock or a source of ids, put something in front of a store, or read pages of the log
/// themselves.
pub mod engine {
    pub use annals_eventstore::{
        After, AppendPart, AppendedStream, BackendError, Backoff, CausationId, CheckedAppend, CheckedEvent,
        CheckedPart, Clock, DatabaseError, DecodeError, EventShape, EventStream, EventsOf, FilterConditions, Holder,
        IdSource, Incarnation, IntoEvents, Limits, MAX_DEPTH, MAX_EVENT_BYTES, MAX_METADATA_BYTES, MAX_NAME_BYTES,
        MAX_PAGE_EVENTS, ManualClock, MemoryStoreBuilder, PAGE_BYTES, Page, PageBudget, Pages, Payload, ReadAhead,
        Repeat, SeededIds, Snapshot, SnapshotCodec, SnapshotPolicy, SnapshotQueue, SnapshotStats, SnapshotStore,
        StoredSnapshot, StreamFilter, StreamInfo, StreamPage, Streams, SystemClock, TimeOrderedIds, TraceParent,
        forward_event_store, page_limit,
    };
}

#[cfg(feature = "resilience")]
#[doc = include_str!("../docs/resilience.md")]
///
/// # All patterns
///
#[doc(inline)]
pub use annals_resilience as resilience;

#[cfg(feature = "sagas")]
#[doc(inline)]
pub use annals_sagas as sagas;

#[cfg(feature = "conformance")]
pub use annals_eventstore::conformance;

/// Kits for tests of events, aggregates and projections: [`given`](testing::given) and
/// [`given_events`](testing::given_events) begin a given / when / then, [`FaultyStore`](testing::FaultyStore) fails on demand,
/// [`schema_lock!`](testing::schema_lock) notices when the shape or the meaning of stored events changes.
#[cfg(feature = "testing")]
pub mod testing {
    pub use annals_eventstore::testing::{
        Decided, Fault, FaultyStore, Given, SchemaLock, Then, given, given_nothing, schema_lock, shapes_of,
    };
    #[cfg(feature = "projections")]
    pub use annals_projections::testing::{GivenEvent, GivenEvents, ProjectionTest, given_events};
}

/// The traits whose methods one calls on a store, a projection or a reactor, in one line: `use annals::prelude::*;`.
pub mod prelude {
    #[cfg(all(feature = "projections", any(feature = "sqlite", feature = "postgres")))]
    pub use annals_projections::ProjectionsExt as _;
    #[cfg(feature = "projections")]
    pub use annals_projections::{Reactor as _, StreamProjection as _};
    #[cfg(all(feature = "sagas", any(feature = "sqlite", feature = "postgres")))]
    pub use annals_sagas::SagasExt as _;

    pub use annals_eventstore::{AggregateStore as _, EventStore as _, EventStoreExt as _};
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub use annals_eventstore::{TransactionalStore as _, UnitOfWork as _};
}

/// Declares types of ids that are text: checked, cheap to clone, written by serde as text, and a column of read models.
///
/// ```
/// annals::text_id! {
///     /// What names an order.
///     pub struct OrderId;
///     /// What names a customer.
///     pub struct CustomerId;
/// }
///
/// let id = OrderId::new("o-17")?;
/// assert_eq!(id.as_str(), "o-17");
/// assert!(OrderId::new("").is_err());
/// # Ok::<(), annals::Invalid>(())
/// ```
#[cfg(feature = "projections")]
#[macro_export]
macro_rules! text_id {
    ($($(#[$meta:meta])* $vis:vis struct $name:ident;)+) => {
        $crate::__private::text_id! { $($(#[$meta])* $vis struct $name;)+ }
        $crate::__private::text_column! { $($name),+ }
    };
}

/// What derived code calls. Not for people; no promise is made about it.
#[doc(hidden)]
pub mod __private {
    pub use annals_eventstore::__private::*;
    pub use annals_eventstore::text_id;
    #[cfg(feature = "projections")]
    pub use annals_projections::__private::*;
    #[cfg(feature = "projections")]
    pub use annals_projections::text_column;
}
