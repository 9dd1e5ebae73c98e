//! One run: the calls fail and the process ends as the schedule says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use annals_eventstore::{Clock, ErrorFamily, EventStoreExt, MemoryStore, Parts};
use annals_resilience::{Deadline, IdempotencyKey};
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::schedule::{Choice, Point, Schedule};
use crate::call::{Call, StepError};
use crate::calls::{Calls, Remote};
use crate::definition::{Definition, SagaData};
use crate::engine::{Engine, SagaStatus};
use crate::error::SagaError;
use crate::event::{Direction, SagaEvent};
use crate::instance::SagaId;
use crate::plan::{Due, Outcome};

/// A run that has made so many appends and calls does not end.
const MOST_POINTS: usize = 2_000;

/// What happened in a run.
pub(crate) struct Ran {
    pub(crate) status: Result<SagaStatus, String>,
    pub(crate) events: Vec<SagaEvent>,
    /// Every point, in order.
    pub(crate) points: Vec<Point>,
    /// The key of each step and direction.
    pub(crate) keys: Vec<((String, Direction), String)>,
}

type Choose = Box<dyn FnMut(usize, &Point) -> Choice + Send>;

/// The shared part of a run: the schedule, and what has happened so far.
struct Script {
    choose: Mutex<Choose>,
    points: Mutex<Vec<Point>>,
    keys: Mutex<BTreeMap<(String, Direction, u32, usize), String>>,
    crashed: Mutex<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Script {
    fn choose(&self, point: Point) -> (usize, Choice) {
        let mut points = lock(&self.points);
        let number = points.len();
        let choice = lock(&self.choose)(number, &point);
        points.push(point);
        (number, choice)
    }

    fn crash(&self) -> SagaError {
        *lock(&self.crashed) = true;
        ended("the process ended here")
    }
}

fn ended(why: &'static str) -> SagaError {
    SagaError::Record {
        id: SagaId::new("explored").expect("it is an id"),
        family: ErrorFamily::Broken,
        source: why.into(),
    }
}

/// Appends and calls under a script.
struct Scripted {
    script: Arc<Script>,
    after_append: Mutex<bool>,
}

impl<C: SagaData> Calls<C> for Scripted {
    fn call<'a>(
        &'a self,
        remote: Remote<'a, C>,
        due: &'a Due,
        data: Arc<C>,
        key: IdempotencyKey,
    ) -> BoxFuture<'a, Result<Outcome, SagaError>> {
        async move {
            let step = remote.step.to_owned();
            let (direction, attempt) = (due.direction, due.attempt);
            let point = Point::Call { step: step.clone(), direction, attempt };
            let (number, choice) = self.script.choose(point);
            lock(&self.script.keys).insert((step, direction, attempt, number), key.as_str().to_owned());
            let call = || {
                let call = Call { key: key.clone(), deadline: Deadline::NONE, attempt };
                (remote.action)(data.clone(), call).map(|result| result.map_or_else(Outcome::of, Outcome::Succeeded))
            };
            Ok(match choice {
                Choice::Refused => Outcome::of(StepError::refused("as scheduled")),
                Choice::Transient => Outcome::of(StepError::transient("as scheduled")),
                Choice::LostCall => Outcome::of(StepError::unknown("as scheduled")),
                Choice::LostAnswer => {
                    call().await;
                    Outcome::of(StepError::unknown("as scheduled"))
                }
                Choice::Twice => {
                    call().await;
                    call().await
                }
                Choice::Usual | Choice::CrashBefore | Choice::CrashAfter => call().await,
            })
        }
        .boxed()
    }

    fn before_append(&self) -> Result<(), SagaError> {
        let (number, choice) = self.script.choose(Point::Append);
        if number > MOST_POINTS {
            return Err(ended("it made so many appends and calls that it seems not to end"));
        }
        *lock(&self.after_append) = choice == Choice::CrashAfter;
        if choice == Choice::CrashBefore { Err(self.script.crash()) } else { Ok(()) }
    }

    fn after_append(&self) -> Result<(), SagaError> {
        if std::mem::take(&mut *lock(&self.after_append)) { Err(self.script.crash()) } else { Ok(()) }
    }
}

/// The clock of a runtime whose time is paused.
#[derive(Clone)]
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        let since = SignedDuration::try_from(self.0.elapsed()).unwrap_or(SignedDuration::MAX);
        Timestamp::UNIX_EPOCH.saturating_add(since).unwrap_or(Timestamp::MAX)
    }
}

/// Runs one instance to its end. `choose` says what happens at each point, by its number.
pub(crate) fn run<C: SagaData>(
    definition: impl FnOnce(&MemoryStore) -> Definition<C>,
    input: C,
    choose: impl FnMut(usize, &Point) -> Choice + Send + 'static,
) -> Ran {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing");
    let script = Arc::new(Script {
        choose: Mutex::new(Box::new(choose)),
        points: Mutex::default(),
        keys: Mutex::default(),
        crashed: Mutex::default(),
    });
    let (status, events) = runtime.block_on(async {
        let store = MemoryStore::new();
        let clock = PausedClock(Instant::now());
        let definition = definition(&store);
        let id = SagaId::new("explored").expect("it is an id");
        loop {
            let engine = Engine::new(store.clone(), definition.clone(), clock.clone());
            let scripted = Scripted { script: script.clone(), after_append: Mutex::default() };
            let engine = Engine { calls: Arc::new(scripted), ..engine };
            let ran = async {
                engine.start(&id, input.clone()).await?;
                engine.run_to_end(&id).await
            };
            let result = ran.await;
            if result.is_err() && std::mem::take(&mut *lock(&script.crashed)) {
                continue;
            }
            let events: Vec<Parts<SagaEvent>> = match engine.instances.stream(&id) {
                Ok(stream) => {
                    let decode = |event: annals_eventstore::RecordedEvent| async move { event.decode() };
                    store.load(&stream).and_then(decode).try_collect().await.unwrap_or_default()
                }
                Err(_) => Vec::new(),
            };
            return (result.map_err(text), events.into_iter().flatten().collect());
        }
    });
    let keys = std::mem::take(&mut *lock(&script.keys));
    let points = std::mem::take(&mut *lock(&script.points));
    let keys = keys.into_iter().map(|((step, direction, ..), key)| ((step, direction), key)).collect();
    Ran { status, events, points, keys }
}

fn text(error: SagaError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// The choices of a schedule, as [`run`] asks for them.
pub(crate) fn follow(schedule: &Schedule) -> impl FnMut(usize, &Point) -> Choice + Send + 'static {
    let choices = schedule.0.clone();
    move |number, point| {
        let choice = choices.get(&number).and_then(|&choice| point.choices().get(choice));
        choice.copied().unwrap_or(Choice::Usual)
    }
}
