//! A reactor that does what a test says, and writes down what it was asked for.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_eventstore::{Position, Recorded};
use tokio::time::{Instant, sleep};

use crate::tests::accounts::AccountEvent;
use crate::tests::fixture::Fixture;
use crate::{EffectKey, Projections, Reactor, ReactorError, ReactorState};

/// What becomes of a call.
#[derive(Clone, Copy)]
pub(crate) enum Act {
    Done,
    Slow(Duration),
    Transient,
    Permanent,
    Panic,
    Hang,
}

/// A call that was begun.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) stream: String,
    pub(crate) version: i64,
    pub(crate) key: String,
    /// How often this event was tried, with this call.
    pub(crate) nth: usize,
    pub(crate) at: Instant,
}

type Script = dyn Fn(&Call) -> Act + Send + Sync;

#[derive(Clone)]
pub(crate) struct Mailer {
    script: Arc<Script>,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    calls: Vec<Call>,
    done: Vec<(String, i64)>,
    running: HashSet<String>,
    most: usize,
}

impl Mailer {
    pub(crate) fn new(script: impl Fn(&Call) -> Act + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(script), log: Arc::default() }
    }

    /// One that another process has: it writes to the same log.
    pub(super) fn then(&self, script: impl Fn(&Call) -> Act + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(script), log: Arc::clone(&self.log) }
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().expect("no test panics while it holds the lock")
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.log().calls.clone()
    }

    /// The versions of `stream` for which it was called, in turn.
    pub(super) fn calls_of(&self, stream: &str) -> Vec<i64> {
        self.log().calls.iter().filter(|call| call.stream == stream).map(|call| call.version).collect()
    }

    /// The versions of `stream` that were handled, in turn.
    pub(super) fn done_of(&self, stream: &str) -> Vec<i64> {
        self.log().done.iter().filter(|(of, _)| of == stream).map(|(_, version)| *version).collect()
    }

    pub(super) fn done(&self) -> usize {
        self.log().done.len()
    }

    /// The most that were running at a time.
    pub(super) fn most(&self) -> usize {
        self.log().most
    }

    /// The keys of the calls for one event.
    pub(super) fn keys_of(&self, stream: &str, version: i64) -> HashSet<String> {
        let log = self.log();
        let of = log.calls.iter().filter(|call| call.stream == stream && call.version == version);
        of.map(|call| call.key.clone()).collect()
    }

    /// How long after each other the tries of one event began.
    pub(super) fn waits_of(&self, stream: &str, version: i64) -> Vec<Duration> {
        let calls = self.calls();
        let tries: Vec<&Call> = calls.iter().filter(|call| call.stream == stream && call.version == version).collect();
        tries.windows(2).map(|pair| pair[1].at - pair[0].at).collect()
    }
}

/// A call that runs.
struct Running(Mailer, String);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.log().running.remove(&self.1);
    }
}

impl Reactor for Mailer {
    type Event = AccountEvent;
    const NAME: &'static str = "mailer";

    async fn react(&self, event: &Recorded<AccountEvent>, key: &EffectKey) -> Result<(), ReactorError> {
        let (stream, version) = (event.stream.aggregate_id().to_owned(), event.version.get());
        let call = {
            let mut log = self.log();
            let nth = log.calls.iter().filter(|call| call.stream == stream && call.version == version).count() + 1;
            let call = Call { stream: stream.clone(), version, key: key.to_string(), nth, at: Instant::now() };
            log.calls.push(call.clone());
            assert!(log.running.insert(stream.clone()), "two events of one stream are handled at once");
            log.most = log.most.max(log.running.len());
            call
        };
        let running = Running(self.clone(), stream);
        match (self.script)(&call) {
            Act::Done => {}
            Act::Slow(time) => sleep(time).await,
            Act::Transient => return Err(ReactorError::transient("the mail server is busy")),
            Act::Permanent => return Err(ReactorError::permanent("there is no such address")),
            Act::Panic => panic!("the address was none"),
            Act::Hang => std::future::pending().await,
        }
        let Running(mailer, stream) = &running;
        mailer.log().done.push((stream.clone(), call.version));
        Ok(())
    }
}

pub(super) fn paid(times: usize) -> Vec<AccountEvent> {
    vec![AccountEvent::Paid(1); times]
}

pub(super) fn position(n: i64) -> Position {
    Position::new(n).unwrap()
}

pub(super) async fn start(shop: &Fixture, mailer: &Mailer) -> Projections {
    shop.projections().react(mailer.clone()).start().await.unwrap()
}

/// Waits until the reactor has handled everything up to `position`.
pub(super) async fn until_at(views: &Projections, position: Position) {
    until("it is there", || views.reactors()[0].position >= position).await;
}

/// Waits until the lease of the process that ran it before has ended.
pub(super) async fn until_taken_over(views: &Projections) {
    until("it runs here", || !matches!(views.reactors()[0].state, ReactorState::Standby { .. })).await;
}

/// Waits for a condition, a long time of the paused clock at most.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(3_600), "it never comes: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Where the stored checkpoint of the reactor is.
pub(super) async fn stored(shop: &Fixture) -> i64 {
    shop.handle().reactor_checkpoint(Mailer::NAME).await.unwrap().expect("it was started").position.get()
}

/// A process: when `life` ends, it is killed, with all that it was doing.
pub(super) fn process<T>(life: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(life)
}
