//! Opening a file: is it ours, is it sound?

use std::path::Path;
use std::time::Duration;

use annals_migrations::BUILD;
use sqlx::sqlite::{SqliteConnectOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection};
use tokio::time::{Instant, sleep};

use crate::database_error::DatabaseError;
use crate::error::{BackendError, Invalid, OpenError};
use crate::sqlite::connection::file::{OpenedFile, Replaced, id_of, names_of};
use crate::sqlite::fault::{
    CANTOPEN, CONSTRAINT, CORRUPT, ERROR, FULL, NOTADB, PERM, READONLY, is_about_the_folder, result_code,
};
use crate::sqlite::options::{SqliteOptions, Synchronous};

/// Marks a SQLite file as ours: `annl` in ASCII.
const APPLICATION_ID: i32 = 0x616e_6e6c;

const SET_APPLICATION_ID: &str = "PRAGMA application_id = 1634627180";

const WHAT_IS_IT: &str = "
    SELECT (SELECT application_id FROM pragma_application_id) AS application_id,
           (SELECT count(*) FROM sqlite_schema) AS objects,
           (SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'annals_store') AS stores
    ORDER BY 1
";

const MIN_BUILD_OF_STORE: &str = "
    SELECT coalesce(max(min_build), 0)
    FROM annals_store
    ORDER BY 1
";

/// The length in bytes to which the journal is cut when its content was taken over into the file.
const LONGEST_JOURNAL: &str = "16777216";

/// How long another process may take to create the tables of a new file.
const CREATED_WITHIN: Duration = Duration::from_secs(1);

/// How often opening begins again because the name meant another file afterwards than before.
const MOST_TRIES: usize = 5;

/// What a file is opened with.
pub(crate) struct Opened {
    /// For further connections to the file, which never create it.
    pub(crate) connect: SqliteConnectOptions,
    pub(crate) first: SqliteConnection,
    pub(crate) file: OpenedFile,
}

/// Opens the first connection, after looking at the file from outside and from inside.
pub(crate) async fn connect(options: &SqliteOptions) -> Result<Opened, OpenError> {
    let path = shown(&options.path);
    look_from_outside(options, &path)?;
    // Connections are opened later too, when the process may have another working folder.
    let absolute = std::path::absolute(&options.path)
        .map_err(|error| OpenError::Unavailable { path: path.clone(), source: BackendError::new(error) })?;
    let connect = SqliteConnectOptions::new()
        .filename(&absolute)
        .create_if_missing(!options.read_only)
        .read_only(options.read_only)
        .busy_timeout(options.busy_timeout)
        .synchronous(match options.synchronous {
            Synchronous::Full => SqliteSynchronous::Full,
            Synchronous::Normal => SqliteSynchronous::Normal,
        })
        // While a reader keeps an old snapshot the journal grows; after that it is cut to this length.
        .pragma("journal_size_limit", LONGEST_JOURNAL)
        .statement_cache_capacity(256)
        .row_buffer_size(256)
        .disable_statement_logging();
    let has_no_journal = is_without_journal(&absolute);
    let mut first = connect_to_named(&connect, &absolute, &path).await?;
    let looked = match look_from_inside(&mut first, options, &path, has_no_journal).await {
        Ok(()) => OpenedFile::of(&absolute, !options.read_only).map_err(|e| DatabaseError::from(e).into_open(&path)),
        Err(error) => Err(error),
    };
    match looked {
        Ok(file) => Ok(Opened { connect: connect.create_if_missing(false), first, file }),
        Err(error) => {
            if let Err(error) = first.close().await {
                tracing::debug!(%error, "closing a refused file failed");
            }
            Err(error)
        }
    }
}

/// A connection to the file that `absolute` names before and afterwards. A new file has no name before, so it is opened
/// twice.
async fn connect_to_named(
    connect: &SqliteConnectOptions,
    absolute: &Path,
    path: &str,
) -> Result<SqliteConnection, OpenError> {
    for _ in 0..MOST_TRIES {
        let before = id_of(absolute);
        let connection = connect.connect().await.map_err(|e| fault(path, e))?;
        if before.is_some() && before == id_of(absolute) {
            return Ok(connection);
        }
        connection.close().await.map_err(|e| fault(path, e))?;
    }
    let source = BackendError::new("the file was replaced again and again while it was opened");
    Err(OpenError::Unavailable { path: path.to_owned(), source })
}

pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// What can be seen without SQLite, before anything of the file is touched.
fn look_from_outside(options: &SqliteOptions, path: &str) -> Result<(), OpenError> {
    let invalid = |problem: String, fix: &str| Err(OpenError::Invalid(Invalid::new("path", problem, fix)));
    let file = &options.path;
    if path.is_empty() || path.starts_with(':') {
        return invalid(format!("is `{path}`, which names no file"), "name a file, or use the memory store");
    }
    // What other libraries take for a URL would be a folder called `sqlite:` here, or a file of a strange name. It is not
    // shown: that of a server may hold a password.
    if path.starts_with("sqlite:") || path.starts_with("file:") || path.contains("://") {
        return invalid("is a URL".to_owned(), "give the plain path of the file, such as `orders.db`");
    }
    if file.is_dir() {
        return invalid(format!("`{path}` is a folder"), "name a file in it");
    }
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return invalid(format!("`{path}` lies in a folder that does not exist"), "create the folder first");
    }
    if let Some(kind) = network_file_system(folder) {
        return invalid(
            format!(
                "`{path}` lies on a network file system ({kind}), where SQLite's locks and shared memory do not work"
            ),
            "use a local disk, or PostgreSQL",
        );
    }
    if !file.exists() {
        return if options.read_only {
            invalid(format!("`{path}` does not exist"), "open it without `read_only` to create it")
        } else {
            Ok(())
        };
    }
    let names = names_of(file);
    if names > 1 {
        return Err(DatabaseError::from(Replaced::two_names(file, names)).into_open(path));
    }
    // The file itself is never opened here: closing any descriptor of it would drop all locks that this process has on
    // it already, and the next process to close it would remove the journal under the handles of this one.
    let real = file.canonicalize().unwrap_or_else(|_| file.clone());
    let beside = |suffix: &str| {
        let mut name = real.as_os_str().to_owned();
        name.push(suffix);
        Path::new(&name).exists()
    };
    // SQLite makes the journal before its index and removes both together, so an index alone means that a person or program
    // removed the journal, and with it perhaps acknowledged appends. The index goes first when a store is closed, so one
    // that is gone by now was not alone.
    if beside("-shm") && !beside("-wal") && beside("-shm") {
        return Err(OpenError::Damaged {
            path: path.to_owned(),
            what: format!("its journal `{path}-wal` is gone, but `{path}-shm` is there"),
        });
    }
    Ok(())
}

/// The kind of the file system that holds `folder`, if it is one of another machine.
fn network_file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mount_of(&mounts, &folder).filter(|kind| {
        ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs"]
            .contains(&kind.as_str())
    })
}

/// The kind of the file system that is mounted nearest to `folder`, as `/proc/self/mountinfo` has it.
pub(crate) fn mount_of(mountinfo: &str, folder: &Path) -> Option<String> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mount_point = left.split(' ').nth(4)?.replace("\\040", " ");
            let kind = right.split(' ').next()?;
            folder.starts_with(&mount_point).then(|| (mount_point.len(), kind.to_owned()))
        })
        .max_by_key(|(length, _)| *length)
        .map(|(_, kind)| kind)
}

/// What only SQLite can find out. Nothing is written before the file is known to be ours, or empty.
async fn look_from_inside(
    connection: &mut SqliteConnection,
    options: &SqliteOptions,
    path: &str,
    has_no_journal: bool,
) -> Result<(), OpenError> {
    if has_no_journal {
        refuse_copy_without_journal(connection, path).await?;
    }
    let what = sqlx::query(WHAT_IS_IT).fetch_all(&mut *connection).await.map_err(|e| fault(path, e))?;
    let number = |column: &str| what.first().map_or(0, |row| row.get::<i64, _>(column));
    let (application_id, objects, stores) = (number("application_id"), number("objects"), number("stores"));
    let ours = application_id == i64::from(APPLICATION_ID);
    if !ours && (objects > 0 || application_id != 0 || options.read_only) {
        let found = match (objects, application_id) {
            (0, 0) => "an empty file".to_owned(),
            (_, 0) => format!("an SQLite database with {objects} tables, indexes and views of its own"),
            _ => format!("an SQLite database of the application {application_id:#010x}"),
        };
        return Err(OpenError::NotAStore { path: path.to_owned(), found });
    }
    if stores > 0 {
        let rows = sqlx::query(MIN_BUILD_OF_STORE).fetch_all(&mut *connection).await.map_err(|e| fault(path, e))?;
        let needed = rows.first().map_or(0, |row| row.get::<i64, _>(0));
        if needed > BUILD {
            return Err(OpenError::NewerStore { path: path.to_owned(), needed, ours: BUILD });
        }
    }
    if options.read_only {
        return Ok(());
    }
    refuse_read_only(connection, options.busy_timeout, path).await?;
    use_write_ahead_log(connection, options.busy_timeout, path).await?;
    if !ours {
        sqlx::query(SET_APPLICATION_ID).execute(&mut *connection).await.map_err(|e| fault(path, e))?;
    }
    // The first read after the switch opens the journal and its index, which exist from then on.
    sqlx::query(WHAT_IS_IT).fetch_all(connection).await.map_err(|e| fault(path, e))?;
    Ok(())
}

