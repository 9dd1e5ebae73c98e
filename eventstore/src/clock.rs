//! Time and ids as parameters, so that tests can hold both.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use uuid::Uuid;

/// The clock of the memory and SQLite stores, for recorded times and the expiry of request keys.
///
/// Order never depends on it: a clock may stop or go backwards.
///
/// # Obligations on the implementer
/// [`Clock::now`] returns at once and does not panic: a store calls it while other appends are queued.
pub trait Clock: Send + Sync + 'static {
    /// The present moment. Stores keep the last whole microsecond that is not after it.
    fn now(&self) -> Timestamp;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// The last whole microsecond that is not after the time, as stores keep it.
///
/// Within the very last second of the calendar it is the beginning of that second: jiff cannot represent the
/// microseconds after it, and a recorded time must be readable.
pub(crate) fn whole_micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(micros_up_to(time)).unwrap_or_else(|_| {
        Timestamp::from_second(time.as_second()).expect("cutting off digits stays within the calendar")
    })
}

/// The last whole microsecond that is not after the time: stores compare it with recorded times, which are whole. Cutting off
/// digits would give a later one before 1970.
pub(crate) fn micros_up_to(time: Timestamp) -> i64 {
    time.as_microsecond() - i64::from(time.subsec_nanosecond() % 1_000 < 0)
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that moves only when it is set. A test shares it with a store in an `Arc`.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use annals_eventstore::{Clock, ManualClock, MemoryStore};
///
/// let clock = Arc::new(ManualClock::at("2026-03-02T09:30:00Z".parse()?));
/// let store = MemoryStore::builder().clock(Arc::clone(&clock)).build();
/// clock.advance(Duration::from_secs(90));
/// assert_eq!(clock.now().to_string(), "2026-03-02T09:31:30Z");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn at(start: Timestamp) -> Self {
        Self(Mutex::new(start))
    }

    /// Makes the clock show `time`, which may lie in the past.
    pub fn set(&self, time: Timestamp) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = time;
    }

    /// Moves the clock on by `by`, at most to the end of the calendar.
    pub fn advance(&self, by: std::time::Duration) {
        let mut now = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *now = now
            .saturating_add(jiff::SignedDuration::try_from(by).unwrap_or(jiff::SignedDuration::MAX))
            .unwrap_or(Timestamp::MAX);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Makes the ids of new events.
///
/// # Obligations on the implementer
/// Every id is new, over all processes that write to the store, and none is the nil UUID.
pub trait IdSource: Send + Sync + 'static {
    /// A new id. Ids that grow with time keep the id index small and fast; random ones halve the speed of appends.
    fn next_id(&self) -> Uuid;
}

impl<I: IdSource + ?Sized> IdSource for Arc<I> {
    fn next_id(&self) -> Uuid {
        (**self).next_id()
    }
}

/// UUIDs of version 7 (RFC 9562): random, but growing with time. The default of every store.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeOrderedIds;

impl IdSource for TimeOrderedIds {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that makes ids")]
    fn next_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}

/// Ids that follow from a seed alone, for tests and golden files.
///
/// Never for a store that is kept: opened again with the same seed it would get the same ids again.
///
/// ```
/// use annals_eventstore::{IdSource, SeededIds};
///
/// let (a, b) = (SeededIds::new(7), SeededIds::new(7));
/// assert_eq!(a.next_id(), b.next_id());
/// assert_ne!(a.next_id(), SeededIds::new(8).next_id());
/// ```
#[derive(Debug)]
pub struct SeededIds(Mutex<fastrand::Rng>);

impl SeededIds {
    /// The sequence of ids that belongs to `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(fastrand::Rng::with_seed(seed)))
    }
}

impl IdSource for SeededIds {
    fn next_id(&self) -> Uuid {
        let random = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).u128(..);
        uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_microseconds_are_cut_never_rounded_and_always_readable() {
        let check = |time: &str, whole: &str| {
            let kept = whole_micros(time.parse().expect("it is sound"));
            assert_eq!(kept, whole.parse::<Timestamp>().expect("it is sound"));
            assert_eq!(Timestamp::from_microsecond(kept.as_microsecond()).expect("it is sound"), kept);
        };
        check("2026-01-02T03:04:05.123456999Z", "2026-01-02T03:04:05.123456Z");
        check("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z");
        // Before 1970 too, the earlier one is kept: a recorded time is never after the event.
        check("1969-12-31T23:59:59.999999001Z", "1969-12-31T23:59:59.999999Z");
        check("1969-07-20T20:17:40.000000999Z", "1969-07-20T20:17:40Z");
        check(&Timestamp::MAX.to_string(), "9999-12-30T22:00:00Z");
        check(&Timestamp::MIN.to_string(), &Timestamp::MIN.to_string());
    }

    #[test]
    fn the_last_microsecond_up_to_a_time_is_never_after_it() {
        for nanos in [-2_000, -1_999, -1_001, -1_000, -999, -1, 0, 1, 999, 1_000, 1_001] {
            let time = Timestamp::from_nanosecond(nanos).expect("it is sound");
            assert_eq!(i128::from(micros_up_to(time)), nanos.div_euclid(1_000), "{nanos}");
        }
        assert_eq!(micros_up_to(Timestamp::MIN), Timestamp::MIN.as_microsecond());
    }
}
