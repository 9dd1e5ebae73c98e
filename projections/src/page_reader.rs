//! Reading the log for a pass, one page ahead of the folds.

use std::sync::Arc;

use annals_eventstore::{After, Checkpoint, EventStore, Filter, Position, ReadError, RecordedEvent};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::batch::{Batch, Decoder};

/// The most events of a batch. Rows that many events of a batch hit are written once, so that larger batches make a
/// catch-up faster; this one leaves memory and the time of a commit small.
const MOST_EVENTS: usize = 10_000;

/// About how many bytes of payload a batch should have. Two or three are in memory at a time: one being folded, one read.
const BATCH_BYTES: usize = 4 << 20;

/// The most pages of a batch. A store may give short pages where a filter wants little; they are put together, but not for
/// ever, so that progress is seen and can be stored.
const MOST_PAGES: usize = 16;

/// A page of the log, or several in a row, decoded for every projection of the pass.
pub(crate) struct DecodedPage {
    pub(crate) batch: Batch,
    /// How many bytes of payload it has.
    pub(crate) bytes: usize,
    /// The last event of the log that it accounts for; `None` if there was nothing to look at.
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) end: bool,
}

/// What the projections of a pass want from the log.
#[derive(Clone, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) filter: Filter,
    pub(crate) decoders: Vec<Decoder>,
}

/// Reads pages, the next one while the last is being folded.
pub(crate) struct PageReader {
    store: Arc<dyn EventStore>,
    /// Announces new events; marked as seen only before a read that sees them begins.
    head: watch::Receiver<Position>,
    limit: usize,
    /// The most events of a batch.
    most: usize,
    ahead: Option<Ahead>,
}

struct Ahead {
    after: After,
    /// What it was read for. A page read for others may lack events, so it is thrown away when that has changed.
    wanted: Wanted,
    task: JoinHandle<Result<(DecodedPage, usize), ReadError>>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PageReader {
    pub(crate) fn of(store: Arc<dyn EventStore>) -> Self {
        Self::with_batches_of(store, MOST_EVENTS)
    }

    /// One whose batches have at most `most` events.
    pub(crate) fn with_batches_of(store: Arc<dyn EventStore>, most: usize) -> Self {
        let head = store.watch();
        Self { store, head, limit: most, most, ahead: None }
    }

    /// Begins to read the page after `after`, unless that is under way.
    pub(crate) fn read_ahead(&mut self, after: After, wanted: &Wanted) {
        if self.ahead.as_ref().is_some_and(|ahead| ahead.after == after && ahead.wanted == *wanted) {
            return;
        }
        self.head.mark_unchanged();
        let task = tokio::spawn(read(Arc::clone(&self.store), wanted.clone(), after, self.limit));
        self.ahead = Some(Ahead { after, wanted: wanted.clone(), task });
    }

    /// Waits until events are announced that the last read may not have seen.
    pub(crate) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.head.changed().await
    }

    /// The page after `after`.
    ///
    /// Dropping the future keeps what is being read for the next call.
    pub(crate) async fn next(&mut self, after: After, wanted: &Wanted) -> Result<DecodedPage, ReadError> {
        self.read_ahead(after, wanted);
        let ahead = self.ahead.as_mut().expect("it was begun just above");
        let read = (&mut ahead.task).await;
        self.ahead = None;
        match read {
            Ok(Ok((page, limit))) => {
                self.limit = limit.min(self.most);
                Ok(page)
            }
            Ok(Err(error)) => Err(error),
            // The user's code is guarded where it is called, so this is a store's or our own fault.
            Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
            Err(_) => Err(ReadError::Closed),
        }
    }
}

/// Reads and decodes pages after `after` until there is a batch of them; also tells how many events the next should have.
async fn read(
    store: Arc<dyn EventStore>,
    wanted: Wanted,
    after: After,
    limit: usize,
) -> Result<(DecodedPage, usize), ReadError> {
    let mut page = store.read_page(after, &wanted.filter, limit).await?;
    let mut bytes = payload_bytes(&page.events);
    for _ in 1..MOST_PAGES {
        let Some(checkpoint) = page.checkpoint.filter(|_| !page.end) else { break };
        let room = limit.saturating_sub(page.events.len());
        if room == 0 || bytes >= BATCH_BYTES {
            break;
        }
        // What was read is given first. The next read begins behind it, and tells the error.
        let Ok(next) = store.read_page(checkpoint.into(), &wanted.filter, room).await else { break };
        bytes += payload_bytes(&next.events);
        page.events.extend(next.events);
        page.checkpoint = next.checkpoint.or(page.checkpoint);
        page.end = next.end;
    }
    let next_limit = match bytes.checked_div(page.events.len()) {
        None | Some(0) => MOST_EVENTS,
        Some(average) => (BATCH_BYTES / average).clamp(1, MOST_EVENTS),
    };
    let batch = Batch::decode(&page.events, &wanted.decoders);
    Ok((DecodedPage { batch, bytes, checkpoint: page.checkpoint, end: page.end }, next_limit))
}

fn payload_bytes(events: &[RecordedEvent]) -> usize {
    events.iter().map(|event| event.payload.as_str().len()).sum()
}
