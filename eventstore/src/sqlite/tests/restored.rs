//! An older backup is restored into the file while handles have it open, or replaces it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

use super::{ANY, Fixture, event, stream};
use crate::database_error::DatabaseError;
use crate::error::{AppendError, ReadError};
use crate::event::EventId;
use crate::filter::Filter;
use crate::position::{After, Position};
use crate::read::EventStoreExt;
use crate::sqlite::{SqliteOptions, SqliteStore};
use crate::store::EventStore;

const SOON: Duration = Duration::from_secs(10);

async fn connect(path: &Path) -> SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    SqliteConnection::connect_with(&options).await.expect("a connection")
}

/// What restoring a backup into the file leaves, as one transaction of another process: the log as it was when it had
/// `events` events, and the numbers behind them to be given out again.
async fn restore(path: &Path, events: usize) {
    let mut connection = connect(path).await;
    let guards = "SELECT group_concat(sql, '; ') FROM sqlite_schema WHERE type = 'trigger'";
    let rows = sqlx::query(guards).fetch_all(&mut connection).await.expect("read");
    let guards: String = rows[0].get(0);
    let sql = format!(
        "BEGIN IMMEDIATE;
         DROP TRIGGER events_are_never_deleted; DROP TRIGGER events_are_never_updated;
         DROP TRIGGER events_are_never_replaced;
         DELETE FROM events WHERE position > {events};
         UPDATE sqlite_sequence SET seq = {events} WHERE name = 'events';
         {guards};
         COMMIT"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("restored");
    connection.close().await.expect("closed");
}

/// The reader would go on with 11, as if 6 to 10 were those that it has seen.
#[tokio::test]
async fn a_subscription_over_a_restored_log_ends_and_skips_nothing() {
    for read_live in [true, false] {
        let fixture = Fixture::new().await;
        fixture.store.append(&stream("a"), ANY, (0..10).map(event).collect()).await.expect("appended");
        let mut subscription = fixture.store.subscribe(Position::START, Filter::all());
        for position in 1..=10 {
            assert_eq!(subscription.next().await.expect("an event").expect("read").position.get(), position);
        }
        let mut next = Box::pin(subscription.next());
        if read_live {
            assert!(futures::poll!(next.as_mut()).is_pending(), "it waits at the head");
        }
        restore(&fixture.path(), 5).await;
        if !read_live {
            for n in 6..=12 {
                let done = fixture.append("b", ANY, n).await.expect("appended");
                assert_eq!(done.position.get(), n, "the numbers are given out again");
            }
        }
        let last = tokio::time::timeout(SOON, next).await.expect("woken").expect("an error");
        assert!(matches!(last, Err(ReadError::StoreRewound { position, .. }) if position.get() == 10), "{last:?}");
    }
}

/// The head is again where it was, so that its position alone shows nothing.
#[tokio::test]
async fn a_restored_log_that_has_grown_to_the_same_head_wakes_its_readers() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.db");
    let store = SqliteOptions::new(&path).poll_interval(Duration::from_millis(300)).open().await.expect("opened");
    store.append(&stream("a"), ANY, (0..10).map(event).collect()).await.expect("appended");
    let other = SqliteStore::open(&path).await.expect("opened");
    let filters = [Filter::all(), Filter::all().aggregate_type(stream("a").aggregate_type()).expect("a name")];
    let mut subscriptions = filters.map(|filter| store.subscribe(Position::START, filter));
    for subscription in &mut subscriptions {
        for _ in 0..10 {
            subscription.next().await.expect("an event").expect("read");
        }
        assert!(subscription.next().now_or_never().is_none());
    }
    restore(&path, 5).await;
    let done = other.append(&stream("b"), ANY, (0..5).map(event).collect()).await.expect("appended");
    assert_eq!(done.position.get(), 10);
    for subscription in &mut subscriptions {
        let last = tokio::time::timeout(SOON, subscription.next()).await.expect("woken").expect("an error");
        assert!(matches!(last, Err(ReadError::StoreRewound { .. })), "{last:?}");
    }
}

