//! The trait of the adapters, and what passes through them.

use std::fmt::Debug;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Whatever went wrong.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// The event: about 100 bytes of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paid {
    pub payment: String,
    pub amount: i64,
    pub currency: String,
    pub method: String,
}

const PREFIX: &str = "payment-";

impl Paid {
    /// The `n`-th event.
    pub fn nth(n: u64) -> Self {
        Self {
            payment: format!("{PREFIX}{n:012}"),
            amount: i64::try_from(n % 100_000).unwrap_or_default(),
            currency: "EUR".to_owned(),
            method: "card".to_owned(),
        }
    }

    /// Which event it is.
    ///
    /// # Errors
    /// If it is none of ours.
    pub fn number(&self) -> Result<u64, Fault> {
        let number = self.payment.strip_prefix(PREFIX).ok_or("this is none of our events")?;
        Ok(number.parse()?)
    }
}

/// Where a store is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Place {
    /// The URL of an empty database.
    Postgres(String),
    /// A file that is not there yet.
    Sqlite(PathBuf),
}

/// How a store is opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    pub place: Place,
    /// How many connections a pool has, where the peer lets us decide.
    pub connections: u32,
}

/// A part of the log.
#[derive(Debug)]
pub struct Page<C> {
    pub events: Vec<Paid>,
    /// Where the next page begins, also if this one is empty.
    pub next: Option<C>,
}

/// What a read model holds in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    pub rows: u64,
    pub events: u64,
}

/// A read model that was built.
#[derive(Clone, Copy, Debug)]
pub struct Built {
    pub totals: Totals,
    /// How long it took, without making its table.
    pub time: Duration,
}

/// An event store, with what all of them do in their own way.
pub trait Peer: Sized + Send + Sync + 'static {
    /// The table on PostgreSQL that an append inserts into.
    const TABLE: &'static str;

    /// What a writer knows of the stream that it appends to.
    type Stream: Send + 'static;

    /// A place in the log that a reader keeps.
    type Cursor: Clone + Send + Sync;

    /// Opens a new store.
    fn open(setup: &Setup) -> impl Future<Output = Result<Self, Fault>> + Send;

    /// A stream that is not there yet.
    fn stream(&self, name: &str) -> Self::Stream;

    /// Appends to the stream, refused if somebody else has done so.
    fn append(&self, stream: &mut Self::Stream, events: Vec<Paid>) -> impl Future<Output = Result<(), Fault>> + Send;

    /// The events of the stream.
    fn load(&self, name: &str) -> impl Future<Output = Result<Vec<Paid>, Fault>> + Send;

    /// Reads all events, and counts them. By default page by page.
    fn read(&self) -> impl Future<Output = Result<u64, Fault>> + Send {
        async {
            let (mut count, mut after) = (0, None);
            while let Some(page) = self.page(after.as_ref()).await? {
                count += page.events.len() as u64;
                if std::hint::black_box(page.events).is_empty() {
                    break;
                }
                after = page.next;
            }
            Ok(count)
        }
    }

    /// What comes after a place in the log, as a reader that keeps its place would read it; an empty page if there is no
    /// more now. `None` if the store has no such reads.
    fn page(
        &self,
        after: Option<&Self::Cursor>,
    ) -> impl Future<Output = Result<Option<Page<Self::Cursor>>, Fault>> + Send;

    /// Builds a read model of the whole log: per stream the number of events and the sum of their amounts, in a table of
    /// its own for each `round`, until it has `events` events. `None` if the store has no projections.
    fn project(&self, round: usize, events: u64) -> impl Future<Output = Result<Option<Built>, Fault>> + Send;
}
