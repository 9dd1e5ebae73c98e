//! The connection for writing, in the task of a caller who may drop its future.

use std::ops::{Deref, DerefMut};

use tokio::sync::OwnedMutexGuard;

use crate::sqlite::connection::database::{SqliteDatabase, Writer};

/// Rolls back at once if it is dropped in the middle of a transaction.
pub(crate) struct DirectWriter {
    /// There until it is dropped.
    writer: Option<OwnedMutexGuard<Writer>>,
    database: SqliteDatabase,
}

impl DirectWriter {
    /// The connection, if nobody uses it.
    pub(crate) fn of(database: &SqliteDatabase) -> Option<Self> {
        Some(Self { writer: Some(database.try_writer()?), database: database.clone() })
    }

    /// The connection, once the transactions of this handle before it have ended.
    pub(crate) fn around(database: &SqliteDatabase, writer: OwnedMutexGuard<Writer>) -> Self {
        Self { writer: Some(writer), database: database.clone() }
    }
}

impl Drop for DirectWriter {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take_if(|writer| writer.is_unclean()) {
            self.database.roll_back_soon(writer);
        }
    }
}

impl Deref for DirectWriter {
    type Target = Writer;

    fn deref(&self) -> &Writer {
        self.writer.as_ref().expect("it is there until it is dropped")
    }
}

impl DerefMut for DirectWriter {
    fn deref_mut(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("it is there until it is dropped")
    }
}
