//! Declaring a saga, step by step.

use std::future::Future;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::Invalid;
use annals_resilience::Policy;
use futures::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::call::{Call, StepError};
use crate::definition::{self, Action, Definition, Kind, SagaData, Step, Undo};
use crate::local::LocalCommand;
use crate::person::Decision;
use crate::retry::StepRetry;
use crate::text;

/// How long a compensation may take by default.
pub(crate) const COMPENSATION: Duration = Duration::from_secs(24 * 60 * 60);

/// A saga that is being declared: steps in the order in which they run, for the data `C`.
///
/// Before the [pivot](Saga::pivot) each step that has an effect says how it is undone, by `undo` or `no_undo`; nothing else
/// compiles. After it there is no undo: what is refused then waits for a person.
///
/// Each step needs those before it. [`Saga::parallel`] declares branches that run side by side. Steps can only name what was
/// declared before them, so there are no cycles.
#[must_use = "a saga is made by `build`"]
pub struct Saga<C, P = BeforePivot, O = ()> {
    draft: Draft<C>,
    types: PhantomData<fn(P, O)>,
}

/// Steps that are declared here can be undone.
pub enum BeforePivot {}
/// Steps that are declared here cannot be undone.
pub enum AfterPivot {}
/// The last step was remote, and it was not said yet how to undo it: put `.undo(..)` or `.no_undo(why)` behind it.
pub enum NeedsUndo {}
/// The last step was local, and it was not said yet how to undo it: put `.undo(..)` or `.no_undo(why)` behind it.
pub enum NeedsLocalUndo {}

/// The phase of a saga in which a step can be declared: [`BeforePivot`] and [`AfterPivot`].
pub trait Phase: sealed::Sealed {
    /// The phase after a remote step.
    type Remote;
    /// The phase after a local step.
    type Local;
}

impl Phase for BeforePivot {
    type Remote = NeedsUndo;
    type Local = NeedsLocalUndo;
}

impl Phase for AfterPivot {
    type Remote = Self;
    type Local = Self;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::BeforePivot {}
    impl Sealed for super::AfterPivot {}
}

struct Draft<C> {
    name: String,
    steps: Vec<Step<C>>,
    /// The steps that the next one needs.
    last: Vec<usize>,
    deadline: Option<Duration>,
    compensation: Duration,
    /// Whether what was declared last is branches, so that there is no last step.
    joined: bool,
    /// The first word that stands where it would change nothing.
    misplaced: Option<Invalid>,
}

impl<C: SagaData> Draft<C> {
    fn push(&mut self, name: &str, kind: Kind<C>) {
        self.steps.push(Step {
            name: name.to_owned(),
            kind,
            after: std::mem::take(&mut self.last),
            undo: Undo::Nothing(String::new()),
            keep: None,
            retry: None,
            retry_undo: None,
        });
        self.last = vec![self.steps.len() - 1];
        self.joined = false;
    }

    /// Sets something of the last step, if `set` finds that it has it.
    fn of_last(mut self, word: &'static str, set: impl FnOnce(&mut Step<C>) -> Result<(), String>) -> Self {
        let behind = if self.joined { "stands behind branches" } else { "stands behind no step" };
        let set = match self.steps.last_mut().filter(|_| !self.joined) {
            Some(step) => set(step),
            None => Err(behind.to_owned()),
        };
        if let Err(problem) = set {
            let problem = format!("of saga `{}` {problem}", self.name);
            let misplaced = Invalid::new(word, problem, "put it behind the step that it is for, once");
            self.misplaced.get_or_insert(misplaced);
        }
        self
    }

    fn into_saga<P, O>(self) -> Saga<C, P, O> {
        Saga { draft: self, types: PhantomData }
    }
}

impl<C: SagaData> Saga<C> {
    /// A saga without steps. Its name is stored; 1 to 60 visible ASCII characters, no space and no `/`, as those of steps.
    pub fn new(name: &str) -> Self {
        Draft {
            name: name.to_owned(),
            steps: Vec::new(),
            last: Vec::new(),
            deadline: None,
            compensation: COMPENSATION,
            joined: false,
            misplaced: None,
        }
        .into_saga()
    }
}

impl<C: SagaData, P, O> Saga<C, P, O> {
    /// How long an instance may take. Then it is compensated; after the pivot it waits for a person. Without one it may
    /// wait for ever.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.draft.deadline = Some(deadline);
        self
    }

    /// How long a compensation may take before it waits for a person; a day by default.
    pub fn compensation_within(mut self, limit: Duration) -> Self {
        self.draft.compensation = limit;
        self
    }

    /// How often the last step, which is remote, is tried.
    pub fn retry(self, retry: StepRetry) -> Self {
        let draft = self.draft.of_last("retry", |step| {
            step.retry = Some(retry);
            Ok(())
        });
        draft.into_saga()
    }

    /// How often the undo of the last step, which is remote, is tried.
    pub fn retry_undo(self, retry: StepRetry) -> Self {
        let draft = self.draft.of_last("retry_undo", |step| {
            step.retry_undo = Some(retry);
            Ok(())
        });
        draft.into_saga()
    }
}

