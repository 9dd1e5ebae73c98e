//! Events one by one, until there are no more.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;

use crate::error::ReadError;
use crate::event::RecordedEvent;
use crate::read::pages::Pages;
use crate::read::stream_pages::StreamPages;

/// The events of a stream, or of the log up to its head, one by one. Created by `load`, `load_after` and
/// `read_all` of [`EventStoreExt`](crate::EventStoreExt), which has an example.
///
/// Ends after the last event that existed when the end was reached, or after the first error, also a transient one:
/// to continue, read again after the last event returned. Bounded memory: at most two pages of up to 4,096 events and
/// about 16 MiB. Holds nothing in the store while it waits for its consumer. Must be polled within a tokio runtime.
///
/// # Cancel safety
/// Dropping it ends its reads; dropping the future of one item loses none.
#[must_use = "nothing is read before the stream is polled"]
pub struct EventStream {
    source: Source,
    page: std::vec::IntoIter<RecordedEvent>,
    finished: bool,
}

enum Source {
    Log(Pages),
    Stream(StreamPages),
}

impl EventStream {
    pub(super) fn of_log(pages: Pages) -> Self {
        Self { source: Source::Log(pages.without_retries()), page: Vec::new().into_iter(), finished: false }
    }

    pub(super) fn of_stream(pages: StreamPages) -> Self {
        Self { source: Source::Stream(pages), page: Vec::new().into_iter(), finished: false }
    }
}

impl Source {
    fn poll_page(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Vec<RecordedEvent>, bool), ReadError>> {
        match self {
            Self::Log(pages) => pages.poll_page(cx).map_ok(|page| (page.events, page.end)),
            Self::Stream(pages) => pages.poll_page(cx).map_ok(|page| (page.events, page.end)),
        }
    }
}

impl Stream for EventStream {
    type Item = Result<RecordedEvent, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.page.next() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.finished {
                return Poll::Ready(None);
            }
            match ready!(self.source.poll_page(cx)) {
                Ok((events, end)) => {
                    self.page = events.into_iter();
                    self.finished = end;
                }
                Err(error) => {
                    self.finished = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").field("finished", &self.finished).finish_non_exhaustive()
    }
}
