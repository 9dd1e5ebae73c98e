//! The cluster that test processes share: started by the first, removed by its watchdog.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use sqlx::postgres::PgConnectOptions;

use crate::binaries;

/// Servers refuse to run as root; this account comes with the package.
pub(crate) const SERVER_ACCOUNT: &str = "postgres";

/// Nothing that matters lives here, so nothing waits for the disk. Tests of durability start servers of their own.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("listen_addresses", ""),
    ("max_connections", "300"),
    ("max_prepared_transactions", "20"),
    ("shared_buffers", "64MB"),
    ("max_wal_size", "4GB"),
    ("autovacuum", "off"),
];

/// Waits until no test process has held `users` for 20 looks in a row, then stops the server and removes its folder.
/// A test process that starts meanwhile waits for `start`, and begins anew.
const WATCHDOG: &str = r#"
    cd /
    idle=0
    while [ -d "$0" ]; do
        sleep 1
        if flock -xn "$0/users" true; then idle=$((idle + 1)); else idle=0; fi
        if [ "$idle" -ge 20 ]; then
            flock -x "$0/start" sh -c '
                flock -xn "$0/users" true || exit 1
                "$1/pg_ctl" -D "$0/data" -m immediate -w stop
                rm -rf "$0/data" "$0/up"' "$0" "$1" && exit 0
            idle=0
        fi
    done
"#;

/// A running cluster. The process counts as its user until it ends.
pub(crate) struct Cluster {
    folder: PathBuf,
    _users: File,
}

impl Cluster {
    /// The cluster of this build folder, started if it is not running.
    ///
    /// # Panics
    /// If PostgreSQL is not installed or does not start.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&folder_of_this_build()))
    }

    fn start(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("the folder for temporary files can be written");
        let shared_file = |name: &str| {
            let file = File::options().create(true).truncate(false).read(true).write(true).open(folder.join(name));
            let file = file.expect("a lock file can be made");
            // The watchdog runs under another account. A file that is not ours was opened to all by its owner.
            if let Err(error) = file.set_permissions(std::fs::Permissions::from_mode(0o666)) {
                assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}");
            }
            file
        };
        let start = shared_file("start");
        start.lock().expect("files can be locked");
        let users = shared_file("users");
        users.lock_shared().expect("files can be locked");
        if !is_running(folder) {
            begin(folder);
        }
        start.unlock().expect("a lock can be given back");
        Self { folder: folder.to_owned(), _users: users }
    }

    /// How to reach its first database.
    pub(crate) fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.folder)
            .username(SERVER_ACCOUNT)
            .password("")
            .database("postgres")
    }
}

/// One per account and build folder, so that work trees do not disturb each other. Short, as a socket's path must be.
fn folder_of_this_build() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    std::env::current_exe().expect("a process has a file").parent().hash(&mut hasher);
    std::env::temp_dir().join(format!("annals-scratch-{:016x}", hasher.finish()))
}

/// Whether the server that was started here is still there: `up` is written once it answers, and the socket is only
/// answered by a living one.
fn is_running(folder: &Path) -> bool {
    folder.join("up").exists() && std::os::unix::net::UnixStream::connect(folder.join(".s.PGSQL.5432")).is_ok()
}

fn begin(folder: &Path) {
    let bin = binaries::folder();
    let data = folder.join("data");
    for left_over in [&data, &folder.join("up")] {
        if left_over.exists() {
            let removed =
                if left_over.is_dir() { std::fs::remove_dir_all(left_over) } else { std::fs::remove_file(left_over) };
            removed.expect("what a server before has left can be removed");
        }
    }
    // The server makes its socket here, and its account may be another one.
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).expect("it is ours");
    run(unprivileged(&bin.join("initdb"))
        .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username", SERVER_ACCOUNT, "-D"])
        .arg(&data));
    let settings: String = SETTINGS.iter().map(|(name, value)| format!("-c {name}='{value}' ")).collect();
    run(unprivileged(&bin.join("pg_ctl"))
        .args(["-w", "-s", "-o"])
        .arg(format!("{settings} -k '{}'", folder.display()))
        .arg("-l")
        .arg(data.join("log"))
        .arg("-D")
        .arg(&data)
        .arg("start"));
    std::fs::write(folder.join("up"), "").expect("the folder is ours");
    // In a session of its own, so that neither the end of a test nor an interrupted run takes it along.
    let mut watchdog = unprivileged(Path::new("setsid"));
    watchdog.args(["--fork", "sh", "-c", WATCHDOG]).arg(folder).arg(&bin);
    watchdog.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(watchdog.status().is_ok_and(|status| status.success()), "the watchdog does not start: {watchdog:?}");
}

/// A command that runs as the server's account if this process is root's.
pub(crate) fn unprivileged(program: &Path) -> Command {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", SERVER_ACCOUNT, "--regid", SERVER_ACCOUNT, "--init-groups"]).arg(program);
    command.current_dir("/");
    command
}

pub(crate) fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
