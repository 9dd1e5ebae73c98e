//! Tenants take turns: one with many large appends does not keep another waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::{ANY, event, stream};
use crate::clock::{IdSource, TimeOrderedIds};
use crate::event::{EventId, NewEvent};
use crate::limits::Limits;
use crate::payload::Payload;
use crate::sqlite::SqliteOptions;
use crate::store::EventStore;
use crate::stream::{StreamId, Tenant};

const BYTES: usize = 900_000;

fn large() -> NewEvent {
    let id = EventId::new(TimeOrderedIds.next_id()).expect("not nil");
    NewEvent::raw(id, "large", 1, Payload::of(&"x".repeat(BYTES)).expect("it is JSON")).expect("a name")
}

/// Another tenant waited 4.5 s for 300 appends of 900 kB. It waits for the batch that is written, and is in the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_tenants_large_appends_delay_anothers_by_two_batches_at_most() {
    const APPENDS: usize = 80;
    let folder = tempfile::tempdir().expect("a folder");
    let limits = Limits { queued_bytes: usize::MAX, ..Limits::default() };
    let most = i64::try_from(2 * limits.batch_bytes / BYTES + 2).expect("few");
    let store = SqliteOptions::new(folder.path().join("log.db")).limits(limits).open().await.expect("opened");
    let answered = Arc::new(AtomicUsize::new(0));
    let event_of_all = large();
    let tasks: Vec<_> = (0..APPENDS)
        .map(|n| {
            let (store, answered) = (store.clone(), Arc::clone(&answered));
            let id = EventId::new(TimeOrderedIds.next_id()).expect("not nil");
            let event = NewEvent { event_id: id, ..event_of_all.clone() };
            tokio::spawn(async move {
                let stream =
                    StreamId::new(Tenant::new("loud").expect("a name"), "counter", n.to_string()).expect("a name");
                store.append(&stream, ANY, vec![event]).await.expect("stored");
                answered.fetch_add(1, Ordering::AcqRel);
            })
        })
        .collect();
    let mut waits = Vec::new();
    while APPENDS - answered.load(Ordering::Acquire) > usize::try_from(most).expect("few") {
        // By positions, and not by answers: the tasks of the others may take up their answers later.
        let (head, begun) = (store.head().await.expect("read").position.get(), Instant::now());
        let stored = store.append(&stream("quiet"), ANY, vec![event(1)]).await.expect("stored");
        waits.push((stored.position.get() - head - 1, begun.elapsed()));
    }
    for task in tasks {
        task.await.expect("stored");
    }
    assert!(waits.len() >= 3, "{waits:?}");
    assert!(waits.iter().all(|(appends, _)| *appends <= most), "most {most}: {waits:?}");
}
