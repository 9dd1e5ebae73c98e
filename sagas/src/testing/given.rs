//! Given / when / then for sagas: a definition and its input, answers of services and people, the expected calls and the end.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_eventstore::{Clock, Event, ManualClock, MemoryStore};
use annals_resilience::IdempotencyKey;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::world::recorded;
use crate::call::StepError;
use crate::calls::{Calls, Remote};
use crate::definition::{Definition, Kind, SagaData, Undo};
use crate::engine::{Engine, SagaStatus};
use crate::error::{SagaError, chain};
use crate::event::{Direction, Intervention, SagaEvent};
use crate::instance::{SagaId, Status};
use crate::person::By;
use crate::plan::{Due, Outcome, after};

/// Begins a test of one path of the saga that `saga` makes, started with `input`. Its calls are answered by the test and
/// never made, and time passes only where the test says so. The store, for local steps, is in memory.
///
/// ```
/// use annals_resilience::Policy;
/// use annals_sagas::testing::given;
/// use annals_sagas::{Call, Definition, Saga, Status, StepError};
/// use std::time::Duration;
///
/// # async fn charge(_call: Call) -> Result<u32, StepError> { unreachable!("no call is made") }
/// # async fn refund(_call: Call) -> Result<(), StepError> { unreachable!("no call is made") }
/// # async fn ship(_call: Call) -> Result<(), StepError> { unreachable!("no call is made") }
/// // The data is the number of the payment.
/// fn order() -> Definition<Option<u32>> {
///     let policy = Policy::medium("payments").build().expect("it is sound");
///     Saga::<Option<u32>>::new("order")
///         .remote("charge", &policy, |_, call| charge(call))
///         .keep(|payment, number: u32| *payment = Some(number))
///         .undo(|_, call| refund(call))
///         .signal::<String>("packed")
///         .approval("release")
///         .remote("ship", &policy, |_, call| ship(call))
///         .no_undo("a parcel that is sent is sent")
///         .build()
///         .expect("it is sound")
/// }
///
/// given(None, |_store| order())
///     .fails("charge", StepError::transient("the bank is closed"))
///     .answers("charge", 4711)
///     .when_time_passed(Duration::from_secs(1))
///     .then_calls(["charge do", "charge do"])
///     .then_waits_at("packed")
///     .when_signalled("packed", "by Bob")
///     .when_rejected("release", "ada")
///     .then_calls(["charge do", "charge do", "charge undo"])
///     .then_status(Status::Compensated)
///     .then_data(|payment| assert_eq!(*payment, Some(4711)));
/// ```
///
/// # Panics
/// If the input cannot be recorded.
#[track_caller]
#[must_use = "nothing is checked before `then_calls` and its like"]
pub fn given<C: SagaData>(input: C, saga: impl FnOnce(&MemoryStore) -> Definition<C>) -> SagaTest<C> {
    let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
    let store = MemoryStore::builder().clock(Arc::clone(&clock)).build();
    let answers = Arc::new(Answers::default());
    let engine = Engine::new(store.clone(), saga(&store), Arc::clone(&clock));
    let engine = Engine { calls: answers.clone(), ..engine };
    let test = SagaTest { engine, store, clock, answers, id: SagaId::new("given").expect("it is an id") };
    test.run(test.engine.start(&test.id, input));
    test
}

/// What services will answer to the calls of a step, in order.
#[derive(Default)]
struct Answers(Mutex<BTreeMap<(String, Direction), VecDeque<Outcome>>>);

impl<C: SagaData> Calls<C> for Answers {
    fn call<'a>(
        &'a self,
        remote: Remote<'a, C>,
        due: &'a Due,
        _data: Arc<C>,
        _key: IdempotencyKey,
    ) -> BoxFuture<'a, Result<Outcome, SagaError>> {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.get_mut(&(remote.step.to_owned(), due.direction)).and_then(VecDeque::pop_front);
        async move { Ok(answer.unwrap_or(Outcome::Succeeded(Value::Null))) }.boxed()
    }
}

