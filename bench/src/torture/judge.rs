//! Compares what was acknowledged and what was delivered with what is in the log. Pure: facts in, counts out.
//!
//! Memory: four bytes for each position of the log and a bit for each position and reader.

use std::collections::HashMap;

use serde::Serialize;

use crate::torture::fact::{Fact, UNIT_STREAMS, Wanted};

/// What the log itself shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct LogVerdict {
    /// Events in the log.
    pub(crate) appended: u64,
    /// Numbers up to the last one that no event has: drawn by those who rolled back, or skipped by a crash.
    pub(crate) dead_numbers: u64,
    /// Events whose version is not after that of the event before it in its stream.
    pub(crate) inverted: u64,
    /// Versions that streams have left out.
    pub(crate) holes: u64,
}

/// What one reader was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Delivery {
    pub(crate) delivered: u64,
    /// Events of the log that it wants and was never given.
    pub(crate) missed: u64,
    /// Events that it was given again.
    pub(crate) duplicated: u64,
    /// Events that it was given after one with a higher position.
    pub(crate) inverted: u64,
    /// Events that it was given after a later one of the same stream.
    pub(crate) inverted_in_stream: u64,
    /// Events that it was given and that are not in the log, or are another event there, or are not what it wants.
    pub(crate) untrue: u64,
}

impl Delivery {
    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            delivered: self.delivered + other.delivered,
            missed: self.missed + other.missed,
            duplicated: self.duplicated + other.duplicated,
            inverted: self.inverted + other.inverted,
            inverted_in_stream: self.inverted_in_stream + other.inverted_in_stream,
            untrue: self.untrue + other.untrue,
        }
    }
}

/// Knows the log, and judges by it.
#[derive(Default)]
pub(crate) struct Judge {
    /// What stands at each position; 0 for nothing.
    contents: Vec<u32>,
    wanted: HashMap<Wanted, Bits>,
    streams: HashMap<u32, StreamEnd>,
    /// Tails of the ids of events that came by units of work.
    of_units: Vec<u32>,
    verdict: LogVerdict,
}

#[derive(Clone, Copy, Default)]
struct StreamEnd {
    highest: u32,
    count: u32,
    last: u32,
}

impl Judge {
    /// Learns the next event of the log, in the order of positions.
    pub(crate) fn learn(&mut self, fact: &Fact) {
        self.verdict.appended += 1;
        let place = place(fact.position);
        self.contents.resize(self.contents.len().max(place + 1), 0);
        self.contents[place] = content(fact);
        for wanted in Wanted::EACH {
            if wanted.wants(fact) {
                self.wanted.entry(wanted).or_default().set(place);
            }
        }
        if UNIT_STREAMS.contains(&fact.stream) {
            self.of_units.push(fact.tail);
        }
        let end = self.streams.entry(fact.stream).or_default();
        if fact.version <= end.last {
            self.verdict.inverted += 1;
        }
        *end = StreamEnd { highest: end.highest.max(fact.version), count: end.count + 1, last: fact.version };
    }

    /// What the log itself shows.
    pub(crate) fn log(&self) -> LogVerdict {
        let holes = self.streams.values().map(|end| u64::from(end.highest.saturating_sub(end.count))).sum();
        let last = self.contents.len().saturating_sub(1) as u64;
        LogVerdict { holes, dead_numbers: last.saturating_sub(self.verdict.appended), ..self.verdict }
    }

    /// How many of the events that were acknowledged are not in the log where they were said to be.
    pub(crate) fn lost<E>(&self, acknowledged: impl IntoIterator<Item = Result<Fact, E>>) -> Result<u64, E> {
        let mut lost = 0;
        for fact in acknowledged {
            lost += u64::from(!self.holds(&fact?));
        }
        Ok(lost)
    }

    /// How many events of units of work have no row, and how many such rows have no event. Rows and events are compared
    /// by the ends of their ids.
    pub(crate) fn torn(&self, mut rows: Vec<u32>) -> u64 {
        let mut events = self.of_units.clone();
        events.sort_unstable();
        rows.sort_unstable();
        let (mut event, mut row, mut both) = (0, 0, 0);
        while let (Some(of_event), Some(of_row)) = (events.get(event), rows.get(row)) {
            both += u64::from(of_event == of_row);
            event += usize::from(of_event <= of_row);
            row += usize::from(of_row <= of_event);
        }
        (events.len() + rows.len()) as u64 - 2 * both
    }

    /// What a reader was given, in this order.
    pub(crate) fn delivery<E>(
        &self,
        wanted: Wanted,
        delivered: impl IntoIterator<Item = Result<Fact, E>>,
    ) -> Result<Delivery, E> {
        let mut given = Bits::default();
        let mut streams: HashMap<u32, u32> = HashMap::new();
        let mut highest = 0;
        let mut found = Delivery::default();
        for fact in delivered {
            let fact = fact?;
            found.delivered += 1;
            if !self.holds(&fact) || !wanted.wants(&fact) {
                found.untrue += 1;
                continue;
            }
            if given.set(place(fact.position)) {
                found.duplicated += 1;
                continue;
            }
            found.inverted += u64::from(fact.position < highest);
            highest = highest.max(fact.position);
            let last = streams.entry(fact.stream).or_default();
            found.inverted_in_stream += u64::from(fact.version <= *last);
            *last = fact.version;
        }
        found.missed = self.wanted.get(&wanted).map_or(0, |wanted| wanted.count_without(&given));
        Ok(found)
    }

    /// Whether an event has this number.
    pub(crate) fn has(&self, position: u64) -> bool {
        self.contents.get(place(position)).is_some_and(|content| *content != 0)
    }

    fn holds(&self, fact: &Fact) -> bool {
        self.contents.get(place(fact.position)) == Some(&content(fact))
    }
}

fn place(position: u64) -> usize {
    usize::try_from(position).expect("a log whose positions fill the memory cannot be judged")
}

/// A digest of the event without its position; never 0.
fn content(fact: &Fact) -> u32 {
    let mixed = fact.tail ^ fact.stream.wrapping_mul(0x9e37_79b1) ^ fact.version.wrapping_mul(0x85eb_ca77);
    mixed.max(1)
}

/// A set of places.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// Puts a place into the set; tells whether it was in it.
    fn set(&mut self, place: usize) -> bool {
        let (word, bit) = (place / 64, 1 << (place % 64));
        self.0.resize(self.0.len().max(word + 1), 0);
        let was = self.0[word] & bit != 0;
        self.0[word] |= bit;
        was
    }

    /// How many places are in this set and not in the other.
    fn count_without(&self, other: &Self) -> u64 {
        let others = other.0.iter().chain(std::iter::repeat(&0));
        self.0.iter().zip(others).map(|(mine, theirs)| u64::from((mine & !theirs).count_ones())).sum()
    }
}

#[cfg(test)]
mod tests;