#[tokio::test]
async fn another_store_in_the_same_file_is_not_taken_for_the_one_that_was_opened() {
    let fixture = Fixture::new().await;
    fixture.append("a", ANY, 1).await.expect("appended");
    let checkpoint = fixture.store.head().await.expect("read");
    let mut foreign = fixture.foreign().await;
    sqlx::raw_sql("UPDATE annals_store SET incarnation = randomblob(16)").execute(&mut foreign).await.expect("updated");
    for error in [
        fixture.store.head().await.err(),
        fixture.store.check_checkpoint(&checkpoint).await.err(),
        fixture.store.read_page(After::START, &Filter::all(), 10).await.err(),
        fixture.store.read_page(After::START, &Filter::all().event_name("counted").expect("a name"), 10).await.err(),
    ] {
        assert!(matches!(error, Some(ReadError::StoreRewound { .. })), "{error:?}");
    }
}

/// Loads compare nothing, as they are of one stream.
#[tokio::test]
async fn no_new_connection_is_made_to_another_store_in_the_same_file() {
    let fixture = Fixture::new().await;
    fixture.append("a", ANY, 1).await.expect("appended");
    let mut foreign = fixture.foreign().await;
    sqlx::raw_sql("UPDATE annals_store SET incarnation = randomblob(16)").execute(&mut foreign).await.expect("updated");
    // As many at once as there may be, so that one at least was not open before.
    let readers = join_all((0..4).map(|_| fixture.store.database().read())).await;
    let refused: Vec<_> = readers.iter().filter_map(|reader| reader.as_ref().err()).collect();
    let is_refused = |error: &&DatabaseError| matches!(error, DatabaseError::FileReplaced { .. });
    assert!(!refused.is_empty() && refused.iter().all(is_refused), "{refused:?}");
}

/// A database that lies, or lay, at the path: its files as they are named, and what it holds.
#[derive(Clone, Debug)]
struct Copy {
    /// Which of the files that were at the path it is.
    file: usize,
    log: Vec<EventId>,
}

/// One handle, and a reader on it that keeps what it has seen.
struct Handle {
    store: SqliteStore,
    file: usize,
    after: After,
    seen: Vec<EventId>,
}