impl<C: SagaData, P, O: DeserializeOwned + 'static> Saga<C, P, O> {
    /// Keeps what the last step gives in the data, for later steps and for undo. A step that a person skipped gives nothing.
    pub fn keep(self, keep: impl Fn(&mut C, O) + Send + Sync + 'static) -> Saga<C, P, ()> {
        let draft = self.draft.of_last("keep", |step| {
            if step.keep.is_some() || matches!(step.kind, Kind::Pivot) {
                return Err(format!("stands behind `{}`, which gives nothing more to keep", step.name));
            }
            step.keep = Some(Arc::new(move |data, output: Value| {
                keep(data, serde_json::from_value(output)?);
                Ok(())
            }));
            Ok(())
        });
        draft.into_saga()
    }
}

impl<C: SagaData, P: Phase, O> Saga<C, P, O> {
    /// A call of another service, through its policy. It is at least once: hand [`Call::key`] to the service.
    pub fn remote<T, F, Fut>(mut self, name: &str, policy: &Policy, action: F) -> Saga<C, P::Remote, T>
    where
        T: Serialize,
        F: Fn(Arc<C>, Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, StepError>> + Send + 'static,
    {
        self.draft.push(name, Kind::Remote(policy.clone(), boxed(action)));
        self.draft.into_saga()
    }

    /// A command of an aggregate in the same store, see [`command`](crate::command). Its events and the outcome of the step are
    /// one append: it has its effect exactly once.
    pub fn local(
        mut self,
        name: &str,
        action: impl Fn(&C) -> LocalCommand + Send + Sync + 'static,
    ) -> Saga<C, P::Local, ()> {
        self.draft.push(name, Kind::Local(Arc::new(action)));
        self.draft.into_saga()
    }

    /// Waits for [`Engine::signal`](crate::Engine::signal) with a payload of the type `T`. A signal that comes before its step waits for it.
    pub fn signal<T: DeserializeOwned + 'static>(mut self, name: &str) -> Saga<C, P, T> {
        self.draft.push(name, Kind::Signal(|payload| T::deserialize(payload).map(drop)));
        self.draft.into_saga()
    }

    /// Waits for this long, counted from the moment at which the steps before it were done.
    pub fn timer(mut self, name: &str, wait: Duration) -> Saga<C, P, ()> {
        self.draft.push(name, Kind::Timer(wait));
        self.draft.into_saga()
    }

    /// Asks a person, who answers by [`Engine::approve`](crate::Engine::approve) or [`Engine::reject`](crate::Engine::reject). What is
    /// rejected is refused: before the pivot the saga is compensated, after it it is stuck. The step gives who approved it, and why.
    ///
    /// ```
    /// # use annals_sagas::{Decision, Saga};
    /// # use serde::{Deserialize, Serialize};
    /// # use std::time::Duration;
    /// #[derive(Serialize, Deserialize, Clone)]
    /// struct Transfer { cents: u64, released_by: Option<String> }
    ///
    /// let transfer = Saga::<Transfer>::new("transfer")
    ///     .approval("release")
    ///     .within(Duration::from_secs(3 * 24 * 60 * 60))
    ///     .keep(|transfer, decision: Decision| transfer.released_by = Some(decision.actor))
    ///     .build()?;
    /// # assert_eq!(transfer.outline(), "approval release\n");
    /// # Ok::<(), annals_eventstore::Invalid>(())
    /// ```
    pub fn approval(mut self, name: &str) -> Saga<C, P, Decision> {
        self.draft.push(name, Kind::Approval(None));
        self.draft.into_saga()
    }

    /// Branches that run side by side. The next step needs all of them.
    ///
    /// ```
    /// # use annals_sagas::Saga;
    /// # use std::time::Duration;
    /// let saga = Saga::<()>::new("both")
    ///     .parallel(|both| both.branch(|one| one.signal::<u32>("a")).branch(|two| two.signal::<u32>("b")))
    ///     .timer("c", Duration::from_secs(1))
    ///     .build()?;
    /// assert_eq!(saga.outline(), "signal a\nsignal b\ntimer  c, after a and b\n");
    /// # Ok::<(), annals_eventstore::Invalid>(())
    /// ```
    pub fn parallel(self, branches: impl FnOnce(Parallel<C, P>) -> Parallel<C, P>) -> Saga<C, P, ()> {
        let start = self.draft.last.clone();
        let Parallel { mut draft, start, ends, .. } =
            branches(Parallel { draft: self.draft, start, ends: Vec::new(), phase: PhantomData });
        draft.last = if ends.is_empty() { start } else { ends };
        draft.joined = true;
        draft.into_saga()
    }

