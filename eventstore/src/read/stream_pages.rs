//! One stream page by page, to its end.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::error::ReadError;
use crate::read::ahead::{Ahead, FIRST_STREAM_PAGE, grown};
use crate::store::{EventStore, StreamPage};
use crate::stream::{StreamId, StreamVersion};

pub(super) struct StreamPages {
    store: Arc<dyn EventStore>,
    stream: StreamId,
    after: StreamVersion,
    limit: usize,
    ahead: Ahead<StreamPage>,
}

impl StreamPages {
    pub(super) fn new(store: Arc<dyn EventStore>, stream: StreamId, after: StreamVersion) -> Self {
        Self { store, stream, after, limit: FIRST_STREAM_PAGE, ahead: Ahead::idle() }
    }

    /// The next page; not to be asked for after one with `end`.
    pub(super) fn poll_page(&mut self, cx: &mut Context<'_>) -> Poll<Result<StreamPage, ReadError>> {
        let (store, stream) = (&self.store, &self.stream);
        let (after, limit) = (self.after, self.limit);
        let page = ready!(self.ahead.poll(cx, || read(store.clone(), stream.clone(), after, limit)))?;
        if let Some(last) = page.events.last() {
            self.after = last.version;
        }
        self.limit = grown(self.limit);
        if !page.end {
            self.ahead.begin(read(self.store.clone(), self.stream.clone(), self.after, self.limit));
        }
        Poll::Ready(Ok(page))
    }
}

fn read(
    store: Arc<dyn EventStore>,
    stream: StreamId,
    after: StreamVersion,
    limit: usize,
) -> BoxFuture<'static, Result<StreamPage, ReadError>> {
    async move { store.load_page(&stream, after, limit).await }.boxed()
}