/// Random programs with two handles: appends, reads, restores into the file, other files that replace it.
struct World {
    folder: tempfile::TempDir,
    files: usize,
    at_path: Copy,
    away: Option<Copy>,
    backup: Option<Vec<EventId>>,
    handles: Vec<Handle>,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at_path = Copy { file: 0, log: Vec::new() };
        let mut world = Self { folder, files: 1, at_path, away: None, backup: None, handles: Vec::new() };
        for _ in 0..2 {
            let handle = world.open().await;
            world.handles.push(handle);
        }
        world
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("log.db")
    }

    async fn open(&self) -> Handle {
        let store = SqliteOptions::new(self.path()).readers(1).open().await.expect("it is sound");
        Handle { store, file: self.at_path.file, after: After::START, seen: Vec::new() }
    }

    /// An append is stored in the file at the path and acknowledged, or it is neither.
    async fn append(&mut self, which: usize, random: &mut fastrand::Rng) {
        let events: Vec<_> = (0..random.i64(1..4)).map(event).collect();
        let ids: Vec<_> = events.iter().map(|event| event.event_id).collect();
        let to = stream(["a", "b"][random.usize(..2)]);
        let handle = &self.handles[which];
        let expected = match random.bool() {
            true => ANY,
            false => match handle.store.load_page(&to, crate::StreamVersion::NONE, 1000).await {
                Ok(page) => page.events.last().map_or(crate::StreamVersion::NONE, |event| event.version).into(),
                Err(_) => crate::ExpectedVersion::NoStream,
            },
        };
        match handle.store.append(&to, expected, events).await {
            Ok(done) => {
                assert_eq!(handle.file, self.at_path.file, "acknowledged into a file that is not at the path");
                self.at_path.log.extend(ids);
                assert_eq!(done.position.get(), i64::try_from(self.at_path.log.len()).expect("few"));
            }
            Err(AppendError::Broken { .. }) => assert_ne!(handle.file, self.at_path.file, "refused without a reason"),
            Err(error) => panic!("{error:?}"),
        }
    }

    /// A reader has seen a beginning of the log that is there, or gets an error.
    async fn read(&mut self, which: usize) {
        let (file, log) = (self.at_path.file, self.at_path.log.clone());
        let handle = &mut self.handles[which];
        match handle.store.read_page(handle.after, &Filter::all(), 1000).await {
            Ok(page) => {
                assert_eq!(handle.file, file, "read from a file that is not at the path");
                handle.seen.extend(page.events.iter().map(|event| event.event_id));
                handle.after = page.checkpoint.map_or(handle.after, After::from);
                assert_eq!(handle.seen, log, "a reader has not seen what the log holds");
            }
            Err(ReadError::StoreRewound { .. }) => {
                assert!(!log.starts_with(&handle.seen), "called rewound without a reason");
                (handle.after, handle.seen) = (After::START, Vec::new());
            }
            Err(ReadError::Broken { .. }) => assert_ne!(handle.file, file, "refused without a reason"),
            Err(error) => panic!("{error:?}"),
        }
    }

    /// The file with its journal and index is removed, and another one replaces it.
    fn rename(&self, from: &str, to: &str) {
        for suffix in ["", "-wal", "-shm"] {
            let [from, to] = [from, to].map(|name| self.folder.path().join(format!("{name}{suffix}")));
            if from.exists() {
                fs::rename(from, to).expect("renamed");
            }
        }
    }

    async fn step(&mut self, random: &mut fastrand::Rng) {
        let which = random.usize(..2);
        match random.u8(..20) {
            0..8 => self.append(which, random).await,
            8..14 => self.read(which).await,
            14 => self.backup = Some(self.at_path.log.clone()),
            15 | 16 => {
                if let Some(log) = self.backup.clone().filter(|log| self.at_path.log.starts_with(log)) {
                    restore(&self.path(), log.len()).await;
                    self.at_path.log = log;
                }
            }
            17 => match self.away.take() {
                Some(away) => {
                    self.rename("log.db", "other.db");
                    self.rename("away.db", "log.db");
                    self.rename("other.db", "away.db");
                    self.away = Some(std::mem::replace(&mut self.at_path, away));
                }
                None => {
                    let copy = self.folder.path().join("copy.db").display().to_string();
                    let mut connection = connect(&self.path()).await;
                    sqlx::query("VACUUM INTO ?1").bind(copy).execute(&mut connection).await.expect("copied");
                    connection.close().await.expect("closed");
                    self.rename("log.db", "away.db");
                    self.rename("copy.db", "log.db");
                    let new = Copy { file: self.files, log: self.at_path.log.clone() };
                    self.files += 1;
                    self.away = Some(std::mem::replace(&mut self.at_path, new));
                }
            },
            _ => {
                let (after, seen) = (self.handles[which].after, self.handles[which].seen.clone());
                self.handles[which].store.close().await;
                // The reader of a handle that is opened again goes on from where it was.
                self.handles[which] = Handle { after, seen, ..self.open().await };
            }
        }
    }
}

#[tokio::test]
async fn random_programs_with_restores_and_replaced_files_lose_and_skip_nothing() {
    let seed = crate::testing_seed();
    println!("ANNALS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..12 {
        let mut world = World::new().await;
        for _ in 0..40 {
            world.step(&mut random).await;
        }
        for which in 0..2 {
            world.read(which).await;
        }
    }
}