    /// Checks the saga and makes its definition.
    ///
    /// # Errors
    /// [`Invalid`] that names the field: `saga` or `step` for a name that is none or is used twice, `steps` if there are none,
    /// `attempts` or `first` of a [`StepRetry`]; `timer`, `within`, `deadline` or `compensation_within` for a duration of 0; `no_undo`
    /// without a reason; `keep`, `retry`, `retry_undo` or `within` where it would change nothing.
    pub fn build(self) -> Result<Definition<C>, Invalid> {
        let Draft { name, steps, last: _, deadline, compensation, joined: _, misplaced } = self.draft;
        if let Some(misplaced) = misplaced {
            return Err(misplaced);
        }
        definition::build(name, steps, deadline, compensation)
    }
}

impl<C: SagaData, P: Phase> Saga<C, P, Decision> {
    /// How long the last step, an [`approval`](Saga::approval), can be answered. Then it is refused. Without a limit it waits for ever.
    pub fn within(self, limit: Duration) -> Self {
        let draft = self.draft.of_last("within", |step| match &mut step.kind {
            Kind::Approval(within) => {
                *within = Some(limit);
                Ok(())
            }
            _ => Err(format!("stands behind `{}`, which is no approval", step.name)),
        });
        draft.into_saga()
    }
}

impl<C: SagaData, O> Saga<C, BeforePivot, O> {
    /// The point of no return: it is passed when all steps before it are done, and from then on none of them is undone.
    pub fn pivot(mut self) -> Saga<C, AfterPivot, ()> {
        self.draft.push("pivot", Kind::Pivot);
        self.draft.into_saga()
    }
}

impl<C: SagaData, O> Saga<C, NeedsUndo, O> {
    /// How the last step is undone: also if it is not known whether it was done. The service must accept an undo of what it has
    /// never done, and refuse to do it later.
    pub fn undo<F, Fut>(mut self, action: F) -> Saga<C, BeforePivot, O>
    where
        F: Fn(Arc<C>, Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), StepError>> + Send + 'static,
    {
        if let Some(Step { undo, kind: Kind::Remote(policy, _), .. }) = self.draft.steps.last_mut() {
            *undo = Undo::Remote(policy.clone(), boxed(action));
        }
        self.draft.into_saga()
    }

    /// Why the last step is not undone.
    pub fn no_undo(self, why: &str) -> Saga<C, BeforePivot, O> {
        no_undo(self.draft, why)
    }
}

impl<C: SagaData, O> Saga<C, NeedsLocalUndo, O> {
    /// How the last step is undone.
    pub fn undo(mut self, action: impl Fn(&C) -> LocalCommand + Send + Sync + 'static) -> Saga<C, BeforePivot, O> {
        if let Some(step) = self.draft.steps.last_mut() {
            step.undo = Undo::Local(Arc::new(action));
        }
        self.draft.into_saga()
    }

    /// Why the last step is not undone.
    pub fn no_undo(self, why: &str) -> Saga<C, BeforePivot, O> {
        no_undo(self.draft, why)
    }
}

fn no_undo<C: SagaData, O>(draft: Draft<C>, why: &str) -> Saga<C, BeforePivot, O> {
    let draft = draft.of_last("no_undo", |step| {
        step.undo = Undo::Nothing(why.to_owned());
        if why.trim().is_empty() { Err(format!("says not why `{}` is not undone", step.name)) } else { Ok(()) }
    });
    draft.into_saga()
}

fn boxed<C: SagaData, T, F, Fut>(action: F) -> Action<C>
where
    T: Serialize,
    F: Fn(Arc<C>, Call) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, StepError>> + Send + 'static,
{
    let action = Arc::new(action);
    Arc::new(move |data, call| {
        let action = Arc::clone(&action);
        async move {
            // Called in here, so that a panic of the closure itself is caught too.
            let made = AssertUnwindSafe(async move { action(data, call).await }).catch_unwind().await;
            let output =
                made.map_err(|panic| StepError::unknown(format!("it panicked: {}", text::of_panic(&*panic))))??;
            // The call had its effect, so what cannot be recorded must lead to its undo.
            serde_json::to_value(output).map_err(|e| StepError::unknown(format!("its output is no JSON: {e}")))
        }
        .boxed()
    })
}

/// Branches that run side by side, each a sequence of steps. [`Saga::parallel`] has an example.
#[must_use = "return it from the closure"]
pub struct Parallel<C, P> {
    draft: Draft<C>,
    start: Vec<usize>,
    ends: Vec<usize>,
    phase: PhantomData<fn(P)>,
}

impl<C: SagaData, P: Phase> Parallel<C, P> {
    /// One more branch.
    pub fn branch<O>(mut self, steps: impl FnOnce(Saga<C, P, ()>) -> Saga<C, P, O>) -> Self {
        self.draft.last.clone_from(&self.start);
        self.draft.joined = true; // a branch begins behind no step of its own
        let Saga { mut draft, .. } = steps(self.draft.into_saga());
        // A branch without steps ends where it begins.
        self.ends.extend(draft.last.drain(..).filter(|index| !self.ends.contains(index)).collect::<Vec<_>>());
        Self { draft, ..self }
    }
}
