//! A server that one test owns, and may crash, copy and promote.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use crate::cluster::{SERVER_ACCOUNT, run, unprivileged};
use crate::{binaries, pooler};

/// As durable as in production.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("max_connections", "200"),
    ("max_prepared_transactions", "64"),
    ("max_wal_size", "2GB"),
    ("wal_level", "replica"),
];

/// The time limit to start, stop or promote a server. Recovery may take long.
const SECONDS: &str = "300";

/// Waits until the process that holds the lock on `owner` has exited or was killed, then removes the server.
const WATCHDOG: &str = r#"
    cd /
    flock -x "$0/owner" true
    [ ! -f "$0/pooler.pid" ] || kill -KILL "$(cat "$0/pooler.pid")"
    [ ! -f "$0/data/postmaster.pid" ] || kill -CONT "$(head -n 1 "$0/data/postmaster.pid")"
    [ -d "$0/data" ] && "$1/pg_ctl" -D "$0/data" -m immediate -w stop
    rm -rf "$0"
"#;

/// Sends the signal `$1` to the server whose folder is `$0` and to its processes, the main process first: it starts no others then.
const SIGNAL_ALL: &str = r#"
    main="$(head -n 1 "$0/data/postmaster.pid")"
    kill -"$1" "$main"
    for process in $(ps -o pid= --ppid "$main"); do kill -"$1" "$process" || true; done
"#;

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Transactions are rolled back, connections ended, and all data is written to disk.
    Fast,
    /// Processes are ended without a checkpoint, and the next start recovers. Unlike after a power cut, data that was
    /// handed to the operating system is kept.
    Immediate,
}

/// A PostgreSQL server that no other test uses, with settings as durable as in production. It listens on a socket in its
/// folder and runs under an unprivileged account. It is removed with all its data when this is dropped or the process
/// ends.
///
/// All methods block; an async caller uses `spawn_blocking`. On failure they panic with the output of PostgreSQL's
/// programs.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    settings: Vec<(String, String)>,
    _owner: File,
}

