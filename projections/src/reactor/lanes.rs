//! The queue of each stream: its events in order, one at a time. Pure; time is passed in.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use annals_eventstore::{StreamId, StreamVersion};
use tokio::time::Instant;

use super::keeper::Failing;
use super::reactions::Reactions;
use crate::error::EventPlace;

/// An event that waits for its turn.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) page: Arc<dyn Reactions>,
    pub(crate) at: usize,
    /// Its number in the window; `None` for an event of a parked stream that is tried again.
    pub(crate) number: Option<u64>,
}

impl Item {
    pub(crate) fn place(&self) -> &EventPlace {
        self.page.place(self.at)
    }
}

/// An event whose turn it is, and what is known of its earlier tries.
pub(crate) struct Turn {
    pub(crate) item: Item,
    pub(crate) failing: Option<Failing>,
    /// The part to begin with; those before it are handled.
    pub(crate) part: usize,
    /// Whether its stream is parked, and tried again.
    pub(crate) parked: bool,
}

#[derive(Default)]
pub(crate) struct Lanes {
    lanes: HashMap<StreamId, Lane>,
    /// Streams whose first event may be begun, by when that came.
    ready: BTreeMap<u64, StreamId>,
    /// Streams whose first event is tried again at a time.
    waiting: BTreeMap<(Instant, u64), StreamId>,
    /// Parked streams that are tried again, and whose next events must be read.
    reading: BTreeSet<StreamId>,
    parked: usize,
    /// The number of the last event that was taken in.
    last: u64,
}

#[derive(Default)]
struct Lane {
    queue: VecDeque<(u64, Item)>,
    state: State,
    failing: Option<Failing>,
    /// When the event of `failing` may be tried again.
    not_before: Option<Instant>,
    part: usize,
    /// Of a parked stream that is tried again.
    replay: Option<Replay>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Nothing is to be done for it.
    #[default]
    Idle,
    /// Its first event is among those that are ready, waiting or running, or its next events are being read.
    Busy,
    Parked,
}

/// A parked stream is read again from the event that failed.
#[derive(Clone, Copy)]
pub(crate) struct Replay {
    /// Read up to here.
    pub(crate) read: StreamVersion,
    /// The last event of the stream that came meanwhile, and was left to this.
    pub(crate) passed: StreamVersion,
}

impl Lanes {
    /// Takes in what is stored of a stream, whose event is not tried before `at`.
    pub(crate) fn restore(&mut self, failing: Failing, at: Instant) {
        let lane = self.lanes.entry(failing.place.stream.clone()).or_default();
        if failing.parked {
            lane.state = State::Parked;
            self.parked += 1;
        }
        (lane.failing, lane.not_before) = (Some(failing), Some(at));
    }

    /// Takes in an event behind those of its stream. False if the stream is parked: the event is left to a later retry.
    pub(crate) fn push(&mut self, item: Item) -> bool {
        let place = item.place();
        let (stream, version) = (place.stream.clone(), place.version);
        let lane = self.lanes.entry(stream.clone()).or_default();
        if let Some(replay) = &mut lane.replay {
            replay.passed = replay.passed.max(version);
            return false;
        }
        if lane.state == State::Parked {
            return false;
        }
        self.last += 1;
        lane.queue.push_back((self.last, item));
        if lane.state == State::Idle {
            self.give_turn(&stream);
        }
        true
    }

    /// The earliest event that may be begun. Its stream is blocked until its outcome is reported.
    pub(crate) fn next_turn(&mut self) -> Option<Turn> {
        let (_, stream) = self.ready.pop_first()?;
        let lane = self.lanes.get(&stream)?;
        let (_, item) = lane.queue.front()?;
        Some(Turn {
            item: item.clone(),
            failing: lane.failing_first().cloned(),
            part: lane.part,
            parked: lane.replay.is_some(),
        })
    }

    /// The event whose turn it was is handled.
    pub(crate) fn done(&mut self, stream: &StreamId) {
        let Some(lane) = self.lanes.get_mut(stream) else { return };
        // What is stored of a parked stream stays until all of it is handled.
        if lane.replay.is_none() && lane.failing_first().is_some() {
            lane.failing = None;
        }
        lane.queue.pop_front();
        lane.part = 0;
        self.give_turn(stream);
    }

    /// The event whose turn it was is tried again at `at`, from `part` on.
    pub(crate) fn wait(&mut self, stream: &StreamId, at: Instant, failing: Option<Failing>, part: usize) {
        let Some(lane) = self.lanes.get_mut(stream) else { return };
        let Some((number, _)) = lane.queue.front() else { return };
        lane.part = part;
        lane.failing = failing.or_else(|| lane.failing.take());
        self.waiting.insert((at, *number), stream.clone());
    }

