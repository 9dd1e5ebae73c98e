//! The schema of annals stores: the SQL files, and the order in which they are run. For the stores and runners of
//! annals, which run them; of it, apps see [`Migration`] and [`POSTGRES_ROLES_EXAMPLE`], through `annals`.
//!
//! A released file is never edited, only followed by another. Each migration runs once per database and is remembered
//! by component and number; those that a database has not seen run in one transaction, in the order of their list.
//!
//! ```
//! use annals_migrations::SQLITE_EVENTS;
//!
//! assert!(SQLITE_EVENTS[0].sql.contains("CREATE TABLE events"));
//! assert!(SQLITE_EVENTS.iter().zip(1..).all(|(migration, number)| migration.number == number));
//! ```

/// The oldest build that may open a store which this build has created: a count from 1. It rises only when older builds
/// could misread or damage what newer ones write.
pub const MIN_BUILD: i64 = 1;

/// The build of this library, a count from 1 that rises with the schema. A store whose `min_build` is above it is
/// refused.
pub const BUILD: i64 = 1;

/// One step of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The part of the schema it belongs to; parts are migrated independently of each other.
    pub component: &'static str,
    /// Its place in the component, from 1, without holes.
    pub number: i64,
    /// What it brings, for people.
    pub name: &'static str,
    /// The statements, to be run as one text.
    pub sql: &'static str,
}

/// What remembers the migrations themselves; run before any of them, harmless when repeated.
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
];

/// What remembers the migrations on PostgreSQL; run before any of them, harmless when repeated.
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
];

/// Checkpoints of projections on PostgreSQL, in the database of the read models; it need not hold events.
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
];

/// An example of roles on PostgreSQL, for people to read, change and run: an owner that migrates, applications that append
/// without being able to insert by hand, readers, and projections. It says at its top how it is used.
pub const POSTGRES_ROLES_EXAMPLE: &str = include_str!("../postgres/roles.example.sql");
