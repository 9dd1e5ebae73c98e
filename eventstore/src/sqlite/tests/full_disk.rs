//! A disk that is really full: a small file system of its own, which the test fills and then makes larger.

use std::path::PathBuf;
use std::process::Command;

use super::again::{is_again, run_again};
use super::{ANY, event, stream};
use crate::append::Append;
use crate::clock::{IdSource, TimeOrderedIds};
use crate::error::{AppendError, ErrorFamily, OpenError};
use crate::event::{EventId, NewEvent};
use crate::filter::Filter;
use crate::payload::Payload;
use crate::position::Position;
use crate::sqlite::SqliteStore;
use crate::store::EventStore;
use crate::stream::{ExpectedVersion, StreamVersion};

/// Whether this process has a namespace in which it may mount. If not, the test is run again in one, which takes all
/// it has mounted along when it ends, however it ends.
fn may_mount(test: &str) -> bool {
    if is_again() {
        return true;
    }
    let own = run_again(&["unshare", "--mount"], module_path!(), test);
    let done = own.or_else(|as_we_are| {
        run_again(&["unshare", "--map-root-user", "--mount"], module_path!(), test)
            .map_err(|as_root| format!("{as_we_are}\n{as_root}"))
    });
    done.unwrap_or_else(|said| {
        panic!("the test failed, or it may not mount: run it as root, or where user namespaces are allowed\n{said}")
    });
    false
}

/// A file system of its own.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let disk = Self(tempfile::tempdir().expect("a folder"));
        disk.mount(&format!("size={size}"));
        disk
    }

    fn grow(&self, size: &str) {
        self.mount(&format!("remount,size={size}"));
    }

    fn mount(&self, options: &str) {
        let mut mount = Command::new("mount");
        // With kind and source said, a remount does not take the old options over, some of which a user may not set.
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(self.0.path());
        let done = mount.output().expect("`mount` is where `unshare` is");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("log.db")
    }
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
    let page = store.read_page(Position::START, &Filter::all(), 1000).await.expect("a page");
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
    if !may_mount("a_full_disk_refuses_appends_loses_none_and_takes_more_when_it_has_grown") {
        return;
    }
    let disk = SmallDisk::new("2m");
    let store = SqliteStore::open(disk.path()).await.expect("a new store");
    let to = stream("a");
    let mut acknowledged = Vec::new();
    // By the caller itself and by the writer's queue, in turn.
    let belief = |count: usize| if count.is_multiple_of(2) { ANY } else { exact(i64::try_from(count).expect("few")) };
    let refused = loop {
        let event = large();
        let id = event.event_id;
        match store.append(&to, belief(acknowledged.len()), vec![event]).await {
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
        store.append(&to, belief(acknowledged.len()), vec![event]).await.expect("there is room again");
        acknowledged.push(id);
    }
    assert_eq!(ids(&store).await, acknowledged);
    store.close().await;
    let again = SqliteStore::open(disk.path()).await.expect("it is sound");
    assert_eq!(ids(&again).await, acknowledged);
}

#[tokio::test]
async fn a_store_without_room_is_not_opened_and_is_when_there_is_room() {
    if !may_mount("a_store_without_room_is_not_opened_and_is_when_there_is_room") {
        return;
    }
    let disk = SmallDisk::new("64k");
    let filling = disk.0.path().join("filling");
    std::fs::write(&filling, vec![0; 60 << 10]).expect("written");
    let error = SqliteStore::open(disk.path()).await.err().expect("refused");
    assert!(matches!(error, OpenError::StorageFull { .. }), "{error:?}");
    std::fs::remove_file(filling).expect("removed");
    disk.grow("2m");
    let store = SqliteStore::open(disk.path()).await.expect("a new store");
    store.append(&stream("a"), ExpectedVersion::NoStream, vec![event(1)]).await.expect("appended");
}
