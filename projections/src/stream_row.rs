//! The one row that a stream projection's fold works on.

use crate::error::ProjectionError;
use crate::read_model::ReadModel;
use crate::rows::Rows;

/// The row of the event's stream, as the events before it left it, or the place for it. There is no way from here to another
/// row.
///
/// [`StreamProjection`](crate::StreamProjection) has an example. The row is in memory before the fold runs, so nothing here
/// fails because of a database.
#[derive(Debug)]
pub struct StreamRow<'r, R: ReadModel> {
    rows: &'r mut Rows<R>,
    key: R::Key,
}

impl<'r, R: ReadModel> StreamRow<'r, R> {
    /// The row called `key`.
    ///
    /// # Errors
    /// The runner's own error if it is not in memory.
    pub(crate) fn of(rows: &'r mut Rows<R>, key: R::Key) -> Result<Self, ProjectionError> {
        rows.contains(&key)?;
        Ok(Self { rows, key })
    }

    /// The key that the row has or must have: that of the stream.
    #[must_use]
    pub fn key(&self) -> &R::Key {
        &self.key
    }

    /// The row, or `None` if there is none.
    #[must_use]
    pub fn get(&self) -> Option<&R> {
        self.rows.row(&self.key)
    }

    /// The row to change it, or `None` if there is none. Its key must stay as it is: otherwise the event cannot be applied,
    /// because of [`RowError::KeyChanged`](crate::RowError::KeyChanged).
    pub fn get_mut(&mut self) -> Option<&mut R> {
        self.rows.row_mut(&self.key)
    }

    /// The row to change it, where it is a fault of the events or of the fold if there is none. Its key must stay as it is.
    ///
    /// # Errors
    /// [`RowError::Missing`](crate::RowError::Missing) with the key if there is no row. Hand it on by `?`, and the report names the event too.
    pub fn require(&mut self) -> Result<&mut R, ProjectionError> {
        let missing = self.rows.missing_row(&self.key);
        self.get_mut().ok_or_else(|| missing.into())
    }

    /// The row to change it; if there is none, the row that `make` gives, as by [`StreamRow::insert`].
    pub fn get_or_insert_with(&mut self, make: impl FnOnce() -> R) -> &mut R {
        if self.get().is_none() {
            self.insert(make());
        }
        self.get_mut().expect("it was inserted just now")
    }

    /// Puts `row` in place of what there is. Its key must be [`StreamRow::key`]: otherwise the event cannot be applied, because
    /// of [`RowError::OfAnotherStream`](crate::RowError::OfAnotherStream), and nothing is written.
    pub fn insert(&mut self, row: R) {
        self.rows.put(&self.key, row);
    }

    /// Removes the row, if there is one.
    pub fn remove(&mut self) {
        self.rows.remove(&self.key);
    }
}
