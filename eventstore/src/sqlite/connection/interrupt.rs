//! Ending a statement whose caller has dropped its future: SQLite would run it to its end, for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::SqliteConnection;

/// How many instructions of SQLite lie between two looks at the flag: about 0.1 ms, and too few looks to be measured.
const INSTRUCTIONS: i32 = 2_000;

/// The flag of one connection that ends what runs on it.
#[derive(Clone, Default)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// That of a new connection.
    pub(super) async fn of(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let interrupt = Self::default();
        interrupt.lower(connection).await?;
        Ok(interrupt)
    }

    /// Ends the statement that runs, if one does, and any later one until the flag is lowered.
    pub(super) fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Waits for the end of what runs on the connection; then statements may run again. The handler is set again too, as the
    /// user of the connection may have set another.
    pub(super) async fn lower(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let mut handle = connection.lock_handle().await?;
        self.0.store(false, Ordering::Release);
        let raised = Arc::clone(&self.0);
        handle.set_progress_handler(INSTRUCTIONS, move || !raised.load(Ordering::Acquire));
        Ok(())
    }
}