/// A saga under test; created by [`given`]. What is due is done when the next `when_..` or `then_..` is reached, so answers stand
/// before these.
pub struct SagaTest<C> {
    engine: Engine<C>,
    store: MemoryStore,
    clock: Arc<ManualClock>,
    answers: Arc<Answers>,
    id: SagaId,
}

impl<C: SagaData> SagaTest<C> {
    /// The next call of a remote step succeeds and gives `output`. A call for which nothing is left to answer succeeds and gives
    /// nothing (`()`).
    ///
    /// # Panics
    /// If the saga has no such remote step.
    #[track_caller]
    #[must_use = "nothing is checked before `then_calls` and its like"]
    pub fn answers(self, step: &str, output: impl Serialize) -> Self {
        let output = serde_json::to_value(output).unwrap_or_else(|e| panic!("the answer of `{step}` is no JSON: {e}"));
        self.answer(step, Direction::Do, Outcome::Succeeded(output))
    }

    /// The next call of a remote step fails: it is refused, not possible now, or of unknown outcome.
    ///
    /// # Panics
    /// If the saga has no such remote step.
    #[track_caller]
    #[must_use = "nothing is checked before `then_calls` and its like"]
    pub fn fails(self, step: &str, error: StepError) -> Self {
        self.answer(step, Direction::Do, Outcome::of(error))
    }

    /// The next call that undoes a step fails.
    ///
    /// # Panics
    /// If the saga has no such step, or none that is undone by a call.
    #[track_caller]
    #[must_use = "nothing is checked before `then_calls` and its like"]
    pub fn undo_fails(self, step: &str, error: StepError) -> Self {
        self.answer(step, Direction::Undo, Outcome::of(error))
    }

    #[track_caller]
    fn answer(self, step: &str, direction: Direction, outcome: Outcome) -> Self {
        let definition = self.engine.definition();
        let is_called = definition.find(step).is_some_and(|step| match direction {
            Direction::Do => matches!(step.kind, Kind::Remote(..)),
            Direction::Undo => matches!(step.undo, Undo::Remote(..)),
        });
        assert!(is_called, "no service is called for `{step} {direction}`; the steps are\n{}", definition.outline());
        let mut answers = self.answers.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.entry((step.to_owned(), direction)).or_default().push_back(outcome);
        drop(answers);
        self
    }

    /// So much time passes. Retries, timers and limits in between are acted on, each at its time.
    ///
    /// # Panics
    /// As of [`SagaTest::then_calls`], if the saga cannot go on.
    #[track_caller]
    pub fn when_time_passed(self, time: Duration) -> Self {
        let end = after(self.clock.now(), time);
        self.run(async {
            loop {
                let (wake_at, now) = (self.engine.run(&self.id).await?.wake_at, self.clock.now());
                match wake_at.filter(|at| *at > now && *at < end) {
                    Some(at) => self.clock.set(at),
                    None => return Ok(()),
                }
            }
        });
        self.clock.set(end);
        self
    }

    /// The signal that a step waits for, now or later, comes.
    ///
    /// # Panics
    /// If [`Engine::signal`] refuses it, with the reason.
    #[track_caller]
    pub fn when_signalled(self, step: &str, payload: impl Serialize) -> Self {
        let payload = serde_json::to_value(payload).unwrap_or_else(|e| panic!("the payload is no JSON: {e}"));
        self.when(self.engine.signal(&self.id, step, payload));
        self
    }

    /// A person approves a step.
    ///
    /// # Panics
    /// As of [`SagaTest::when_intervened`].
    #[track_caller]
    pub fn when_approved(self, step: &str, actor: &str) -> Self {
        self.when_intervened(Intervention::Approve { step: step.to_owned() }, actor)
    }

    /// A person rejects a step.
    ///
    /// # Panics
    /// As of [`SagaTest::when_intervened`].
    #[track_caller]
    pub fn when_rejected(self, step: &str, actor: &str) -> Self {
        self.when_intervened(Intervention::Reject { step: step.to_owned() }, actor)
    }

    /// A person decides: cancels the saga, say.
    ///
    /// # Panics
    /// If [`Engine::intervene`] refuses it, with the reason.
    #[track_caller]
    pub fn when_intervened(self, what: Intervention, actor: &str) -> Self {
        let by = By::new(actor, "the test says so").unwrap_or_else(|e| panic!("{e}"));
        self.when(self.engine.intervene(&self.id, what, &by));
        self
    }

