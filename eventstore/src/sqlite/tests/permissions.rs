//! Files and folders that the system does not let be written.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{ANY, Fixture};
use crate::error::OpenError;
use crate::sqlite::{SqliteOptions, SqliteStore};
use crate::store::EventStore;

/// Says to a test that it was started by [`are_held`].
const AGAIN: &str = "ANNALS_TEST_WITHOUT_PRIVILEGES";

/// Whether permissions hold for this process. They do not for root: then the test, which is named, is run again in a
/// process whose privileges are given up, and must pass there.
fn are_held(test: &str) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    permit(&file, 0o444);
    if std::fs::OpenOptions::new().append(true).open(&file).is_err() {
        return true;
    }
    assert!(std::env::var_os(AGAIN).is_none(), "the privileges are given up, but nothing is forbidden");
    let (_, module) = module_path!().split_once("::").expect("the crate comes first");
    let again = Command::new("setpriv")
        .args(["--inh-caps=-all", "--bounding-set=-all"])
        .arg(std::env::current_exe().expect("it is running"))
        .args(["--exact", &format!("{module}::{test}"), "--nocapture"])
        .env(AGAIN, "1")
        .output();
    let again = again.unwrap_or_else(|error| {
        panic!(
            "root may write everything, and `setpriv`, which gives that up, was not found: install util-linux ({error})"
        )
    });
    let told = format!("{}{}", String::from_utf8_lossy(&again.stdout), String::from_utf8_lossy(&again.stderr));
    assert!(again.status.success() && told.contains("1 passed"), "without privileges: {}\n{told}", again.status);
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
