//! The book of a service: for each order an entry, which is an aggregate, of what was done, and whether it was taken back.
//!
//! The three services differ in what they do and in when they refuse. What they note is the same: an amount, in cents, pieces or parcels.
//! The sums are a fold of the log, so they are right at once, and nothing is kept for them beside the events.

use annals::{Aggregate, Decide, Event, EventStore, EventStoreExt, Evolve, Filter, Position, ReadError, Tenant};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::domain::order::OrderId;

/// What a service has done for an order.
#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub enum EntryEvent {
    /// The effect: cents were charged, pieces were set aside, a parcel was fetched.
    #[event(name = "entry.made")]
    Made {
        /// How much.
        amount: i64,
    },
    /// It was taken back.
    #[event(name = "entry.taken_back")]
    TakenBack {
        /// How much: all of it.
        amount: i64,
    },
}

/// The entry of an order.
#[derive(Aggregate, Default, Clone, Debug)]
#[aggregate(name = "entry", id = OrderId, event = EntryEvent)]
pub struct Entry {
    /// What was done; 0 before that.
    pub made: i64,
    /// What of that was taken back.
    pub taken_back: i64,
}

impl Evolve for Entry {
    fn evolve(&mut self, event: &EntryEvent) {
        match event {
            EntryEvent::Made { amount } => self.made = self.made.saturating_add(*amount),
            EntryEvent::TakenBack { amount } => self.taken_back = self.taken_back.saturating_add(*amount),
        }
    }
}

impl Entry {
    /// What counts now.
    pub fn open(&self) -> i64 {
        self.made - self.taken_back
    }

    /// The effect, unless it was had for this order before: by another checkout, as repeats of one never come so far.
    pub fn make(&self, amount: i64) -> Result<Vec<EntryEvent>, Refused> {
        if self.open() > 0 {
            return Err(Refused("it is done for this order already".to_owned()));
        }
        Ok(vec![EntryEvent::Made { amount }])
    }
}

/// Why a service does not do what it is asked to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Asks to take back what was done for an order.
#[derive(Debug)]
pub struct TakeBack;

impl Decide<TakeBack> for Entry {
    type Rejection = std::convert::Infallible;

    fn decide(&self, _: &TakeBack) -> Result<Vec<EntryEvent>, Self::Rejection> {
        Ok(Some(self.open())
            .filter(|open| *open > 0)
            .map(|amount| EntryEvent::TakenBack { amount })
            .into_iter()
            .collect())
    }
}

/// The sums of a book, for one shop.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// How often something was done.
    pub entries: u64,
    /// How much was done: cents, pieces or parcels.
    pub made: i64,
    /// How much of that was taken back.
    pub taken_back: i64,
}

impl Sums {
    /// Reads them for a shop from the store of the service.
    pub async fn of(store: &(impl EventStore + Clone), shop: &Tenant) -> Result<Self, ReadError> {
        let entries = Filter::of::<EntryEvent>()?.tenant(shop.clone());
        let mut events = store.read_all(Position::START, entries);
        let mut sums = Self::default();
        while let Some(event) = events.try_next().await? {
            for event in event.decode::<EntryEvent>()? {
                match event {
                    EntryEvent::Made { amount } => {
                        (sums.entries, sums.made) = (sums.entries + 1, sums.made.saturating_add(amount))
                    }
                    EntryEvent::TakenBack { amount } => sums.taken_back = sums.taken_back.saturating_add(amount),
                }
            }
        }
        Ok(sums)
    }

    /// What counts now.
    pub fn open(&self) -> i64 {
        self.made - self.taken_back
    }
}