    /// Checks all calls so far, in order: `charge do` or `charge undo`, each attempt once. Commands of local steps are calls too.
    ///
    /// # Panics
    /// If there are others, with what was recorded; or if the saga cannot go on, as an answer does not fit its step.
    #[track_caller]
    pub fn then_calls<const N: usize>(self, expected: [&str; N]) -> Self {
        self.settled();
        let calls: Vec<_> = self.recorded().iter().filter_map(|event| self.call_in(event)).collect();
        self.check("calls", &expected.as_slice(), &calls.as_slice(), calls == expected)
    }

    /// Checks where the saga stands.
    ///
    /// # Panics
    /// If it stands elsewhere, and as of [`SagaTest::then_calls`].
    #[track_caller]
    pub fn then_status(self, expected: Status) -> Self {
        let found = self.settled().status;
        self.check("status", &expected, &found, found == expected)
    }

    /// Checks at which step the saga waits: for a signal, a person, a time or the next attempt.
    ///
    /// # Panics
    /// If it waits elsewhere or not at all, and as of [`SagaTest::then_calls`].
    #[track_caller]
    pub fn then_waits_at(self, step: &str) -> Self {
        let found = self.settled().waits_at;
        let found = found.as_deref().unwrap_or("(no step)");
        self.check("step that it waits at", &step, &found, found == step)
    }

    /// Checks the data: the input, with what its steps have kept.
    ///
    /// # Panics
    /// If `look` does, and as of [`SagaTest::then_calls`].
    #[track_caller]
    pub fn then_data(self, look: impl FnOnce(&C)) -> Self {
        self.settled();
        look(&self.run(self.engine.data(&self.id)));
        self
    }

    /// The store, to see what local steps have done.
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    #[track_caller]
    fn check(self, what: &str, expected: &dyn Debug, found: &dyn Debug, is_same: bool) -> Self {
        assert!(is_same, "not the expected {what}\nexpected: {expected:?}\n   found: {found:?}\n{}", self.history());
        self
    }

    /// What is due is done, then this.
    #[track_caller]
    fn when(&self, act: impl Future<Output = Result<(), SagaError>> + Send) {
        self.settled();
        self.run(act);
    }

    #[track_caller]
    fn settled(&self) -> SagaStatus {
        self.run(self.engine.run(&self.id))
    }

    #[track_caller]
    fn run<T: Send>(&self, act: impl Future<Output = Result<T, SagaError>> + Send) -> T {
        block_on(act).unwrap_or_else(|e| panic!("{}\n{}", chain(&e), self.history()))
    }

    fn call_in(&self, event: &SagaEvent) -> Option<String> {
        let is_local = |step: &str, direction| {
            self.engine.definition().find(step).is_some_and(|step| match direction {
                Direction::Do => matches!(step.kind, Kind::Local(_)),
                Direction::Undo => matches!(step.undo, Undo::Local(_)),
            })
        };
        match event {
            SagaEvent::Begun { step, direction, .. } => Some(format!("{step} {direction}")),
            SagaEvent::Succeeded { step, direction, .. } | SagaEvent::Refused { step, direction, .. } => {
                is_local(step, *direction).then(|| format!("{step} {direction}"))
            }
            _ => None,
        }
    }

    fn recorded(&self) -> Vec<SagaEvent> {
        block_on(recorded(&self.store, &self.id)).unwrap_or_default()
    }

    /// What has happened, an event a line.
    fn history(&self) -> String {
        let line = |event: &SagaEvent| {
            let payload = event.encode().map_or_else(|e| e.to_string(), |payload| payload.as_str().to_owned());
            format!("\n  {} {payload}", event.shape().name)
        };
        format!("recorded:{}", self.recorded().iter().map(line).collect::<String>())
    }
}

/// On a thread of its own, as the test may run in a runtime itself.
fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime without I/O needs nothing").block_on(future)
    };
    let ended = std::thread::scope(|scope| scope.spawn(run).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
