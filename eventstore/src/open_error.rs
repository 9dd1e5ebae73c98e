//! Why a store or a database could not be opened or migrated.

use crate::error::{BackendError, ErrorFamily};
use crate::invalid::Invalid;

/// Why a store or a database could not be opened or migrated.
///
/// A file or database that is refused is left as it was. Where opening failed half way, what it had begun in a new one
/// is completed by opening it again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The path, the URL or an option breaks a rule; fix the field it names.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The file holds something else. Choose another file.
    #[error("`{path}` is not an annals store: {found}; choose another file")]
    NotAStore {
        /// The file.
        path: String,
        /// What it is instead.
        found: String,
    },
    /// A newer build has changed the store in a way that this build cannot follow. Deploy a newer build.
    #[error("`{path}` needs build {needed} of annals or newer, this is build {ours}; upgrade annals")]
    NewerStore {
        /// The file or database.
        path: String,
        /// The oldest build that may open it.
        needed: i64,
        /// The build of this library.
        ours: i64,
    },
    /// The schema is missing or older than this build. Migrate, once all processes that run older builds support the new
    /// schema.
    #[error("`{path}` lacks the migrations {missing}; open it with `PostgresOptions::migrate`")]
    PendingMigrations {
        /// The database.
        path: String,
        /// Which migrations it has not seen.
        missing: String,
    },
    /// The database lacks something that the store's guarantees rely on. Do what the error says.
    #[error("`{path}` cannot keep the store's promises: {what}; {fix}")]
    Unsound {
        /// The database.
        path: String,
        /// The problem.
        what: String,
        /// What to do.
        fix: String,
    },
    /// The connection cannot be encrypted as the URL requires, or the server's identity could not be verified. Correct the URL
    /// or the server's certificate. No secret was sent.
    #[error(
        "the server of `{path}` cannot be trusted; compare `sslmode`, `sslrootcert` and the host name with its certificate"
    )]
    Untrusted {
        /// The database.
        path: String,
        /// The problem of the certificate or the encryption.
        source: BackendError,
    },
    /// The file may not be written. Correct the permissions, or open it with `SqliteOptions::read_only`.
    #[error("`{path}` cannot be written: {reason}; correct the permissions, or open it with `read_only`")]
    ReadOnly {
        /// The file.
        path: String,
        /// The error of the system.
        reason: String,
    },
    /// The file is damaged or its journal is missing.
    #[error("`{path}` is damaged: {what}; restore it from a backup")]
    Damaged {
        /// The file.
        path: String,
        /// The damage.
        what: String,
    },
    /// The disk is full. Make room and open again.
    #[error("no room on the disk for `{path}`; make room and open it again")]
    StorageFull {
        /// The file.
        path: String,
        /// The error of the engine.
        source: BackendError,
    },
    /// The database refused a statement that opening or migrating it needs, and would again: a mistake in a migration, a
    /// wrong password, a database that is not there. See the cause.
    #[error("`{path}` refused a statement needed to open or migrate it; see the cause")]
    Refused {
        /// The file or database.
        path: String,
        /// The error of the engine.
        source: BackendError,
    },
    /// The store or database could not be reached, or was blocked until the timeout; the same call may work later.
    #[error("`{path}` could not be opened")]
    Unavailable {
        /// The file or database.
        path: String,
        /// The error of the engine.
        source: BackendError,
    },
    /// The handle on which migrations were to run was closed. Open the database again.
    #[error("the database handle is closed; open the database again")]
    Closed,
}

impl OpenError {
    /// Which of the five families the error belongs to.
    #[must_use]
    pub fn family(&self) -> ErrorFamily {
        match self {
            Self::Invalid(_) | Self::NotAStore { .. } | Self::Closed => ErrorFamily::Invalid,
            Self::StorageFull { .. } | Self::Unavailable { .. } => ErrorFamily::Transient,
            Self::NewerStore { .. }
            | Self::PendingMigrations { .. }
            | Self::Unsound { .. }
            | Self::Untrusted { .. }
            | Self::ReadOnly { .. }
            | Self::Damaged { .. }
            | Self::Refused { .. } => ErrorFamily::Broken,
        }
    }

    /// Whether the same call may work later without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == ErrorFamily::Transient
    }
}
