//! Runner processes.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::projected::{Projected, SLOTS};

/// A process that runs the projection. It is killed when this is dropped.
pub(crate) struct Runner {
    pub(crate) name: String,
    child: Child,
}

impl Runner {
    pub(crate) fn start(projected: &Projected, name: &str, lease: Duration) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_annals-drive"));
        command.args(["run", "--projection", "sum", "--db", &projected.url, "--name", name]);
        command.args(["--slots", &SLOTS.to_string(), "--lease-ms", &lease.as_millis().to_string()]);
        let child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        Self { name: name.to_owned(), child }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("it ended");
    }

    /// SIGSTOP.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM. Returns when it has ended, by itself and without an error.
    pub(crate) fn end(mut self) {
        self.signal(Signal::TERM);
        let status = self.child.wait().expect("it ends");
        let printed = std::io::read_to_string(self.child.stdout.take().expect("a pipe")).expect("it prints text");
        assert!(status.success(), "{} ended with {status}: {printed}", self.name);
        let operations = printed.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in `{line}`"));
            line["op"].as_str().expect("text").to_owned()
        });
        let operations: Vec<String> = operations.collect();
        assert_eq!(operations.first().map(String::as_str), Some("run"), "{printed}");
        assert_eq!(operations.last().map(String::as_str), Some("end"), "{printed}");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is there");
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // Those that have ended are gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
