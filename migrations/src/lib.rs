//! The schema of annals stores: the SQL files, and the order in which they run. The stores and runners of annals use this
//! crate. Apps use only [`Migration`] and [`POSTGRES_ROLES_EXAMPLE`], through `annals`.
//!
//! A released file is never edited; a new file changes the schema further. Each migration runs once per database, which
//! records its component and number. New migrations run in one transaction, in the order of their list.
//!
//! ```
//! use annals_migrations::SQLITE_EVENTS;
//!
//! assert!(SQLITE_EVENTS[0].sql.contains("CREATE TABLE events"));
//! assert!(SQLITE_EVENTS.iter().zip(1..).all(|(migration, number)| migration.number == number));
//! ```

/// The oldest build that may open a store which this build has created. Builds count from 1. This number increases only
/// when older builds could misread or damage what newer ones write.
pub const MIN_BUILD: i64 = 1;

/// The build of this library, which counts from 1 and increases with the schema. A store with a higher `min_build` is
/// refused.
pub const BUILD: i64 = 1;

/// One step of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The part of the schema. Parts are migrated independently of each other.
    pub component: &'static str,
    /// Its number in the component, from 1, without gaps.
    pub number: i64,
    /// What it adds, for people.
    pub name: &'static str,
    /// The statements, to be run as one text.
    pub sql: &'static str,
}

/// The table that records migrations. It is created before any of them; repeating it is harmless.
pub const SQLITE_LEDGER: &str = include_str!("../sqlite/0000_migrations.sql");

/// The event store on SQLite.
pub const SQLITE_EVENTS: &[Migration] = &[
    Migration { component: "events", number: 1, name: "events", sql: include_str!("../sqlite/0001_events.sql") },
    Migration {
        component: "events",
        number: 2,
        name: "request keys",
        sql: include_str!("../sqlite/0002_request_keys.sql"),
    },
    Migration { component: "events", number: 3, name: "store", sql: include_str!("../sqlite/0003_store.sql") },
    Migration { component: "events", number: 4, name: "snapshots", sql: include_str!("../sqlite/0004_snapshots.sql") },
    Migration { component: "events", number: 5, name: "as of", sql: include_str!("../sqlite/0005_as_of.sql") },
];

/// Checkpoints of projections on SQLite, in the database of the read models.
pub const SQLITE_PROJECTIONS: &[Migration] = &[
    Migration {
        component: "projections",
        number: 1,
        name: "checkpoints",
        sql: include_str!("../sqlite/0100_checkpoints.sql"),
    },
    Migration {
        component: "projections",
        number: 2,
        name: "read models",
        sql: include_str!("../sqlite/0101_read_models.sql"),
    },
    Migration { component: "projections", number: 3, name: "leases", sql: include_str!("../sqlite/0102_leases.sql") },
    Migration {
        component: "projections",
        number: 4,
        name: "parked streams",
        sql: include_str!("../sqlite/0103_parked_streams.sql"),
    },
    Migration {
        component: "projections",
        number: 5,
        name: "reactors",
        sql: include_str!("../sqlite/0104_reactors.sql"),
    },
];

/// The table that records migrations on PostgreSQL. It is created before any of them; repeating it is harmless.
pub const POSTGRES_LEDGER: &str = include_str!("../postgres/0000_migrations.sql");

/// The event store on PostgreSQL.
pub const POSTGRES_EVENTS: &[Migration] = &[
    Migration { component: "events", number: 1, name: "events", sql: include_str!("../postgres/0001_events.sql") },
    Migration {
        component: "events",
        number: 2,
        name: "request keys",
        sql: include_str!("../postgres/0002_request_keys.sql"),
    },
    Migration { component: "events", number: 3, name: "store", sql: include_str!("../postgres/0003_store.sql") },
    Migration { component: "events", number: 4, name: "append", sql: include_str!("../postgres/0004_append.sql") },
    Migration {
        component: "events",
        number: 5,
        name: "append within",
        sql: include_str!("../postgres/0005_append_within.sql"),
    },
    Migration {
        component: "events",
        number: 6,
        name: "snapshots",
        sql: include_str!("../postgres/0006_snapshots.sql"),
    },
    Migration { component: "events", number: 7, name: "as of", sql: include_str!("../postgres/0007_as_of.sql") },
];

/// Checkpoints of projections on PostgreSQL, in the database of the read models, which may be another one than that of the events.
pub const POSTGRES_PROJECTIONS: &[Migration] = &[
    Migration {
        component: "projections",
        number: 1,
        name: "checkpoints",
        sql: include_str!("../postgres/0100_checkpoints.sql"),
    },
    Migration {
        component: "projections",
        number: 2,
        name: "read models",
        sql: include_str!("../postgres/0101_read_models.sql"),
    },
    Migration { component: "projections", number: 3, name: "leases", sql: include_str!("../postgres/0102_leases.sql") },
    Migration {
        component: "projections",
        number: 4,
        name: "parked streams",
        sql: include_str!("../postgres/0103_parked_streams.sql"),
    },
    Migration {
        component: "projections",
        number: 5,
        name: "reactors",
        sql: include_str!("../postgres/0104_reactors.sql"),
    },
];

/// An example of roles on PostgreSQL, to be read, changed and run by hand: an owner that migrates, applications that append
/// but cannot insert by hand, readers, and projections. Its first lines describe how to use it.
pub const POSTGRES_ROLES_EXAMPLE: &str = include_str!("../postgres/roles.example.sql");
