use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::pulse::Pulse;
use super::report::Status;

/// A thread that gives the runtime small tasks and looks whether they run.
#[derive(Debug)]
pub(super) struct Live {
    alive: Reader,
    /// Dropping it ends the thread.
    _stop: Sender<()>,
}

/// Reads what the thread saw last.
#[derive(Debug, Clone)]
pub(super) struct Reader(Arc<AtomicBool>);

impl Reader {
    pub(super) fn status(&self) -> Status {
        if self.0.load(Ordering::Relaxed) { Status::Up } else { Status::Down }
    }
}

impl Live {
    pub(super) fn start(runtime: Handle, limit: Duration) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let alive = Reader(Arc::new(AtomicBool::new(true)));
        let reader = alive.clone();
        let mut pulse = Pulse::new(limit);
        let watch = move || {
            let ran = Arc::new(AtomicBool::new(true));
            let mut last = Instant::now();
            while stopped.recv_timeout(pulse.interval()) == Err(RecvTimeoutError::Timeout) {
                let now = Instant::now();
                let has_run = ran.load(Ordering::Acquire);
                pulse.look(now - last, has_run);
                last = now;
                if reader.0.swap(pulse.alive(), Ordering::Relaxed) != pulse.alive() {
                    report(pulse.alive(), limit);
                }
                if has_run {
                    // Given from outside, the task goes to whichever worker is free: neither one blocked worker of
                    // several nor a timer that no worker looks at keeps it from running.
                    ran.store(false, Ordering::Release);
                    let ran = ran.clone();
                    runtime.spawn(async move { ran.store(true, Ordering::Release) });
                }
            }
        };
        std::thread::Builder::new().name("health-watch".to_owned()).spawn(watch)?;
        Ok(Self { alive, _stop: stop })
    }

    pub(super) fn status(&self) -> Status {
        self.alive.status()
    }

    pub(super) fn reader(&self) -> Reader {
        self.alive.clone()
    }
}

fn report(alive: bool, limit: Duration) {
    if alive {
        tracing::info!("the runtime runs tasks again");
    } else {
        tracing::error!(?limit, "the runtime ran no task for the time that the heartbeat allows: a task blocks it");
    }
}
