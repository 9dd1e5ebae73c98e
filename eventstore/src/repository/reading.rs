//! Reading a stream on from a state that is known.

use std::sync::Arc;

use super::cache::Known;
use super::scope::CommandScope;
use crate::aggregate::Evolve;
use crate::error::ReadError;
use crate::event::RecordedEvent;
use crate::limits::MAX_PAGE_EVENTS;
use crate::read::{Overlap, OverlappingPages};
use crate::store::StreamPage;
use crate::stream::{StreamId, StreamVersion};

/// Reads the events of a stream after the known state, page by page. Each page must begin with the last event that was folded:
/// after a failover or a restore the stream may have other events, and then it is read from its beginning.
pub(crate) struct Reading<A> {
    pub(crate) known: Known<A>,
    pages: OverlappingPages,
    /// Whether the known state was of another history, so that the stream is read from its beginning.
    pub(super) is_anew: bool,
}

impl<A: Evolve> Reading<A> {
    pub(crate) fn on(known: Known<A>) -> Self {
        let pages = OverlappingPages::behind(known.version, known.last_event);
        Self { known, pages, is_anew: false }
    }

    /// After which version, and how many events at most, to read next.
    pub(crate) fn next_page(&self) -> (StreamVersion, usize) {
        (self.pages.after(), self.pages.limit(MAX_PAGE_EVENTS))
    }

    /// Takes the next page; returns whether the stream was read to its end.
    pub(crate) fn take(&mut self, stream: &StreamId, page: StreamPage) -> Result<bool, ReadError> {
        self.take_each(stream, page, |_, _| Ok(()))
    }

    /// The same; gives each event and the state after it to `each`.
    pub(super) fn take_each(
        &mut self,
        stream: &StreamId,
        page: StreamPage,
        mut each: impl FnMut(&RecordedEvent, &Arc<A>) -> Result<(), ReadError>,
    ) -> Result<bool, ReadError> {
        match self.pages.take(page) {
            Overlap::Next(page) => {
                for event in &page.events {
                    self.known.take_in(stream, std::slice::from_ref(event))?;
                    each(event, &self.known.state)?;
                }
                Ok(page.end || page.events.is_empty())
            }
            Overlap::More => Ok(false),
            Overlap::OtherHistory => {
                tracing::warn!(%stream, version = %self.known.version, "the history of the stream has changed, reading it again");
                *self = Self { is_anew: true, ..Self::on(Known::start()) };
                Ok(false)
            }
        }
    }
}

/// The state after the event at `version`, read on from a state that is not later; after the last event if the stream has
/// become shorter.
pub(super) async fn read_to<A: Evolve>(
    scope: &mut impl CommandScope,
    stream: &StreamId,
    known: Known<A>,
    version: StreamVersion,
) -> Result<Known<A>, ReadError> {
    let mut reading = Reading::on(known);
    while reading.known.version < version {
        let (after, limit) = reading.next_page();
        // A page that begins with the last event has room for another, as that one is before `version`.
        let left = usize::try_from(version.get() - after.get()).unwrap_or(MAX_PAGE_EVENTS);
        let page = scope.load_page(stream, after, limit.min(left)).await?;
        if reading.take(stream, page)? {
            break;
        }
    }
    Ok(reading.known)
}
