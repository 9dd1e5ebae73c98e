//! One stream page by page, to its end.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::error::ReadError;
use crate::position::Position;
use crate::read::ahead::{Ahead, FIRST_STREAM_PAGE, grown};
use crate::read::overlap::{Overlap, OverlappingPages};
use crate::read::room::Room;
use crate::store::{EventStore, StreamPage};
use crate::stream::{StreamId, StreamVersion};

pub(super) struct StreamPages {
    store: Arc<dyn EventStore>,
    stream: StreamId,
    pages: OverlappingPages,
    /// Of the last event returned.
    position: Position,
    limit: usize,
    ahead: Ahead<StreamPage>,
    room: Room,
}

impl StreamPages {
    pub(super) fn new(store: Arc<dyn EventStore>, stream: StreamId, after: StreamVersion) -> Self {
        let pages = OverlappingPages::behind(after, None);
        let room = Room::enter(&store.limits().read_ahead);
        Self { store, stream, pages, position: Position::START, limit: FIRST_STREAM_PAGE, ahead: Ahead::idle(), room }
    }

    /// The next page; must not be called after one with `end`.
    pub(super) fn poll_page(&mut self, cx: &mut Context<'_>) -> Poll<Result<StreamPage, ReadError>> {
        let page = loop {
            let (store, stream) = (&self.store, &self.stream);
            let (after, limit) = (self.pages.after(), self.pages.limit(self.limit));
            let page = ready!(self.ahead.poll(cx, || read(store.clone(), stream.clone(), after, limit)))?;
            match self.pages.take(page) {
                Overlap::Next(page) => break page,
                Overlap::More => {}
                Overlap::OtherHistory => {
                    let (position, incarnation) = (self.position, self.store.incarnation());
                    return Poll::Ready(Err(ReadError::StoreRewound { position, incarnation }));
                }
            }
        };
        if let Some(last) = page.events.last() {
            self.position = last.position;
        }
        self.room.has_read(&page.events);
        self.limit = self.room.limit(grown(self.limit));
        if !page.end {
            let (after, limit) = (self.pages.after(), self.pages.limit(self.limit));
            self.ahead.begin(read(self.store.clone(), self.stream.clone(), after, limit));
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