/// Whether the file has content and no journal beside it.
fn is_without_journal(absolute: &Path) -> bool {
    let real = absolute.canonicalize().unwrap_or_else(|_| absolute.to_owned());
    let mut journal = real.as_os_str().to_owned();
    journal.push("-wal");
    std::fs::metadata(&real).is_ok_and(|file| file.len() > 0) && !Path::new(&journal).exists()
}

/// A copy of a young store without its journal looks like a new, empty file. But its header says that it has a journal, and a file
/// that was closed has its tables in it. One that another process is creating gets them in a moment.
async fn refuse_copy_without_journal(connection: &mut SqliteConnection, path: &str) -> Result<(), OpenError> {
    let until = Instant::now() + CREATED_WITHIN;
    loop {
        let what = sqlx::query(WHAT_IS_IT).fetch_all(&mut *connection).await.map_err(|e| fault(path, e))?;
        if what.first().is_none_or(|row| row.get::<i64, _>("objects") > 0) {
            return Ok(());
        }
        let mode = sqlx::query("PRAGMA journal_mode").fetch_all(&mut *connection).await.map_err(|e| fault(path, e))?;
        if mode.first().is_none_or(|row| row.get::<&str, _>(0) != "wal") {
            return Ok(());
        }
        if Instant::now() >= until {
            // Both causes leave the same bytes: the second, once another program has opened and closed the file.
            let what = format!(
                "it has no table, and its journal `{path}-wal` is missing. If the store was being created when its process ended, \
                 nothing was stored: delete the file. Otherwise it is a copy of the file alone, without the events in its journal"
            );
            return Err(OpenError::Damaged { path: path.to_owned(), what });
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Asks SQLite whether the file may be written. Nothing is written, and the call does not wait: if the lock is
/// taken, the file can be written.
async fn refuse_read_only(connection: &mut SqliteConnection, max_wait: Duration, path: &str) -> Result<(), OpenError> {
    // A file that may not be written lets even BEGIN IMMEDIATE pass; only a statement that would write is refused.
    const TRY: &str = "PRAGMA busy_timeout = 0; BEGIN IMMEDIATE; CREATE TABLE annals_try (n INTEGER); ROLLBACK";
    let asked = sqlx::raw_sql(TRY).execute(&mut *connection).await;
    let millis = i32::try_from(max_wait.as_millis()).unwrap_or(i32::MAX);
    let restore = AssertSqlSafe(format!("PRAGMA busy_timeout = {millis}"));
    sqlx::raw_sql(restore).execute(connection).await.map_err(|e| fault(path, e))?;
    match asked {
        Ok(_) => Ok(()),
        Err(error) => match DatabaseError::of(error, max_wait) {
            DatabaseError::Busy { .. } => Ok(()),
            other => Err(other.into_open(path)),
        },
    }
}

/// Switches the journal. The switch needs the whole file for a moment and SQLite does not wait for that, so this does.
async fn use_write_ahead_log(
    connection: &mut SqliteConnection,
    max_wait: Duration,
    path: &str,
) -> Result<(), OpenError> {
    let until = Instant::now() + max_wait;
    loop {
        match sqlx::query("PRAGMA journal_mode = WAL").fetch_all(&mut *connection).await {
            Ok(rows) if rows.first().is_some_and(|row| row.get::<String, _>(0) == "wal") => return Ok(()),
            Ok(_) => {
                return Err(OpenError::Unsound {
                    path: path.to_owned(),
                    what: "its file system does not support a write-ahead log".to_owned(),
                    fix: "keep the file on a local disk".to_owned(),
                });
            }
            Err(error) => match DatabaseError::of(error, max_wait) {
                DatabaseError::Busy { .. } if Instant::now() < until => sleep(Duration::from_millis(5)).await,
                error => return Err(error.into_open(path)),
            },
        }
    }
}

pub(super) fn fault(path: &str, error: sqlx::Error) -> OpenError {
    if is_about_the_folder(&error) {
        let problem = format!("`{path}` lies in a folder that may not be written, where its journal has to be");
        return Invalid::new("path", problem, "make the folder writable, or copy the file to one that is").into();
    }
    let path = path.to_owned();
    match result_code(&error) {
        Some(NOTADB) => OpenError::NotAStore { path, found: "not an SQLite database".to_owned() },
        Some(CORRUPT) => OpenError::Damaged { path, what: error.to_string() },
        Some(FULL) => OpenError::StorageFull { path, source: BackendError::new(error) },
        Some(CANTOPEN | READONLY | PERM) => OpenError::ReadOnly { path, reason: error.to_string() },
        Some(CONSTRAINT | ERROR) => OpenError::Refused { path, source: BackendError::new(error) },
        _ => OpenError::Unavailable { path, source: BackendError::new(error) },
    }
}
