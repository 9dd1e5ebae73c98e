//! A process that takes the file's write lock and keeps it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use annals_scratch::again::{again, is_again};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use tokio::time::Instant;

use super::{ANY, Fixture, event, stream};
use crate::append::Append;
use crate::error::AppendError;
use crate::position::Position;
use crate::sqlite::SqliteOptions;
use crate::store::EventStore;
use crate::stream::ExpectedVersion;

const FILE: &str = "ANNALS_TEST_FILE";
const LOCKED: &str = "the file is locked";

/// Another process, ended with the test.
struct Holder(Child);

impl Holder {
    /// Starts the test again as the one that locks `file`, and waits until it does.
    fn of(file: &Path, test: &str) -> Self {
        let mut command = again(&[], module_path!(), test);
        command.env(FILE, file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it is running already");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        assert!(
            output.lines().map_while(Result::ok).any(|line| line.contains(LOCKED)),
            "it has ended without the lock"
        );
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it has ended");
    }
}

/// What the other process does: it writes, does not commit, and waits to be killed.
async fn hold_the_lock() {
    let file = std::env::var_os(FILE).expect("it was named");
    let mut connection =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await.expect("a connection");
    let written = "BEGIN IMMEDIATE; UPDATE annals_store SET min_build = 1000";
    sqlx::raw_sql(written).execute(&mut connection).await.expect("locked");
    println!("{LOCKED}");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("read");
}

#[tokio::test]
async fn another_process_makes_appends_busy_while_it_holds_the_lock() {
    if is_again() {
        return hold_the_lock().await;
    }
    let fixture = Fixture::new().await;
    fixture.append("a", ExpectedVersion::NoStream, 1).await.expect("appended");
    let max_wait = Duration::from_millis(50);
    let options = SqliteOptions::new(fixture.path()).busy_timeout(max_wait);
    let store = options.clone().open().await.expect("opened");
    let holder = Holder::of(&fixture.path(), "another_process_makes_appends_busy_while_it_holds_the_lock");
    let version = crate::StreamVersion::new(1).expect("a version");
    for expected in [ANY, version.into()] {
        let error = store.append(&stream("a"), expected, vec![event(2)]).await.expect_err("busy");
        let by = crate::error::Holder::OtherHandle;
        assert!(
            matches!(error, AppendError::Busy { waited, holder } if (waited, holder) == (max_wait, by)),
            "{error:?}"
        );
        assert!(error.is_transient());
    }
    assert!(matches!(store.begin().await.err(), Some(AppendError::Busy { .. })));
    // A handle that waits for long is left at a deadline. Two at once: one is sent directly, the other by the writer.
    let deadline = Instant::now() + Duration::from_millis(200);
    let late = |id| Append::to(stream(id), ANY, vec![event(9)]).with_deadline(deadline);
    let (one, other) = tokio::join!(fixture.store.append_many(late("b")), fixture.store.append_many(late("c")));
    assert!(deadline.elapsed() < Duration::from_millis(500), "{:?}", deadline.elapsed());
    for error in [one.expect_err("late"), other.expect_err("late")] {
        let is_late = matches!(error, AppendError::OutcomeUnknown { .. } | AppendError::DeadlineExceeded { .. });
        assert!(is_late, "{error:?}");
    }
    // Reading, and opening a store that is complete, needs no lock.
    assert_eq!(store.head().await.expect("read").position, Position::new(1).expect("a position"));
    let late = options.open().await.expect("opened beside the other process");
    assert_eq!(late.head().await.expect("read").position.get(), 1);

    drop(holder);
    store.append(&stream("a"), version.into(), vec![event(2)]).await.expect("free again");
    SqliteOptions::new(fixture.path()).open().await.expect("what was not committed is gone");
}
