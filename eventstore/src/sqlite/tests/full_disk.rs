//! A disk that is really full, and then larger.

use std::path::PathBuf;

use annals_scratch::SmallDisk;

use super::{ANY, event, stream};
use crate::append::Append;
use crate::clock::{IdSource, TimeOrderedIds};
use crate::error::{AppendError, ErrorFamily, OpenError};
use crate::event::{EventId, NewEvent};
use crate::filter::Filter;
use crate::payload::Payload;
use crate::position::After;
use crate::sqlite::SqliteStore;
use crate::store::EventStore;
use crate::stream::{ExpectedVersion, StreamVersion};
use crate::unit_of_work::UnitOfWork;

fn file(disk: &SmallDisk) -> PathBuf {
    disk.path().join("log.db")
}

fn large() -> NewEvent {
    let text = "x".repeat(30_000);
    let payload = Payload::from_json(&format!("{{\"text\":\"{text}\"}}")).expect("it is JSON");
    NewEvent::raw(EventId::new(TimeOrderedIds.next_id()).expect("not nil"), "written", 1, payload).expect("a name")
}

fn exact(version: i64) -> ExpectedVersion {
    StreamVersion::new(version).expect("not negative").into()
}

/// The ids in the log.
async fn ids(store: &SqliteStore) -> Vec<EventId> {
    let page = store.read_page(After::START, &Filter::all(), 1000).await.expect("a page");
    assert!(page.end);
    page.events.iter().map(|event| event.event_id).collect()
}

fn is_full<T: std::fmt::Debug>(refused: Result<T, AppendError>) {
    match refused {
        Err(error @ AppendError::StorageFull { .. }) => assert_eq!(error.family(), ErrorFamily::Transient),
        other => panic!("expected a full disk: {other:?}"),
    }
}

#[tokio::test]
async fn a_full_disk_refuses_appends_loses_none_and_takes_more_when_it_has_grown() {
    if !SmallDisk::may_be_mounted(
        module_path!(),
        "a_full_disk_refuses_appends_loses_none_and_takes_more_when_it_has_grown",
    ) {
        return;
    }
    let disk = SmallDisk::new("2m");
    let store = SqliteStore::open(file(&disk)).await.expect("a new store");
    let to = stream("a");
    let mut acknowledged = Vec::new();
    // Alternately by the caller's task and by the writer's queue.
    let expected = |count: usize| if count.is_multiple_of(2) { ANY } else { exact(i64::try_from(count).expect("few")) };
    let refused = loop {
        let event = large();
        let id = event.event_id;
        match store.append(&to, expected(acknowledged.len()), vec![event]).await {
            Ok(_) => acknowledged.push(id),
            Err(error) => break error,
        }
        assert!(acknowledged.len() < 100, "three megabytes on a disk of two");
    };
    assert!(acknowledged.len() > 20, "only {} events on two megabytes: {refused:?}", acknowledged.len());
    is_full::<()>(Err(refused));
    for expected in [ANY, exact(i64::try_from(acknowledged.len()).expect("few"))] {
        is_full(store.append(&to, expected, vec![large()]).await);
        is_full(store.append(&to, expected, (0..40).map(|_| large()).collect()).await);
        assert_eq!(ids(&store).await, acknowledged);
    }
    // What fits into memory is written by the commit, what does not is written before.
    let mut small = store.begin().await.expect("begun");
    small.append(Append::to(to.clone(), ANY, vec![large()])).await.expect("it waits in memory");
    is_full(small.commit().await);
    let mut big = store.begin().await.expect("begun");
    is_full(big.append(Append::to(to.clone(), ANY, (0..200).map(|_| large()).collect())).await);
    big.commit().await.expect_err("SQLite has rolled it back");
    assert_eq!(ids(&store).await, acknowledged);

    disk.grow("8m");
    for _ in 0..40 {
        let event = large();
        let id = event.event_id;
        store.append(&to, expected(acknowledged.len()), vec![event]).await.expect("there is room again");
        acknowledged.push(id);
    }
    assert_eq!(ids(&store).await, acknowledged);
    store.close().await;
    let again = SqliteStore::open(file(&disk)).await.expect("it is sound");
    assert_eq!(ids(&again).await, acknowledged);
}

#[tokio::test]
async fn a_store_without_room_is_not_opened_and_is_when_there_is_room() {
    if !SmallDisk::may_be_mounted(module_path!(), "a_store_without_room_is_not_opened_and_is_when_there_is_room") {
        return;
    }
    let disk = SmallDisk::new("64k");
    let filling = disk.path().join("filling");
    std::fs::write(&filling, vec![0; 60 << 10]).expect("written");
    let error = SqliteStore::open(file(&disk)).await.err().expect("refused");
    assert!(matches!(error, OpenError::StorageFull { .. }), "{error:?}");
    std::fs::remove_file(filling).expect("removed");
    disk.grow("2m");
    let store = SqliteStore::open(file(&disk)).await.expect("a new store");
    store.append(&stream("a"), ExpectedVersion::NoStream, vec![event(1)]).await.expect("appended");
}
