//! The streams that one writer has for itself, and their versions as far as it knows them.

use sqlx::{PgConnection, Row};

use crate::torture::fact::{OWN_STREAMS, UNIT_STREAMS, aggregate_id, aggregate_type};

const VERSION: &str = "
    SELECT version
    FROM annals.events
    WHERE tenant = 'default' AND aggregate_type = $1 AND aggregate_id = $2
    ORDER BY version DESC
    LIMIT 1
";

pub(super) struct Own {
    first: u32,
    /// By the place of the stream; nothing where a commit may have happened or not.
    versions: Vec<Option<i64>>,
}

impl Own {
    /// Those of this writer; nobody has written to them yet.
    pub(super) fn of(writer: u32) -> Self {
        Self::share(writer, 0, 1)
    }

    /// The `n`-th of `shares` equal parts of them.
    pub(super) fn share(writer: u32, n: u32, shares: u32) -> Self {
        let count = OWN_STREAMS / shares;
        Self { first: 10_000 + writer * OWN_STREAMS + n * count, versions: vec![Some(0); count as usize] }
    }

    /// Those of this writer if it appends in units of work.
    pub(super) fn of_units(writer: u32) -> Self {
        let first = UNIT_STREAMS.start + writer * OWN_STREAMS;
        Self { first, ..Self::of(writer) }
    }

    /// Any of them, by any number.
    pub(super) fn stream(&self, number: u32) -> u32 {
        self.first + number % self.versions.len() as u32
    }

    pub(super) fn has(&self, stream: u32) -> bool {
        self.known(stream).is_some()
    }

    /// The version of a stream, looked up if it is not known.
    pub(super) async fn version(&mut self, stream: u32, connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
        if let Some(known) = self.known(stream).copied().flatten() {
            return Ok(known);
        }
        let query = sqlx::query(VERSION).bind(aggregate_type(stream)).bind(aggregate_id(stream));
        let found = query.fetch_all(connection).await?.first().map_or(0, |row| row.get(0));
        self.set(stream, Some(found));
        Ok(found)
    }

    /// The version of a stream that no commit is open about.
    pub(super) fn known_version(&self, stream: u32) -> i64 {
        self.known(stream).copied().flatten().unwrap_or_default()
    }

    /// Says which version a stream has now; nothing if nobody knows.
    pub(super) fn set(&mut self, stream: u32, version: Option<i64>) {
        if let Some(known) = stream.checked_sub(self.first).and_then(|place| self.versions.get_mut(place as usize)) {
            *known = version;
        }
    }

    /// Says that nobody knows anything.
    pub(super) fn forget(&mut self) {
        self.versions.fill(None);
    }

    fn known(&self, stream: u32) -> Option<&Option<i64>> {
        self.versions.get(stream.checked_sub(self.first)? as usize)
    }
}
