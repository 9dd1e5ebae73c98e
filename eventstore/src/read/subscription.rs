//! Events one by one, into the future.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;

use crate::error::ReadError;
use crate::event::RecordedEvent;
use crate::read::pages::Pages;

/// The events of the log after a position, one by one: first those that are there, then each as it comes.
/// Created by [`EventStoreExt::subscribe`](crate::EventStoreExt::subscribe), which has an example.
///
/// Every event that matches the filter is returned once, in the order of positions, also at the change from old events to
/// new ones. Transient errors are retried and logged; any other error is the last item. It ends in no other way.
///
/// Memory, runtime and cancel safety are those of [`Pages`]: dropping the future of one item loses none. A reader that
/// keeps a checkpoint under a filter reads [`Pages`] instead, which report how far the log has been read.
#[must_use = "nothing is read before the stream is polled"]
pub struct Subscription {
    pages: Pages,
    page: std::vec::IntoIter<RecordedEvent>,
    failed: bool,
}

impl Subscription {
    pub(super) fn new(pages: Pages) -> Self {
        Self { pages, page: Vec::new().into_iter(), failed: false }
    }
}

impl Stream for Subscription {
    type Item = Result<RecordedEvent, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.page.next() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.failed {
                return Poll::Ready(None);
            }
            match ready!(self.pages.poll_page(cx)) {
                Ok(page) => self.page = page.events.into_iter(),
                Err(error) => {
                    self.failed = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("pages", &self.pages).finish_non_exhaustive()
    }
}