    /// The stream is set aside from the event whose turn it was. Gives that event and those that waited behind it.
    pub(crate) fn park(&mut self, failing: Failing) -> Vec<Item> {
        let lane = self.lanes.entry(failing.place.stream.clone()).or_default();
        self.parked += usize::from(lane.replay.is_none());
        (lane.state, lane.failing, lane.replay, lane.part) = (State::Parked, Some(failing), None, 0);
        lane.queue.drain(..).map(|(_, item)| item).collect()
    }

    /// Streams whose time has come may be begun again.
    pub(crate) fn wake(&mut self, now: Instant) {
        while let Some(entry) = self.waiting.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, number), stream) = entry.remove_entry();
            self.ready.insert(number, stream);
        }
    }

    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// How many streams may be begun at once.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// How many streams wait for another try.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many streams are parked, those being tried again too.
    pub(crate) fn parked(&self) -> usize {
        self.parked
    }

    /// What is known of the parked streams, and of those that wait for another try.
    pub(crate) fn failing(&self) -> impl Iterator<Item = &Failing> {
        self.lanes.values().filter_map(|lane| lane.failing.as_ref())
    }

    /// Begins to try a parked stream again, unless that is under way. False if it is not parked.
    pub(crate) fn replay(&mut self, stream: &StreamId) -> bool {
        let Some(lane) = self.lanes.get_mut(stream) else { return false };
        let Some(failing) = lane.failing.as_mut().filter(|_| lane.state == State::Parked) else {
            return lane.replay.is_some();
        };
        (failing.tries, failing.unfinished) = (0, 0);
        let version = failing.place.version;
        let read = StreamVersion::new(version.get() - 1).unwrap_or(version);
        (lane.state, lane.replay, lane.not_before) = (State::Busy, Some(Replay { read, passed: version }), None);
        self.reading.insert(stream.clone());
        true
    }

    /// A stream whose next events are to be read.
    pub(crate) fn to_read(&self) -> Option<(StreamId, Replay)> {
        let stream = self.reading.first()?;
        Some((stream.clone(), self.lanes.get(stream)?.replay?))
    }

    /// Takes in events of a parked stream that was read up to `read`. True if there is nothing more to handle: its events are
    /// taken in as others are again, and none is begun before [`Lanes::reopened`].
    pub(crate) fn push_read(&mut self, stream: &StreamId, items: Vec<Item>, read: StreamVersion, end: bool) -> bool {
        let Some(lane) = self.lanes.get_mut(stream) else { return false };
        let Some(replay) = &mut lane.replay else { return false };
        replay.read = read;
        let is_whole = items.is_empty() && end && replay.passed <= read;
        for item in items {
            self.last += 1;
            lane.queue.push_back((self.last, item));
        }
        if is_whole {
            lane.replay = None;
            self.reading.remove(stream);
        } else if !lane.queue.is_empty() {
            self.reading.remove(stream);
            self.give_turn(stream);
        }
        is_whole
    }

    /// That the stream is not parked any more is stored.
    pub(crate) fn reopened(&mut self, stream: &StreamId) {
        self.parked -= 1;
        if let Some(lane) = self.lanes.get_mut(stream) {
            lane.failing = None;
        }
        self.give_turn(stream);
    }

    /// Lets the first event of a stream wait for its turn.
    fn give_turn(&mut self, stream: &StreamId) {
        let Some(lane) = self.lanes.get_mut(stream) else { return };
        lane.state = State::Busy;
        match lane.queue.front() {
            Some((number, _)) => {
                let number = *number;
                match lane.not_before.filter(|_| lane.failing_first().is_some()) {
                    Some(at) => {
                        lane.not_before = None;
                        self.waiting.insert((at, number), stream.clone());
                    }
                    None => drop(self.ready.insert(number, stream.clone())),
                }
            }
            None if lane.replay.is_some() => drop(self.reading.insert(stream.clone())),
            None if lane.failing.is_some() => lane.state = State::Idle,
            None => drop(self.lanes.remove(stream)),
        }
    }
}

impl Lane {
    /// What is known of the first event. What is known of another one is of no use yet.
    fn failing_first(&self) -> Option<&Failing> {
        let (_, first) = self.queue.front()?;
        self.failing.as_ref().filter(|failing| failing.place.position == first.place().position)
    }
}
