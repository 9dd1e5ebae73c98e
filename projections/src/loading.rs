//! Loading the rows of a batch, of which only so many are in memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::column::{ColumnValue, bytes_of};
use crate::database::{Fault, ReadModels};
use crate::fold::Loaded;
use crate::member::Member;

/// How many rows are looked up at once before their size is known.
const FIRST_ROWS: usize = 64;

/// About how many bytes there were lately for each row of a projection that was looked up, or for each event that wrote rows; 0 if
/// that is not known.
#[derive(Debug, Default)]
pub(crate) struct RowSize(AtomicUsize);

impl RowSize {
    /// How many of `rows` rows have no more than `bytes` bytes by what is known of them; 1 at least.
    pub(crate) fn rows_within(&self, bytes: usize, rows: usize) -> usize {
        let most = match self.0.load(Ordering::Relaxed) {
            0 => FIRST_ROWS,
            per_row => bytes / per_row,
        };
        rows.min(most.max(1))
    }

    /// So many rows that were looked up had so many bytes together.
    pub(crate) fn note(&self, rows: usize, bytes: usize) {
        self.0.store((bytes / rows.max(1)).max(1), Ordering::Relaxed);
    }
}

/// Loads rows as they are where the projection's checkpoint was last seen: of as many of the keys as `room` bytes hold, 1 at least.
/// `None` if the checkpoint is elsewhere by now.
pub(crate) async fn load(
    database: &dyn ReadModels,
    member: &Member,
    keys: &[Vec<ColumnValue>],
    room: usize,
) -> Result<Option<Loaded>, Fault> {
    let (mut loaded, mut bytes) = (Loaded::default(), 0);
    while loaded.keys < keys.len() && bytes < room {
        let left = &keys[loaded.keys..];
        let next = &left[..member.row_size().rows_within(room - bytes, left.len())];
        // Rows that are much larger than those before are given up, and fewer are asked for.
        let most = if next.len() == 1 { usize::MAX } else { room.saturating_mul(2) };
        let Some(rows) = database.load(&member.model, &member.saved(), next, most).await? else { return Ok(None) };
        let size = bytes_of(&rows);
        if size >= most {
            member.row_size().note(rows.len(), size);
            continue;
        }
        member.row_size().note(next.len(), size);
        bytes += size;
        loaded.keys += next.len();
        loaded.rows.extend(rows);
    }
    Ok(Some(loaded))
}
