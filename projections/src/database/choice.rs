//! Which databases read models can live in.

use std::sync::Arc;

use super::ReadModels;

/// A database that read models can live in: `SqliteDatabase` (feature `sqlite`) or `PostgresDatabase` (feature `postgres`).
///
/// On PostgreSQL the tables are made in the first schema of the connection's search path, which is `public` unless the
/// role or the URL says otherwise (`?options=-csearch_path=shop`), and checkpoints in the schema `annals`. The database
/// need not hold events.
pub trait ReadModelDatabase: sealed::IntoReadModels + Clone {}

/// What hides behind a [`ReadModelDatabase`].
pub struct AnyReadModels(pub(crate) Arc<dyn ReadModels>);

pub(crate) mod sealed {
    /// What a database is to the runner.
    pub trait IntoReadModels {
        /// The database, as the runner needs it.
        fn into_read_models(self) -> super::AnyReadModels;
    }
}

#[cfg(feature = "sqlite")]
impl ReadModelDatabase for annals_eventstore::SqliteDatabase {}

#[cfg(feature = "sqlite")]
impl sealed::IntoReadModels for annals_eventstore::SqliteDatabase {
    fn into_read_models(self) -> AnyReadModels {
        AnyReadModels(Arc::new(super::sqlite::SqliteReadModels::new(self)))
    }
}

#[cfg(feature = "postgres")]
impl ReadModelDatabase for annals_eventstore::PostgresDatabase {}

#[cfg(feature = "postgres")]
impl sealed::IntoReadModels for annals_eventstore::PostgresDatabase {
    fn into_read_models(self) -> AnyReadModels {
        AnyReadModels(Arc::new(super::postgres::PostgresReadModels::new(self)))
    }
}
