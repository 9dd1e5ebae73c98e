//! A pgbouncer in transaction mode before the cluster: started by the first that asks, stopped with the cluster.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::binaries;
use crate::cluster::{run, unprivileged};

/// The number in the name of its socket.
pub(crate) const PORT: u16 = 6432;

/// It lends two server connections per database: fewer than a handle has, so that transactions of one client go over
/// several of them, and several clients over one. Like most that serve sqlx, it swallows a parameter of connections. A
/// server that could not be reached is tried again soon.
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
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts it in `folder`, before the cluster whose socket there has the number `port`, unless it runs. The caller has
/// the lock of the folder.
///
/// # Panics
/// If it is not installed or does not start.
pub(crate) fn begin(folder: &Path, port: u16, account: &str) {
    let socket = folder.join(format!(".s.PGSQL.{PORT}"));
    let answers = || UnixStream::connect(&socket).is_ok();
    if answers() {
        return;
    }
    // One that was killed leaves its socket behind.
    for left_over in [&socket, &folder.join("pooler.pid")] {
        if left_over.exists() {
            std::fs::remove_file(left_over).expect("what a pooler before has left can be removed");
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
    // It goes to the background before it listens.
    let begun = Instant::now();
    while !answers() {
        assert!(begun.elapsed() < PATIENCE, "pgbouncer does not answer; see {at}/pooler.log");
        std::thread::yield_now();
    }
}

/// Kills the one in `folder`, if there is one.
pub(crate) fn end(folder: &Path) {
    if let Ok(pid) = std::fs::read_to_string(folder.join("pooler.pid")) {
        run(unprivileged(Path::new("kill")).args(["-KILL", pid.trim()]));
    }
}
