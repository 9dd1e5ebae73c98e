//! Writes to the journal that fail while a commit is under way. It may be on disk or not, so the answer must not be
//! that it is not.

use std::path::PathBuf;

use annals_scratch::again::{is_again, run_again};

use super::{ANY, event, stream};
use crate::append::Append;
use crate::clock::{IdSource, TimeOrderedIds};
use crate::error::{AppendError, ErrorFamily};
use crate::event::{EventId, NewEvent};
use crate::payload::Payload;
use crate::sqlite::SqliteStore;
use crate::store::EventStore;
use crate::stream::{ExpectedVersion, StreamVersion};
use crate::unit_of_work::UnitOfWork;

/// No file may grow beyond 400 blocks of 512 bytes. A write beyond it fails by EFBIG if the signal is ignored, which SQLite
/// takes for any error of the device.
const LIMIT: &[&str] = &["sh", "-c", "trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\""];

/// Half of that.
fn large() -> NewEvent {
    let text = "x".repeat(100_000);
    let payload = Payload::from_json(&format!("{{\"text\":\"{text}\"}}")).expect("it is JSON");
    NewEvent::raw(EventId::new(TimeOrderedIds.next_id()).expect("not nil"), "written", 1, payload).expect("a name")
}

/// A store whose journal has little room left.
async fn almost_full() -> (tempfile::TempDir, PathBuf, SqliteStore, ExpectedVersion) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.db");
    let store = SqliteStore::open(&path).await.expect("opened");
    store.append(&stream("a"), ExpectedVersion::NoStream, vec![event(1)]).await.expect("appended");
    let journal = folder.path().join("log.db-wal");
    let one = StreamVersion::new(1).expect("a version");
    assert!(std::fs::metadata(&journal).expect("it is there").len() < 200 * 512, "there is no room for anything");
    (folder, path, store, one.into())
}

#[tokio::test]
async fn an_append_whose_commit_cannot_be_written_has_an_unknown_outcome() {
    if !is_again() {
        let name = "an_append_whose_commit_cannot_be_written_has_an_unknown_outcome";
        return run_again(LIMIT, module_path!(), name).expect("it passes where files are small");
    }
    for by in ["directly", "by the queue", "in a unit of work"] {
        let (_folder, _path, store, exact) = almost_full().await;
        let to = stream("a");
        let two = || vec![large(), large()];
        let answer = match by {
            "directly" => store.append(&to, exact, two()).await.map(drop),
            "by the queue" => store.append(&to, ANY, two()).await.map(drop),
            _ => {
                let mut unit = store.begin().await.expect("begun");
                let append = unit.append(Append::to(to.clone(), ANY, two())).await;
                append.expect("it waits in memory for the commit");
                unit.commit().await
            }
        };
        match answer {
            Err(error @ AppendError::OutcomeUnknown { .. }) => {
                assert_eq!(error.family(), ErrorFamily::OutcomeUnknown);
            }
            other => panic!("{by}: {other:?}"),
        }
        // The handle goes on with what there is room for.
        let after = store.append(&to, ANY, vec![event(2)]).await.unwrap_or_else(|e| panic!("{by}: {e:?}"));
        assert_eq!(after.version().get(), 2, "{by}: nothing of it was written");
    }
}
