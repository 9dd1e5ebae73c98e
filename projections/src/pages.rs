//! Reading the log for a pass, one page ahead of the folds.

use std::sync::Arc;

use annals_eventstore::{Checkpoint, EventStore, Filter, Position, ReadError};
use tokio::task::JoinHandle;

use crate::batch::{Batch, Decoder, next_limit};

/// The most events of a page. A batch is a page: rows that many events hit are then written once.
const MOST_EVENTS: usize = 10_000;

/// About how many bytes of payload a page should have. Three pages are in memory at a time: one being folded, one decoded,
/// one read.
const PAGE_BYTES: usize = 4 << 20;

/// A page that is decoded for every projection of the pass.
pub(crate) struct DecodedPage {
    pub(crate) batch: Batch,
    /// The last event of the log that it accounts for; `None` if there was nothing to look at.
    pub(crate) upto: Option<Checkpoint>,
    pub(crate) end: bool,
}

/// What the projections of a pass want from the log.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) filter: Filter,
    pub(crate) decoders: Vec<Decoder>,
}

/// Reads pages, the next one while the last is being folded.
pub(crate) struct Pages {
    store: Arc<dyn EventStore>,
    limit: usize,
    ahead: Option<Ahead>,
}

struct Ahead {
    after: Position,
    task: JoinHandle<Result<(DecodedPage, usize), ReadError>>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pages {
    pub(crate) fn of(store: Arc<dyn EventStore>) -> Self {
        Self { store, limit: MOST_EVENTS, ahead: None }
    }

    /// Begins to read the page after `after`, unless that is under way.
    pub(crate) fn read_ahead(&mut self, after: Position, wanted: &Wanted) {
        if self.ahead.as_ref().is_some_and(|ahead| ahead.after == after) {
            return;
        }
        let (store, wanted, limit) = (Arc::clone(&self.store), wanted.clone(), self.limit);
        let task = tokio::spawn(async move {
            let page = store.read_page(after, &wanted.filter, limit).await?;
            let limit = next_limit(&page, MOST_EVENTS, PAGE_BYTES);
            let batch = Batch::decode(&page.events, &wanted.decoders);
            Ok((DecodedPage { batch, upto: page.upto, end: page.end }, limit))
        });
        self.ahead = Some(Ahead { after, task });
    }

    /// The page after `after`.
    ///
    /// Dropping the future keeps what is being read for the next call.
    pub(crate) async fn next(&mut self, after: Position, wanted: &Wanted) -> Result<DecodedPage, ReadError> {
        self.read_ahead(after, wanted);
        let ahead = self.ahead.as_mut().expect("it was begun just above");
        let read = (&mut ahead.task).await;
        self.ahead = None;
        match read {
            Ok(Ok((page, limit))) => {
                self.limit = limit;
                Ok(page)
            }
            Ok(Err(error)) => Err(error),
            // The user's code is guarded where it is called, so this is a store's or our own fault.
            Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
            Err(_) => Err(ReadError::Closed),
        }
    }

    /// Throws away what was read ahead: other events are wanted now, or the log must be looked at anew.
    pub(crate) fn forget(&mut self) {
        self.ahead = None;
    }
}
