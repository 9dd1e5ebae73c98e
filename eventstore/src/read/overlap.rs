//! Pages of one stream, each of which is known to continue the one before: pure.

use crate::event::EventId;
use crate::store::StreamPage;
use crate::stream::StreamVersion;

/// Reads a stream by pages that begin with the event before them. After a failover or a restore the stream may have another
/// history: its next page would follow events that are not there any more.
pub(crate) struct OverlappingPages {
    /// Up to which event the stream was read; its id is `None` if that is not known.
    version: StreamVersion,
    last_event: Option<EventId>,
    next: Next,
}

/// What the next page is.
enum Next {
    /// The last event and what follows it.
    Overlap,
    /// What follows the last event, which filled a page alone.
    Behind,
    /// The last event again, and the events after it.
    Again(StreamPage),
}

/// What a page is.
pub(crate) enum Overlap {
    /// The next events of the stream.
    Next(StreamPage),
    /// Another page must be read first.
    More,
    /// The stream does not have the last event any more.
    OtherHistory,
}

impl OverlappingPages {
    /// What follows an event, whose id is compared if it is given.
    pub(crate) fn behind(version: StreamVersion, last_event: Option<EventId>) -> Self {
        Self { version, last_event, next: Next::Overlap }
    }

    /// After which version to read.
    pub(crate) fn after(&self) -> StreamVersion {
        match (&self.next, self.last_event) {
            (Next::Behind, _) | (_, None) => self.version,
            (Next::Overlap | Next::Again(_), Some(_)) => StreamVersion::stored((self.version.get() - 1).max(0)),
        }
    }

    /// The limit to use, including the overlap.
    pub(crate) fn limit(&self, limit: usize) -> usize {
        match (&self.next, self.last_event) {
            (Next::Again(_), _) => 1,
            (Next::Overlap, Some(_)) => limit.max(2),
            (Next::Behind, _) | (_, None) => limit,
        }
    }

    /// Takes the page that was read.
    pub(crate) fn take(&mut self, mut page: StreamPage) -> Overlap {
        let Some(last_event) = self.last_event else { return self.give(page) };
        let next = std::mem::replace(&mut self.next, Next::Overlap);
        if matches!(next, Next::Behind) && !page.events.is_empty() {
            self.next = Next::Again(page);
            return Overlap::More;
        }
        if matches!(next, Next::Behind) {
            return self.give(page);
        }
        if page.events.first().is_none_or(|first| first.event_id != last_event || first.version != self.version) {
            return Overlap::OtherHistory;
        }
        if let Next::Again(behind) = next {
            return self.give(behind);
        }
        page.events.remove(0);
        if page.events.is_empty() && !page.end {
            self.next = Next::Behind;
            return Overlap::More;
        }
        self.give(page)
    }

    fn give(&mut self, page: StreamPage) -> Overlap {
        if let Some(last) = page.events.last() {
            (self.version, self.last_event) = (last.version, Some(last.event_id));
        }
        Overlap::Next(page)
    }
}
