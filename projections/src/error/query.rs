//! Why rows of a read model could not be read.

use annals_eventstore::{BackendError, DatabaseError, ErrorFamily};

use crate::changes::RowError;

/// Why rows of a read model could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The text for `select` has something that it cannot have. Do what `fix` says.
    #[error("the text for `{read_model}` {problem}; {fix}")]
    Text {
        /// The read model.
        read_model: &'static str,
        /// What is wrong, as the rest of a sentence that begins with the text.
        problem: String,
        /// What to do instead.
        fix: String,
    },
    /// No database can hold this value, so that no row has it.
    #[error("value ${number} of the query of `{read_model}` {problem}")]
    Value {
        /// The read model.
        read_model: &'static str,
        /// Which of the values, from 1.
        number: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// No table can hold this key, so that no row has it.
    #[error("no row can have such a key: {}", crate::member::chain(_0))]
    Key(RowError),
    /// More keys were given than one call may read. Read them in parts.
    #[error("{given} rows of `{read_model}` were asked for by their keys, and {most} are the most; read them in parts")]
    TooManyKeys {
        /// The read model.
        read_model: &'static str,
        /// How many keys were given.
        given: usize,
        /// How many one call may read: [`Projections::MOST_ROWS`](crate::Projections::MOST_ROWS).
        most: usize,
    },
    /// The text has no limit, and more rows fit it than one call may read. None was given.
    #[error(
        "more than {most} rows of `{read_model}` fit the text; end it with `LIMIT {most}`, and read those that follow by the key of the last"
    )]
    TooManyRows {
        /// The read model.
        read_model: &'static str,
        /// How many one call may read: [`Projections::MOST_ROWS`](crate::Projections::MOST_ROWS).
        most: usize,
    },
    /// A deploy is under way: the name shows another version, which has not what rows of this one need. It passes when the name
    /// shows a version that has; until then another process may be able to answer.
    #[error(
        "`{read_model}` shows version {shown} of projection `{projection}`, whose rows version {here} cannot read: {}; try again when the deploy is done, or show version {here} by `Projections::show`",
        unfit.join(", ")
    )]
    OtherVersion {
        /// The projection.
        projection: &'static str,
        /// The read model.
        read_model: &'static str,
        /// The version that the name shows.
        shown: u32,
        /// The version that runs here.
        here: u32,
        /// What does not fit, a phrase per column.
        unfit: Vec<String>,
    },
    /// A stored row is not one of this type; somebody else has written it. Rebuild the read model under a raised `VERSION`.
    #[error("a row of `{read_model}` cannot be read; rebuild the read model under a raised `VERSION`")]
    Unreadable {
        /// The read model.
        read_model: &'static str,
        /// The column, and what it holds.
        source: BackendError,
    },
    /// The database could not be asked, or could not run the query. Its family says whether to try again; if it is *invalid*,
    /// compare the types in the text with those of the columns.
    #[error("the database could not read `{read_model}`{}", what_helps(source))]
    Database {
        /// The read model.
        read_model: &'static str,
        /// What the database said.
        source: DatabaseError,
    },
    /// This projection does not run here with this version and this row. Add it by `with`.
    #[error(
        "no projection is called `{name}` and has version {version} and this row; started are {known}; add it by `with`"
    )]
    Unknown {
        /// The name.
        name: &'static str,
        /// The version.
        version: u32,
        /// Those that there are, joined by commas.
        known: String,
    },
}

/// What to do about what a database said of a query.
fn what_helps(source: &DatabaseError) -> &'static str {
    match source.family() {
        ErrorFamily::Transient => "; try again",
        ErrorFamily::Invalid => "; fix the text of the query, or do what it says",
        _ => "; do what it says",
    }
}

impl QueryError {
    /// Which of the five families the error belongs to.
    #[must_use]
    pub fn family(&self) -> ErrorFamily {
        match self {
            Self::Text { .. }
            | Self::Value { .. }
            | Self::Key(_)
            | Self::TooManyKeys { .. }
            | Self::TooManyRows { .. }
            | Self::Unknown { .. } => ErrorFamily::Invalid,
            Self::OtherVersion { .. } => ErrorFamily::Transient,
            Self::Unreadable { .. } => ErrorFamily::Broken,
            Self::Database { source, .. } => source.family(),
        }
    }

    /// Whether the same call may work later without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == ErrorFamily::Transient
    }
}
