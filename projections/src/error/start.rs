//! Why projections could not be started.

use std::fmt;

use annals_eventstore::{DatabaseError, ErrorFamily, Invalid, OpenError, ReadError};

use crate::read_model::SpecError;

/// Why projections could not be started. Nothing runs, and nothing but new, empty tables was created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The name of a projection, its version or the events it wants break a rule, or there is none. Fix what it names.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The declaration of a read model breaks a rule. Fix it.
    #[error(transparent)]
    Table(#[from] SpecError),
    /// The read model has other columns or another key than when this version was first started. Raise `VERSION`.
    #[error(
        "projection `{projection}` was built as version {version} with `{stored}`, but is now declared with `{declared}`; raise its `VERSION` to build it anew"
    )]
    ShapeChanged {
        /// The projection.
        projection: &'static str,
        /// Its version.
        version: u32,
        /// The table in the database, as `name(column type, ..; key column, ..)`.
        stored: String,
        /// The table that the code declares, likewise.
        declared: String,
    },
    /// The projection wants other events than when this version was first started: its rows would miss those of the new
    /// names that were read before. Raise `VERSION`.
    #[error(
        "projection `{projection}` was built as version {version} from other events: {}; raise its `VERSION` to build it anew",
        Names(new, missing)
    )]
    EventsChanged {
        /// The projection.
        projection: &'static str,
        /// Its version.
        version: u32,
        /// The stored names that it wants now and did not want then.
        new: Vec<String>,
        /// Those that it wanted then and does not want now.
        missing: Vec<String>,
    },
    /// The projection wants the events of another tenant than when this version was first started. Raise `VERSION`.
    #[error(
        "projection `{projection}` was built as version {version} from the events {}, but now wants those {}; raise its `VERSION` to build it anew",
        OfTenant(stored),
        OfTenant(declared)
    )]
    TenantChanged {
        /// The projection.
        projection: &'static str,
        /// Its version.
        version: u32,
        /// The tenant then; `None` if it was all of them.
        stored: Option<String>,
        /// The tenant now.
        declared: Option<String>,
    },
    /// The projection is split into another number of slots than when this version was first started. Raise `VERSION`, or
    /// declare the number that it was built with.
    #[error(
        "projection `{projection}` was built as version {version} in {stored} slots, but is now declared with {declared}; declare {stored}, or raise its `VERSION` to build it anew"
    )]
    SlotsChanged {
        /// The projection.
        projection: &'static str,
        /// Its version.
        version: u32,
        /// The number of slots then.
        stored: u32,
        /// The number of slots now.
        declared: u32,
    },
    /// A raised version lacks columns that queries by the stable name find today, or has them with another type; a build
    /// that is still running would fail on them. Keep them, or give the read model a new table name.
    #[error(
        "projection `{projection}` (version {version}) lacks what queries of `{read_model}` find today in version {shown}: {}; keep it, or give the read model a new table name",
        lost.join(", ")
    )]
    ColumnsLost {
        /// The projection.
        projection: &'static str,
        /// Its version.
        version: u32,
        /// The stable name.
        read_model: &'static str,
        /// The version that the name shows.
        shown: u32,
        /// What is lost, a phrase per column.
        lost: Vec<String>,
    },
    /// The name that the read model needs belongs to something else. Rename one of them.
    #[error(
        "projection `{projection}` needs the name `{name}`, which {taken_by}; rename the read model's table, or the other"
    )]
    NameTaken {
        /// The projection.
        projection: &'static str,
        /// The name.
        name: String,
        /// Whose it is.
        taken_by: String,
    },
    /// The projection has seen a log that this store does not have: one of them was restored or replaced. Raise `VERSION`
    /// to build it anew from this log.
    #[error(
        "projection `{projection}` (version {version}) has read another log than this; raise its `VERSION` to build it anew"
    )]
    Rewound {
        /// The projection.
        projection: &'static str,
        /// Its version.
        version: u32,
        /// What the store said about its checkpoint.
        source: ReadError,
    },
    /// The reactor has read a log that this store does not have: one of them was restored or replaced. So where it goes on is not
    /// known. Give it another `NAME`, and say by `after` where it begins.
    #[error(
        "reactor `{reactor}` has read another log than this; give it another `NAME`, and say by `after` where it begins"
    )]
    ReactorRewound {
        /// The reactor.
        reactor: &'static str,
        /// What the store said about its checkpoint.
        source: ReadError,
    },
    /// The reactor was first started for another tenant, or for all. Its position counts for that one.
    #[error(
        "reactor `{reactor}` was first started for the events {}, but now wants those {}; give it another `NAME`",
        OfTenant(stored),
        OfTenant(declared)
    )]
    ReactorTenantChanged {
        /// The reactor.
        reactor: &'static str,
        /// The tenant then; `None` if it was all of them.
        stored: Option<String>,
        /// The tenant now.
        declared: Option<String>,
    },
    /// The event store could not be read. If the error is transient, start again later.
    #[error("the event store could not be read; start again when it can")]
    Store(#[source] ReadError),
    /// The database of the read models refused or could not be reached. Fix what it says, or start again later.
    #[error(
        "the database of the read models could not be prepared for `{projection}`; fix what it says and start again"
    )]
    Database {
        /// The projection.
        projection: &'static str,
        /// What the database said.
        source: DatabaseError,
    },
    /// A transaction projection could not make its tables. Fix what it says, start again.
    #[error(
        "projection `{projection}` (version {version}) could not set up its tables; fix what it says and start again"
    )]
    SetUp {
        /// The projection.
        projection: &'static str,
        /// Its version.
        version: u32,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database of the read models could not be brought to this build's schema. Fix what it says, start again.
    #[error("the database of the read models could not be prepared; fix what it says and start again")]
    Migrate(#[source] OpenError),
}

impl StartError {
    /// Which of the five families the error belongs to.
    #[must_use]
    pub fn family(&self) -> ErrorFamily {
        match self {
            Self::Invalid(_)
            | Self::Table(_)
            | Self::ShapeChanged { .. }
            | Self::EventsChanged { .. }
            | Self::TenantChanged { .. }
            | Self::SlotsChanged { .. }
            | Self::ReactorTenantChanged { .. }
            | Self::ColumnsLost { .. }
            | Self::NameTaken { .. } => ErrorFamily::Invalid,
            Self::Rewound { .. } | Self::ReactorRewound { .. } | Self::SetUp { .. } => ErrorFamily::Broken,
            Self::Store(source) => source.family(),
            Self::Database { source, .. } => source.family(),
            Self::Migrate(source) => source.family(),
        }
    }

    /// Whether the same call may work later without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == ErrorFamily::Transient
    }
}

/// Writes out which stored names are new and which are missing.
struct Names<'a>(&'a [String], &'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (names, what) in [(self.0, "new"), (self.1, "missing")] {
            for name in names {
                write!(f, "{comma}`{name}` is {what}")?;
                comma = ", ";
            }
        }
        Ok(())
    }
}

/// Writes out whose events are wanted.
struct OfTenant<'a>(&'a Option<String>);

impl fmt::Display for OfTenant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(tenant) => write!(f, "of tenant `{tenant}`"),
            None => f.write_str("of all tenants"),
        }
    }
}
