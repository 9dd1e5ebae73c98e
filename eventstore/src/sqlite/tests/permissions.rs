//! Files and folders that the system does not let be written.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use annals_scratch::again::{is_again, run_again};

use super::{ANY, Fixture};
use crate::error::OpenError;
use crate::sqlite::{SqliteOptions, SqliteStore};
use crate::store::EventStore;

/// Whether permissions hold for this process. They do not for root: then the test, which is named, is run again in a
/// process whose privileges are given up.
fn are_held(test: &str) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    permit(&file, 0o444);
    if std::fs::OpenOptions::new().append(true).open(&file).is_err() {
        return true;
    }
    assert!(!is_again(), "the privileges are given up, but nothing is forbidden");
    run_again(&["setpriv", "--inh-caps=-all", "--bounding-set=-all"], module_path!(), test)
        .unwrap_or_else(|said| panic!("as root without its privileges: {said}"));
    false
}

fn permit(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("it is ours");
}

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("listed").count()
}

/// A closed store of one event, and the bytes of its file.
async fn closed_store() -> (Fixture, Vec<u8>) {
    let fixture = Fixture::new().await;
    fixture.append("a", ANY, 1).await.expect("appended");
    fixture.store.close().await;
    let bytes = std::fs::read(fixture.path()).expect("read");
    (fixture, bytes)
}

#[tokio::test]
async fn a_file_that_may_not_be_written_is_refused_with_the_reason_and_can_be_read() {
    if !are_held("a_file_that_may_not_be_written_is_refused_with_the_reason_and_can_be_read") {
        return;
    }
    let (fixture, before) = closed_store().await;
    permit(&fixture.path(), 0o444);
    let error = SqliteStore::open(fixture.path()).await.err().expect("refused");
    let path = fixture.path().display().to_string();
    assert!(matches!(&error, OpenError::ReadOnly { path: named, .. } if *named == path), "{error:?}");
    assert!(error.to_string().contains("open it with `read_only`"), "{error}");
    assert_eq!(std::fs::read(fixture.path()).expect("read"), before);

    let reading = SqliteOptions::new(fixture.path()).read_only().open().await.expect("it may be read");
    assert_eq!(reading.head().await.expect("read").position.get(), 1);
    reading.close().await;
    assert_eq!(std::fs::read(fixture.path()).expect("read"), before);
}

#[tokio::test]
async fn a_folder_that_may_not_be_written_is_refused_with_the_reason() {
    if !are_held("a_folder_that_may_not_be_written_is_refused_with_the_reason") {
        return;
    }
    let (fixture, before) = closed_store().await;
    permit(fixture.folder.path(), 0o555);
    for options in [SqliteOptions::new(fixture.path()), SqliteOptions::new(fixture.path()).read_only()] {
        match options.open().await.err().expect("refused") {
            OpenError::Invalid(invalid) => {
                assert_eq!(invalid.field, "path");
                assert!(invalid.problem.contains(&fixture.path().display().to_string()), "{invalid}");
                assert!(invalid.fix.contains("folder"), "{invalid}");
            }
            other => panic!("expected an error about the folder: {other:?}"),
        }
    }
    let new = SqliteStore::open(fixture.folder.path().join("new.db")).await.err().expect("refused");
    assert!(matches!(new, OpenError::ReadOnly { .. }), "{new:?}");
    assert_eq!(files_in(fixture.folder.path()), 1, "nothing was created");
    assert_eq!(std::fs::read(fixture.path()).expect("read"), before);
    permit(fixture.folder.path(), 0o755);
}
