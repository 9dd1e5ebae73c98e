//! Compares what was acknowledged and what was delivered with the log. Pure: facts in, counts out.
//!
//! Memory: four bytes per position of the log, and one bit per position and reader.

use std::collections::HashMap;

use serde::Serialize;

use crate::fact::{Fact, UNIT_STREAMS, Wanted};

/// What the log alone shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct LogCheck {
    /// Events in the log.
    pub(crate) appended: u64,
    /// Positions up to the last one that no event has: rolled back, or skipped by a crash.
    pub(crate) gaps: u64,
    /// Events whose version is not after that of the event before it in its stream.
    pub(crate) inverted: u64,
    /// Versions that streams have skipped.
    pub(crate) skipped_versions: u64,
}

/// What was delivered to one reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Delivery {
    pub(crate) delivered: u64,
    /// Events of the log that it wants and did not get.
    pub(crate) missed: u64,
    /// Events that were delivered again.
    pub(crate) duplicated: u64,
    /// Events that were delivered after one with a higher position.
    pub(crate) inverted: u64,
    /// Events that were delivered after a later one of the same stream.
    pub(crate) inverted_in_stream: u64,
    /// Delivered events that are not in the log, or differ from the event there, or do not match the filter.
    pub(crate) untrue: u64,
}

impl Delivery {
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

/// Knows the log.
#[derive(Default)]
pub(crate) struct Checker {
    /// A digest of the event at each position; 0 for none.
    digests: Vec<u32>,
    wanted: HashMap<Wanted, Bits>,
    streams: HashMap<u32, StreamEnd>,
    /// Tails of the ids of events of units of work.
    of_units: Vec<u32>,
    log: LogCheck,
}

#[derive(Clone, Copy, Default)]
struct StreamEnd {
    highest: u32,
    count: u32,
    last: u32,
}

impl Checker {
    /// Adds the next event of the log, in the order of positions.
    pub(crate) fn add(&mut self, fact: &Fact) {
        self.log.appended += 1;
        let index = index(fact.position);
        self.digests.resize(self.digests.len().max(index + 1), 0);
        self.digests[index] = digest(fact);
        for wanted in Wanted::EACH {
            if wanted.matches(fact) {
                self.wanted.entry(wanted).or_default().set(index);
            }
        }
        if UNIT_STREAMS.contains(&fact.stream) {
            self.of_units.push(fact.tail);
        }
        let end = self.streams.entry(fact.stream).or_default();
        if fact.version <= end.last {
            self.log.inverted += 1;
        }
        *end = StreamEnd { highest: end.highest.max(fact.version), count: end.count + 1, last: fact.version };
    }

    /// What the log alone shows.
    pub(crate) fn log(&self) -> LogCheck {
        let skipped_versions = self.streams.values().map(|end| u64::from(end.highest.saturating_sub(end.count))).sum();
        let last = self.digests.len().saturating_sub(1) as u64;
        LogCheck { skipped_versions, gaps: last.saturating_sub(self.log.appended), ..self.log }
    }

    /// How many acknowledged events are not in the log at their position.
    pub(crate) fn lost<E>(&self, acknowledged: impl IntoIterator<Item = Result<Fact, E>>) -> Result<u64, E> {
        let mut lost = 0;
        for fact in acknowledged {
            lost += u64::from(!self.holds(&fact?));
        }
        Ok(lost)
    }

    /// How many events of units of work have no row, plus how many such rows have no event. Rows and events are compared by
    /// the tails of their ids.
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

    /// Checks what was delivered to a reader, in this order.
    pub(crate) fn delivery<E>(
        &self,
        wanted: Wanted,
        delivered: impl IntoIterator<Item = Result<Fact, E>>,
    ) -> Result<Delivery, E> {
        let mut seen = Bits::default();
        let mut streams: HashMap<u32, u32> = HashMap::new();
        let mut highest = 0;
        let mut found = Delivery::default();
        for fact in delivered {
            let fact = fact?;
            found.delivered += 1;
            if !self.holds(&fact) || !wanted.matches(&fact) {
                found.untrue += 1;
                continue;
            }
            if seen.set(index(fact.position)) {
                found.duplicated += 1;
                continue;
            }
            found.inverted += u64::from(fact.position < highest);
            highest = highest.max(fact.position);
            let last = streams.entry(fact.stream).or_default();
            found.inverted_in_stream += u64::from(fact.version <= *last);
            *last = fact.version;
        }
        found.missed = self.wanted.get(&wanted).map_or(0, |wanted| wanted.count_without(&seen));
        Ok(found)
    }

    /// Whether an event has this position.
    pub(crate) fn has(&self, position: u64) -> bool {
        self.digests.get(index(position)).is_some_and(|digest| *digest != 0)
    }

    fn holds(&self, fact: &Fact) -> bool {
        self.digests.get(index(fact.position)) == Some(&digest(fact))
    }
}

fn index(position: u64) -> usize {
    usize::try_from(position).expect("a log whose positions fill the memory cannot be checked")
}

/// A digest of the event without its position; never 0.
fn digest(fact: &Fact) -> u32 {
    let mixed = fact.tail ^ fact.stream.wrapping_mul(0x9e37_79b1) ^ fact.version.wrapping_mul(0x85eb_ca77);
    mixed.max(1)
}

/// A set of indexes.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// Adds an index. Returns whether it was in the set before.
    fn set(&mut self, index: usize) -> bool {
        let (word, bit) = (index / 64, 1 << (index % 64));
        self.0.resize(self.0.len().max(word + 1), 0);
        let was = self.0[word] & bit != 0;
        self.0[word] |= bit;
        was
    }

    /// How many indexes are in this set and not in the other.
    fn count_without(&self, other: &Self) -> u64 {
        let others = other.0.iter().chain(std::iter::repeat(&0));
        self.0.iter().zip(others).map(|(mine, theirs)| u64::from((mine & !theirs).count_ones())).sum()
    }
}

#[cfg(test)]
mod tests;
