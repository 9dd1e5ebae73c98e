//! The streams of a store one by one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use futures::{FutureExt, Stream};

use crate::error::ReadError;
use crate::filter::StreamFilter;
use crate::read::ahead::{Ahead, FIRST_PAGE, grown};
use crate::store::{EventStore, StreamInfo};
use crate::stream::StreamId;

/// The streams that match a filter, ordered by tenant, aggregate type and id bytewise. Created by
/// [`EventStoreExt::streams`](crate::EventStoreExt::streams).
///
/// Streams that begin during the listing are included if they sort after the current one. Ends after the last stream or
/// the first error. Memory, runtime and cancel safety are those of [`EventStream`](crate::EventStream).
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::{AggregateStore, EventStoreExt, MemoryStore, StreamFilter};
/// use futures::TryStreamExt;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let store = MemoryStore::new();
/// let orders = store.aggregate::<Order>();
/// for id in ["o-18", "o-17"] {
///     orders.execute(&OrderId::new(id)?, |order| order.place(12_00)).await?;
/// }
///
/// let mut streams = store.streams(StreamFilter::all().aggregate_type("order")?);
/// let first = streams.try_next().await?.expect("there are two");
/// assert_eq!((first.stream.aggregate_id(), first.version.get()), ("o-17", 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is read before the stream is polled"]
pub struct Streams {
    store: Arc<dyn EventStore>,
    filter: StreamFilter,
    after: Option<StreamId>,
    limit: usize,
    ahead: Ahead<Vec<StreamInfo>>,
    page: std::vec::IntoIter<StreamInfo>,
    finished: bool,
}

impl Streams {
    pub(super) fn new(store: Arc<dyn EventStore>, filter: StreamFilter) -> Self {
        Self {
            store,
            filter,
            after: None,
            limit: FIRST_PAGE,
            ahead: Ahead::idle(),
            page: Vec::new().into_iter(),
            finished: false,
        }
    }

    fn poll_page(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
        let (store, filter, after, limit) = (&self.store, &self.filter, &self.after, self.limit);
        let page = ready!(self.ahead.poll(cx, || read(store.clone(), filter.clone(), after.clone(), limit)))?;
        match page.last() {
            // A page may be short before the end; only an empty one means that nothing follows.
            None => self.finished = true,
            Some(last) => {
                self.after = Some(last.stream.clone());
                if page.len() == limit {
                    self.limit = grown(limit);
                    self.ahead.begin(read(self.store.clone(), self.filter.clone(), self.after.clone(), self.limit));
                }
            }
        }
        self.page = page.into_iter();
        Poll::Ready(Ok(()))
    }
}

impl Stream for Streams {
    type Item = Result<StreamInfo, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(info) = self.page.next() {
                return Poll::Ready(Some(Ok(info)));
            }
            if self.finished {
                return Poll::Ready(None);
            }
            if let Err(error) = ready!(self.poll_page(cx)) {
                self.finished = true;
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("filter", &self.filter).field("after", &self.after).finish_non_exhaustive()
    }
}

fn read(
    store: Arc<dyn EventStore>,
    filter: StreamFilter,
    after: Option<StreamId>,
    limit: usize,
) -> BoxFuture<'static, Result<Vec<StreamInfo>, ReadError>> {
    async move { store.streams_page(&filter, after.as_ref(), limit).await }.boxed()
}