impl Server {
    /// A new server with an empty cluster, running. `settings` are added to its own, or replace them.
    #[must_use]
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let mut all: Vec<(String, String)> = Vec::new();
        for (name, value) in SETTINGS.iter().chain(settings) {
            all.retain(|(known, _)| known != name);
            all.push(((*name).to_owned(), (*value).to_owned()));
        }
        let server = Self::in_new_folder(all);
        run(unprivileged(&server.program("initdb"))
            .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username", SERVER_ACCOUNT, "-D"])
            .arg(server.data()));
        server.start_again();
        server
    }

    /// A running standby of this server, by streaming replication, with the same settings.
    #[must_use]
    pub fn standby(&self) -> Self {
        let standby = Self::in_new_folder(self.settings.clone());
        run(unprivileged(&standby.program("pg_basebackup"))
            .args(["--wal-method=stream", "--checkpoint=fast", "--no-sync", "--write-recovery-conf"])
            .arg("--dbname")
            .arg(format!("host={} user={SERVER_ACCOUNT} application_name=standby", self.folder.display()))
            .arg("--pgdata")
            .arg(standby.data()));
        standby.start_again();
        standby
    }

    /// Makes a standby the primary. Returns when it accepts writes.
    pub fn promote(&self) {
        run(self.pg_ctl().arg("promote"));
    }

    /// Stops the server.
    pub fn stop(&self, how: Stop) {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        run(self.pg_ctl().args(["-m", mode, "stop"]));
    }

    /// Starts a server that was stopped. Returns after recovery, when it accepts connections.
    pub fn start_again(&self) {
        let settings: String = self.settings.iter().map(|(name, value)| format!("-c {name}='{value}' ")).collect();
        run(self
            .pg_ctl()
            .arg("-o")
            .arg(format!("{settings} -k '{}'", self.folder.display()))
            .arg("-l")
            .arg(self.data().join("log"))
            .arg("start"));
    }

    /// Stops the server and starts it again.
    pub fn restart(&self, how: Stop) {
        self.stop(how);
        self.start_again();
    }

    /// Kills one of its backends with SIGKILL, as the kernel does when memory runs out. The server then ends all others and
    /// recovers as after an immediate stop, without a restart of its main process.
    pub fn kill_backend(&self, pid: i32) {
        run(unprivileged(Path::new("sh")).args(["-c", "kill -KILL \"$0\""]).arg(pid.to_string()));
    }

    /// Lets none of its processes run until the answer is dropped, as when its machine hangs: connections stay open and can be made,
    /// and nothing answers.
    #[must_use]
    pub fn freeze(&self) -> Frozen<'_> {
        self.signal_all("STOP");
        Frozen(self)
    }

    fn signal_all(&self, signal: &str) {
        run(unprivileged(Path::new("sh")).args(["-c", SIGNAL_ALL]).arg(&self.folder).arg(signal));
    }

    /// The URL of one of its databases. A new server has the database `postgres`.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        Self::url_at(&self.folder, database)
    }

    /// The URL of a database through the server's own pooler, a pgbouncer in transaction mode that ends with it.
    ///
    /// # Panics
    /// If pgbouncer is not installed; the message says what to install.
    #[must_use]
    pub fn url_through_pooler(&self, database: &str) -> String {
        let options = PgConnectOptions::new_without_pgpass().socket(&self.folder).username(SERVER_ACCOUNT).password("");
        pooler::begin(&self.folder, options.get_port(), SERVER_ACCOUNT);
        options.port(pooler::PORT).database(database).to_url_lossy().to_string()
    }

    /// The URL of a database of the server whose socket is in `folder`, which may be a link.
    #[must_use]
    pub fn url_at(folder: &Path, database: &str) -> String {
        let options = PgConnectOptions::new_without_pgpass().socket(folder).username(SERVER_ACCOUNT).password("");
        options.database(database).to_url_lossy().to_string()
    }

    /// The folder of its socket.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn in_new_folder(settings: Vec<(String, String)>) -> Self {
        let name = format!("annals-server-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let folder = std::env::temp_dir().join(name);
        // Created by the server's account, so that the watchdog, which runs under it, can remove it.
        run(unprivileged(Path::new("mkdir")).arg(&folder));
        let owner = File::create(folder.join("owner")).expect("the folder can be written");
        // The watchdog locks it too.
        owner.set_permissions(std::fs::Permissions::from_mode(0o666)).expect("the file is ours");
        owner.lock().expect("files can be locked");
        // In its own session, so that an interrupted run does not end it.
        let mut watchdog = unprivileged(Path::new("setsid"));
        watchdog.args(["--fork", "sh", "-c", WATCHDOG]).arg(&folder).arg(binaries::folder());
        watchdog.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(watchdog.status().is_ok_and(|status| status.success()), "the watchdog does not start: {watchdog:?}");
        Self { folder, settings, _owner: owner }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn program(&self, name: &str) -> PathBuf {
        // The PATH may have links to only some of the programs.
        let control = binaries::folder().join("pg_ctl");
        control.canonicalize().expect("it was found before").with_file_name(name)
    }

    fn pg_ctl(&self) -> Command {
        let mut command = unprivileged(&self.program("pg_ctl"));
        command.args(["-w", "-s", "-t", SECONDS, "-D"]).arg(self.data());
        command
    }
}

/// A server that does not run: see [`Server::freeze`].
#[derive(Debug)]
pub struct Frozen<'s>(&'s Server);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.signal_all("CONT");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        pooler::end(&self.folder);
        // It may be stopped, or may never have started.
        let stopping = self.pg_ctl().args(["-m", "immediate", "stop"]).stderr(Stdio::null()).status();
        if let Err(error) = stopping.and_then(|_| std::fs::remove_dir_all(&self.folder)) {
            eprintln!("the server in `{}` is left to its watchdog: {error}", self.folder.display());
        }
    }
}

#[cfg(test)]
mod tests;
