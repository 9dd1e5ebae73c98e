//! The cluster that test processes share: started by the first, removed by its watchdog.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use sqlx::postgres::PgConnectOptions;

use crate::tls::Tls;
use crate::{binaries, pooler};

/// Servers refuse to run as root; this account comes with the package.
pub(crate) const SERVER_ACCOUNT: &str = "postgres";

/// Data of tests need not be durable, so nothing waits for the disk. Tests of durability start a [`crate::Server`].
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "300"),
    ("max_prepared_transactions", "20"),
    ("shared_buffers", "64MB"),
    ("max_wal_size", "4GB"),
    ("autovacuum", "off"),
];

/// Checks `users` every second. When no test process has held it 20 times in a row, stops the server and removes its
/// folder. A test process that starts meanwhile waits for `start`, and starts a new server.
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
                [ ! -f "$0/pooler.pid" ] || kill "$(cat "$0/pooler.pid")"
                rm -rf "$0/data" "$0/up"' "$0" "$1" && exit 0
            idle=0
        fi
    done
"#;

/// A running cluster. The process counts as its user until it exits.
pub(crate) struct Cluster {
    folder: PathBuf,
    port: u16,
    pooler: OnceLock<()>,
    start: File,
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
            let file = file.expect("a lock file can be created");
            // The watchdog runs under another account. If the file has another owner, that owner has set the permissions.
            if let Err(error) = file.set_permissions(std::fs::Permissions::from_mode(0o666)) {
                assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}");
            }
            file
        };
        let start = shared_file("start");
        start.lock().expect("files can be locked");
        let users = shared_file("users");
        users.lock_shared().expect("files can be locked");
        let port = running(folder).unwrap_or_else(|| begin(folder));
        start.unlock().expect("a lock can be released");
        Self { folder: folder.to_owned(), port, pooler: OnceLock::new(), start, _users: users }
    }

    /// How to reach its first database.
    pub(crate) fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.folder)
            .port(self.port)
            .username(SERVER_ACCOUNT)
            .password("")
            .database("postgres")
    }

    /// How to reach it through a pooler in transaction mode.
    pub(crate) fn options_through_pooler(&self) -> PgConnectOptions {
        self.pooler.get_or_init(|| {
            self.start.lock().expect("files can be locked");
            pooler::begin(&self.folder, self.port, SERVER_ACCOUNT);
            self.start.unlock().expect("a lock can be released");
        });
        self.options().port(pooler::PORT)
    }

    /// How to reach it over TCP.
    pub(crate) fn tls(&self) -> Tls {
        Tls::of(&self.folder, self.port)
    }
}

/// One folder per account, build folder, server programs and settings, so that work trees and versions do not affect
/// each other. The name is short, because the length of a socket's path is limited.
fn folder_of_this_build() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    std::env::current_exe().expect("a process has a file").parent().hash(&mut hasher);
    (binaries::folder(), SETTINGS, WATCHDOG).hash(&mut hasher);
    std::env::temp_dir().join(format!("annals-scratch-{:016x}", hasher.finish()))
}

/// The port of the server in this folder, if it is running. `up` contains the port once the server accepts connections.
fn running(folder: &Path) -> Option<u16> {
    let port = std::fs::read_to_string(folder.join("up")).ok()?.parse().ok()?;
    std::os::unix::net::UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).ok().map(|_| port)
}

/// Starts the server and its watchdog. Returns the port.
fn begin(folder: &Path) -> u16 {
    let bin = binaries::folder();
    let data = folder.join("data");
    for leftover in [&data, &folder.join("up")] {
        if leftover.exists() {
            let removed =
                if leftover.is_dir() { std::fs::remove_dir_all(leftover) } else { std::fs::remove_file(leftover) };
            removed.expect("the files of an earlier server can be removed");
        }
    }
    // The server creates its socket here, and may run under another account.
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).expect("it is ours");
    run(unprivileged(&bin.join("initdb"))
        .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username", SERVER_ACCOUNT, "-D"])
        .arg(&data));
    let port = start(&bin, folder, &data);
    std::fs::write(folder.join("up"), port.to_string()).expect("the folder is ours");
    // In its own session, so that neither the end of a test nor an interrupted run ends it.
    let mut watchdog = unprivileged(Path::new("setsid"));
    watchdog.args(["--fork", "sh", "-c", WATCHDOG]).arg(folder).arg(&bin);
    watchdog.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(watchdog.status().is_ok_and(|status| status.success()), "the watchdog does not start: {watchdog:?}");
    port
}

/// Starts the server on a free port. The port is part of the name of its socket.
fn start(bin: &Path, folder: &Path, data: &Path) -> u16 {
    let mut settings: String = SETTINGS.iter().map(|(name, value)| format!("-c {name}='{value}' ")).collect();
    if output(unprivileged(&bin.join("postgres")).args(["-C", "ssl_library", "-D"]).arg(data)).trim() != "" {
        Tls::begin(folder, data);
        settings.push_str("-c ssl=on ");
    }
    let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr());
    let port = free.expect("a port is free").port();
    run(unprivileged(&bin.join("pg_ctl"))
        .args(["-w", "-s", "-o"])
        .arg(format!("{settings} -c port={port} -k '{}'", folder.display()))
        .arg("-l")
        .arg(data.join("log"))
        .arg("-D")
        .arg(data)
        .arg("start"));
    port
}

/// A command that runs under the server's account if this process runs as root.
pub(crate) fn unprivileged(program: &Path) -> Command {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        return Command::new(program);
    }
    // Root in a user namespace without other accounts: run as `nobody` in a nested one.
    if std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().last() == Some("1")) {
        let mut command = Command::new("unshare");
        command.args(["--map-user", "65534", "--map-group", "65534"]).arg(program);
        command.current_dir("/");
        return command;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", SERVER_ACCOUNT, "--regid", SERVER_ACCOUNT, "--init-groups"]).arg(program);
    command.current_dir("/");
    command
}

pub(crate) fn run(command: &mut Command) {
    output(command);
}

fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{printed}{errors}", output.status);
    printed
}
