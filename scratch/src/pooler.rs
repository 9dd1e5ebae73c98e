//! A pgbouncer in transaction mode in front of the cluster: started on demand, stopped with the cluster.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::binaries;
use crate::cluster::{run, unprivileged};

/// The number in the name of its socket.
pub(crate) const PORT: u16 = 6432;

/// Two server connections per database are fewer than a handle has. So transactions of one client use several of them, and
/// several clients use one. `extra_float_digits` is a connection parameter of sqlx that pgbouncer does not know. After a
/// failed connection to the server it retries soon.
const SETTINGS: &str = "
auth_type = any
pool_mode = transaction
default_pool_size = 2
max_client_conn = 2000
listen_port = 6432
ignore_startup_parameters = extra_float_digits
server_login_retry = 0.1
";

/// How long it may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts it in `folder` unless it runs, in front of the cluster whose socket there has the number `port`. The caller
/// holds the lock of the folder.
///
/// # Panics
/// If it is not installed or does not start.
pub(crate) fn begin(folder: &Path, port: u16, account: &str) {
    let socket = folder.join(format!(".s.PGSQL.{PORT}"));
    let answers = || UnixStream::connect(&socket).is_ok();
    if answers() {
        return;
    }
    // A killed one leaves its socket.
    for leftover in [&socket, &folder.join("pooler.pid")] {
        if leftover.exists() {
            std::fs::remove_file(leftover).expect("the files of an earlier pooler can be removed");
        }
    }
    let at = folder.display();
    let settings = format!(
        "[databases]\n* = host={at} port={port} user={account}\n[pgbouncer]\n{SETTINGS}unix_socket_dir = {at}\n\
         pidfile = {at}/pooler.pid\nlogfile = {at}/pooler.log\n"
    );
    let file = folder.join("pooler.ini");
    std::fs::write(&file, settings).expect("the folder is ours");
    run(unprivileged(&binaries::pooler()).args(["--daemon", "--quiet"]).arg(&file));
    // It daemonizes before it listens.
    let begun = Instant::now();
    while !answers() {
        assert!(begun.elapsed() < START_TIMEOUT, "pgbouncer does not answer; see {at}/pooler.log");
        std::thread::yield_now();
    }
}

/// Kills the one in `folder`, if there is one.
pub(crate) fn end(folder: &Path) {
    if let Ok(pid) = std::fs::read_to_string(folder.join("pooler.pid")) {
        run(unprivileged(Path::new("kill")).args(["-KILL", pid.trim()]));
    }
}
