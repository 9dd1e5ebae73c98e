//! A load gives the same with and without snapshots, whatever has become of them and of the log.

mod cases;
mod place;
mod random;

use std::convert::Infallible;
use std::sync::Arc;

use annals_eventstore::{AggregateStore, EventStore, Evolve, Repository, StreamId, StreamVersion, Tenant};
use annals_macros::{Aggregate, Event};
use serde::{Deserialize, Serialize};

use place::Place;

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
enum Noted {
    #[event(name = "counter.added")]
    Added(i64),
    #[event(name = "counter.noted")]
    Note(String),
}

/// An aggregate with this policy and fold number: a build of its own.
macro_rules! build {
    ($name:ident, every = $every:literal, fold = $fold:literal) => {
        #[derive(Aggregate, Serialize, Deserialize, Default, Clone, Debug, PartialEq)]
        #[aggregate(name = "counter", id = String, event = Noted, snapshot(every = $every), fold = $fold)]
        struct $name {
            sum: i64,
            notes: std::collections::HashMap<String, usize>,
            all: Vec<i64>,
        }

        impl Evolve for $name {
            fn evolve(&mut self, event: &Noted) {
                match event {
                    Noted::Added(amount) => {
                        self.sum = self.sum.wrapping_mul(31).wrapping_add(*amount);
                        self.all.push(*amount);
                    }
                    Noted::Note(note) => *self.notes.entry(note.clone()).or_default() += 1,
                }
            }
        }
    };
}

build!(EachEvent, every = 1, fold = 1);
build!(EachTwo, every = 2, fold = 1);
build!(EachThree, every = 3, fold = 1);
build!(EachTen, every = 10, fold = 1);
build!(Seventh, every = 1, fold = 7);
build!(Eighth, every = 1, fold = 8);

fn stream(id: &str) -> StreamId {
    StreamId::new(Tenant::default(), "counter", id).unwrap()
}

/// Appends these amounts by one command each.
async fn add<A: Evolve<Event = Noted, Id = String>>(counters: &Repository<A>, id: &str, amounts: &[i64]) {
    for amount in amounts {
        counters.execute(&id.to_owned(), |_| Ok::<_, Infallible>(Noted::Added(*amount))).await.unwrap();
    }
}

/// A load by a repository that knows nothing gives what one without snapshots gives; returns the version.
async fn agrees<A>(store: &Arc<dyn EventStore>, id: &str) -> i64
where
    A: Evolve<Event = Noted, Id = String> + PartialEq + std::fmt::Debug,
{
    let id = id.to_owned();
    let with = store.aggregate::<A>().load(&id).await.unwrap();
    let without = store.aggregate::<A>().without_snapshots().load(&id).await.unwrap();
    assert_eq!((&with.state, with.version, with.last_event), (&without.state, without.version, without.last_event));
    with.version.get()
}

/// The versions of the saved snapshots of the build, the latest first, and whether the log has the event of each.
async fn saved<A: Evolve>(store: &Arc<dyn EventStore>, id: &str) -> Vec<(i64, bool)> {
    let repository = store.aggregate::<A>();
    let (mut found, mut below) = (Vec::new(), StreamVersion::new(i64::MAX).unwrap());
    let snapshots = store.snapshots().unwrap();
    while let Some(next) =
        snapshots.load_snapshot(&stream(id), repository.snapshot_key().unwrap(), below).await.unwrap()
    {
        found.push((next.snapshot.version.get(), next.is_in_log));
        below = StreamVersion::new(next.snapshot.version.get() - 1).unwrap();
    }
    found
}

fn hits<A: Evolve>(store: &Arc<dyn EventStore>) -> u64 {
    store.aggregate::<A>().snapshot_stats().hits
}

/// A test for each store.
macro_rules! on_every_store {
    ($($test:ident,)*) => {
        mod memory {
            $(#[tokio::test] async fn $test() { super::$test(crate::snapshots::Place::memory()).await; })*
        }
        mod sqlite {
            $(#[tokio::test] async fn $test() { super::$test(crate::snapshots::Place::sqlite()).await; })*
        }
        #[cfg(feature = "postgres")]
        mod postgres {
            $(#[tokio::test] async fn $test() { super::$test(crate::snapshots::Place::postgres().await).await; })*
        }
    };
}
use on_every_store;
