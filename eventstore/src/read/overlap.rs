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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::event::{NewEvent, RecordedEvent};
    use crate::payload::Payload;
    use crate::position::Position;
    use crate::stream::{StreamId, Tenant};

    fn id(id: u128) -> EventId {
        EventId::new(Uuid::from_u128(id)).expect("not nil")
    }

    /// A page of events of these versions and ids.
    fn page(events: &[(i64, u128)], end: bool) -> StreamPage {
        let stream = StreamId::new(Tenant::default(), "order", "o-17").expect("a stream");
        let event = |&(version, event_id): &(i64, u128)| {
            let new =
                NewEvent::raw(id(event_id), "placed", 1, Payload::from_json("{}").expect("JSON")).expect("an event");
            let (version, position) = (StreamVersion::stored(version), Position::stored(version));
            RecordedEvent::new(new, stream.clone(), version, position, None, Timestamp::UNIX_EPOCH)
        };
        StreamPage::new(events.iter().map(event).collect(), end)
    }

    fn after(pages: &OverlappingPages) -> (i64, usize) {
        (pages.after().get(), pages.limit(100))
    }

    /// An event that fills a page alone hides what follows it, so it is read once more after that.
    #[test]
    fn what_follows_an_event_that_fills_a_page_is_given_once_that_event_was_seen_again() {
        for (again, other) in [(2, false), (7, true)] {
            let mut pages = OverlappingPages::behind(StreamVersion::stored(2), Some(id(2)));
            assert_eq!(after(&pages), (1, 100));
            assert!(matches!(pages.take(page(&[(2, 2)], false)), Overlap::More));
            assert_eq!(after(&pages), (2, 100));
            assert!(matches!(pages.take(page(&[(3, 3)], true)), Overlap::More));
            assert_eq!(after(&pages), (1, 1));
            match pages.take(page(&[(2, again)], false)) {
                Overlap::Next(page) => assert!(!other && page.end && page.events[0].event_id == id(3)),
                Overlap::OtherHistory => assert!(other),
                Overlap::More => panic!("there is no more"),
            }
        }
    }

    #[test]
    fn an_event_that_has_another_version_by_now_is_of_another_history() {
        let mut pages = OverlappingPages::behind(StreamVersion::stored(2), Some(id(2)));
        assert!(matches!(pages.take(page(&[(3, 2), (4, 4)], true)), Overlap::OtherHistory));
    }
}
