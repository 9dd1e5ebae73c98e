//! One run: the calls fail and the process ends as the schedule says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_eventstore::{Clock, ErrorFamily, MemoryStore, ReadError, Tenant};
use annals_resilience::{Deadline, IdempotencyKey};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::schedule::{Choice, Point, Schedule};
use crate::call::StepError;
use crate::calls::{Calls, Remote};
use crate::definition::{Definition, SagaData};
use crate::engine::{Engine, SagaStatus};
use crate::error::SagaError;
use crate::event::{Direction, SagaEvent};
use crate::flow::timeline;
use crate::instance::SagaId;
use crate::person::By;
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
    /// The steps that nobody approves or rejects.
    unanswered: Mutex<BTreeSet<String>>,
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
                let call = remote.call_of(key.clone(), Deadline::NONE, attempt);
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
                Choice::Usual | Choice::Unanswered | Choice::CrashBefore | Choice::CrashAfter => call().await,
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
pub(crate) struct PausedClock(Instant);

impl PausedClock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    #[cfg(test)]
    pub(crate) fn since(&self) -> Instant {
        self.0
    }
}

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
        unanswered: Mutex::default(),
    });
    let (status, events) = runtime.block_on(async {
        let store = MemoryStore::new();
        let clock = PausedClock::new();
        let definition = definition(&store);
        let id = SagaId::new("explored").expect("it is an id");
        loop {
            let engine = Engine::new(store.clone(), definition.clone(), clock.clone());
            let scripted = Scripted { script: script.clone(), after_append: Mutex::default() };
            let engine = Engine { calls: Arc::new(scripted), ..engine };
            let ran = async {
                engine.start(&id, input.clone()).await?;
                loop {
                    let status = engine.run(&id).await?;
                    if answer(&script, &engine, &id).await? {
                        continue;
                    }
                    let Some(wake_at) = status.wake_at else { return Ok(status) };
                    let wait = wake_at.duration_since(engine.clock.now());
                    tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
                }
            };
            let result = ran.await;
            if result.is_err() && std::mem::take(&mut *lock(&script.crashed)) {
                continue;
            }
            let events = recorded(&store, &id).await.unwrap_or_default();
            return (result.map_err(text), events);
        }
    });
    let keys = std::mem::take(&mut *lock(&script.keys));
    let points = std::mem::take(&mut *lock(&script.points));
    let keys = keys.into_iter().map(|((step, direction, ..), key)| ((step, direction), key)).collect();
    Ran { status, events, points, keys }
}

/// What is recorded of an instance.
pub(crate) async fn recorded(store: &MemoryStore, id: &SagaId) -> Result<Vec<SagaEvent>, ReadError> {
    let events = timeline(store, &Tenant::default(), id).await?;
    Ok(events.into_iter().map(|event| event.event).collect())
}

/// Answers a step that asks for approval, as the script says; whether there was one.
async fn answer<C: SagaData>(script: &Script, engine: &Engine<C>, id: &SagaId) -> Result<bool, SagaError> {
    let instance = engine.load(id).await?;
    let asks = instance.asks().find(|(step, _)| !lock(&script.unanswered).contains(*step));
    let Some((step, state)) = asks else { return Ok(false) };
    let (_, choice) = script.choose(Point::Ask { step: step.clone(), limited: state.due.is_some() });
    let by = |actor: &str| By::new(actor, "as scheduled");
    match choice {
        Choice::Unanswered => {
            lock(&script.unanswered).insert(step.clone());
        }
        Choice::Refused => engine.reject(id, step, &by("ada")?).await?,
        Choice::Twice => {
            let click = by("ada")?.request(step.as_str());
            engine.approve(id, step, &click).await?;
            engine.approve(id, step, &click).await?;
            match engine.reject(id, step, &by("bob")?).await {
                Err(SagaError::WrongStatus { .. }) => {}
                Ok(()) => return Err(ended("what was approved was rejected")),
                Err(error) => return Err(error),
            }
        }
        _ => engine.approve(id, step, &by("ada")?).await?,
    }
    Ok(true)
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
