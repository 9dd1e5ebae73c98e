//! The log page by page, from a position into the future.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::backoff::Backoff;
use crate::error::ReadError;
use crate::filter::Filter;
use crate::position::{After, Position};
use crate::read::ahead::{Ahead, FIRST_PAGE, grown};
use crate::read::room::Room;
use crate::store::{EventStore, Page};

/// The log page by page: the present events, then new ones, without a gap or a duplicate.
///
/// For readers that keep a checkpoint. [`Page::checkpoint`] is the position up to which the log has been read, also when
/// the filter matches none of its events, and [`Page::end`] is set when there was nothing more. Made by
/// [`EventStoreExt::pages`](crate::EventStoreExt::pages); the streams of events are built on it.
///
/// At most two pages are in memory: the current one, and the next one, which is read ahead. A page has a limit of 64
/// events at first and of up to 4,096 later, and fewer where there are many readers: the pages of all readers of a handle have the
/// bytes of [`Limits::read_ahead`](crate::Limits::read_ahead), about, or 256 KiB each if that is more. Each read checks that the last event of the page before is still in the log,
/// so a reader never continues in a log that was rewound or replaced. Nothing is held in the store between pages. Dropping
/// the value ends its read.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::{AggregateStore, Checkpoint, EventStore, EventStoreExt, Filter, MemoryStore};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let store = MemoryStore::new();
/// let orders = store.aggregate::<Order>();
/// orders.execute(&OrderId::new("o-17")?, |order| order.place(12_00)).await?;
/// let done = orders.execute(&OrderId::new("o-17")?, |order| order.pay(12_00)).await?;
///
/// // The checkpoint that the reader has stored: here, the beginning.
/// let mut checkpoint = Checkpoint::start(store.incarnation());
///
/// let mut sum = 0;
/// let mut pages = store.pages(checkpoint, Filter::of::<OrderEvent>()?);
/// loop {
///     let page = pages.next().await?;
///     for stored in &page.events {
///         for event in stored.decode()? {
///             if let OrderEvent::Placed { total } = event {
///                 sum += total;
///             }
///         }
///     }
///     // A reader stores both in one transaction.
///     checkpoint = page.checkpoint.unwrap_or(checkpoint);
///     if page.end {
///         break; // or continue: the next page is returned when there is more
///     }
/// }
/// assert_eq!((sum, checkpoint.position), (12_00, done.position));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is read before `next`"]
pub struct Pages {
    store: Arc<dyn EventStore>,
    filter: Arc<Filter>,
    after: After,
    limit: usize,
    /// Whether the last page had `end`.
    caught_up: bool,
    /// Whether transient errors are waited out here.
    retries: bool,
    ahead: Ahead<Page>,
    room: Room,
}

impl Pages {
    pub(super) fn new(store: Arc<dyn EventStore>, after: After, filter: Filter) -> Self {
        let room = Room::enter(&store.limits().read_ahead);
        Self {
            store,
            filter: Arc::new(filter),
            after,
            limit: FIRST_PAGE,
            caught_up: false,
            retries: true,
            ahead: Ahead::idle(),
            room,
        }
    }

    /// The same pages, but a transient error is returned at once.
    pub(super) fn without_retries(mut self) -> Self {
        self.retries = false;
        self
    }

    /// The position up to which pages have been returned: where another reader would continue.
    #[must_use]
    pub fn position(&self) -> Position {
        self.after.position
    }

    /// The next page. If the page before ended at the head, waits until there is more to read.
    ///
    /// The first page is returned at once even if there is nothing: empty, and at the end. So a caller that needs only the
    /// present events stops at the first page with [`Page::end`].
    ///
    /// Must be called within a tokio runtime with timers.
    ///
    /// # Errors
    /// [`ReadError`] that is not transient: [`ReadError::StoreRewound`] if the event after which it reads is missing,
    /// [`ReadError::AheadOfLog`] if the log does not reach a position that names no event, [`ReadError::Closed`] once the
    /// store is closed. Transient ones are retried, after 50 ms at first and up to 5 s later, and logged. After an error the
    /// next call reads the same page again; no event is skipped.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the next call continues the same read.
    pub async fn next(&mut self) -> Result<Page, ReadError> {
        poll_fn(|cx| self.poll_page(cx)).await
    }

    pub(super) fn poll_page(&mut self, cx: &mut Context<'_>) -> Poll<Result<Page, ReadError>> {
        let (store, filter) = (&self.store, &self.filter);
        let (after, limit, wait, retries) = (self.after, self.limit, self.caught_up, self.retries);
        let start = || read(store.clone(), filter.clone(), after, limit, wait, retries);
        let page = ready!(self.ahead.poll(cx, start))?;
        if let Some(checkpoint) = &page.checkpoint {
            self.after = (*checkpoint).into();
        }
        self.caught_up = page.end;
        self.room.has_read(&page.events);
        self.limit = self.room.limit(grown(self.limit));
        if !page.end {
            let next = read(self.store.clone(), self.filter.clone(), self.after, self.limit, false, self.retries);
            self.ahead.begin(next);
        }
        Poll::Ready(Ok(page))
    }
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("after", &self.after).field("filter", &self.filter).finish_non_exhaustive()
    }
}

/// Reads one page; with `wait`, one that is not empty.
fn read(
    store: Arc<dyn EventStore>,
    filter: Arc<Filter>,
    after: After,
    limit: usize,
    wait: bool,
    retries: bool,
) -> BoxFuture<'static, Result<Page, ReadError>> {
    async move {
        let mut head = store.watch();
        let mut backoff = Backoff::default();
        loop {
            // Later notifications wake us below; this read sees the events of earlier ones.
            head.borrow_and_update();
            let page = match store.read_page(after, &filter, limit).await {
                Err(error) if retries && error.is_transient() => {
                    let pause = backoff.next_wait();
                    tracing::warn!(%after, error = &error as &dyn std::error::Error, ?pause, "the log cannot be read now");
                    tokio::time::sleep(pause).await;
                    continue;
                }
                answer => answer?,
            };
            if page.checkpoint.is_some() || !wait {
                return Ok(page);
            }
            backoff = Backoff::default();
            if head.changed().await.is_err() {
                // No more commits can be announced, so the reader would wait forever.
                return store.read_page(after, &filter, limit).await.and_then(|page| match page.checkpoint {
                    Some(_) => Ok(page),
                    None => Err(ReadError::Closed),
                });
            }
        }
    }
    .boxed()
}
