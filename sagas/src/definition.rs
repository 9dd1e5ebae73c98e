//! What a saga consists of, once it is built.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{Evolve, Fingerprint, Invalid};
use annals_resilience::Policy;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::Value;

use crate::call::{Call, StepError};
use crate::drawing;
use crate::instance::{End, Instance, SagaId, kind};
use crate::local::LocalCommand;
use crate::mismatch::mismatch;
use crate::retry::StepRetry;
use crate::text;
use annals_resilience::IdempotencyKey;

use crate::event::{Direction, SagaEvent};

/// The data of a saga: its input, and what steps have kept in it. Implemented for every type that can be it.
pub trait SagaData: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {}

impl<C: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> SagaData for C {}

pub(crate) type Action<C> = Arc<dyn Fn(Arc<C>, Call) -> BoxFuture<'static, Result<Value, StepError>> + Send + Sync>;
pub(crate) type LocalAction<C> = Arc<dyn Fn(&C) -> LocalCommand + Send + Sync>;
pub(crate) type Keep<C> = Arc<dyn Fn(&mut C, Value) -> Result<(), serde_json::Error> + Send + Sync>;

/// A saga whose steps are declared and checked. [`Saga::build`](crate::Saga::build) makes it. Cloning it is cheap.
pub struct Definition<C> {
    pub(crate) inner: Arc<Inner<C>>,
}

pub(crate) struct Inner<C> {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step<C>>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) compensation: Duration,
    pub(crate) hash: String,
}

pub(crate) struct Step<C> {
    pub(crate) name: String,
    pub(crate) kind: Kind<C>,
    /// The steps that must be done before it, by index; all are lower than its own.
    pub(crate) after: Vec<usize>,
    pub(crate) undo: Undo<C>,
    pub(crate) keep: Option<Keep<C>>,
    pub(crate) retry: Option<StepRetry>,
    pub(crate) retry_undo: Option<StepRetry>,
}

/// What a step does.
pub(crate) enum Kind<C> {
    Local(LocalAction<C>),
    Remote(Policy, Action<C>),
    Signal(fn(&Value) -> Result<(), serde_json::Error>),
    Timer(Duration),
    /// The time in which a person can answer.
    Approval(Option<Duration>),
    Pivot,
}

impl<C> Kind<C> {
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Local(_) => kind::LOCAL,
            Self::Remote(..) => kind::REMOTE,
            Self::Signal(_) => kind::SIGNAL,
            Self::Timer(_) => kind::TIMER,
            Self::Approval(_) => kind::APPROVAL,
            Self::Pivot => kind::PIVOT,
        }
    }
}

/// How a step is undone.
pub(crate) enum Undo<C> {
    Local(LocalAction<C>),
    Remote(Policy, Action<C>),
    /// Others undo it, and a signal says so: of flows.
    Signal,
    /// There is nothing to undo, for this reason.
    Nothing(String),
}

impl<C> Clone for Definition<C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<C> Definition<C> {
    /// The name of the saga.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// A hash of names, kinds, order and undo of its steps. An instance records that of the build that started it.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.inner.hash
    }

    /// The steps as text, a line each: kind, name, the steps before it, and how it is undone.
    ///
    /// ```
    /// use annals_sagas::Saga;
    /// use std::time::Duration;
    ///
    /// let wait = Saga::<()>::new("wait").timer("pause", Duration::from_secs(5)).signal::<u32>("answer").build()?;
    /// assert_eq!(wait.outline(), "timer  pause\nsignal answer, after pause\n");
    /// # Ok::<(), annals_eventstore::Invalid>(())
    /// ```
    #[must_use]
    pub fn outline(&self) -> String {
        outline(&self.inner.steps)
    }

    /// The steps as a picture: SVG without scripts, links or styles of its own, so that it can stand in a page under a strict content
    /// security policy, or in a file of its own. It has a title and a description for those who do not see it, and classes for a stylesheet, such as
    /// [`SVG_STYLES`](crate::SVG_STYLES); without one it is light.
    ///
    /// ```
    /// # use annals_sagas::Saga;
    /// let wait = Saga::<()>::new("wait").signal::<u32>("answer").build()?;
    /// assert!(wait.svg().starts_with("<svg "));
    /// # Ok::<(), annals_eventstore::Invalid>(())
    /// ```
    #[must_use]
    pub fn svg(&self) -> String {
        drawing::svg(self.name(), self.steps(), None)
    }

    /// The same picture with how each step stands after these events of an instance: all of its [`timeline`](crate::timeline), or those
    /// up to a moment.
    ///
    /// ```
    /// use annals_sagas::{Direction, Saga, SagaEvent};
    ///
    /// let wait = Saga::<()>::new("wait").signal::<u32>("answer").build()?;
    /// let answered = SagaEvent::Succeeded {
    ///     step: "answer".to_owned(),
    ///     direction: Direction::Do,
    ///     attempt: 0,
    ///     output: 42.into(),
    /// };
    /// assert!(wait.svg_after([]).contains("answer: not done"));
    /// assert!(wait.svg_after([&answered]).contains("answer: done"));
    /// # Ok::<(), annals_eventstore::Invalid>(())
    /// ```
    #[must_use]
    pub fn svg_after<'a>(&self, events: impl IntoIterator<Item = &'a SagaEvent>) -> String {
        let mut instance = Instance::default();
        events.into_iter().for_each(|event| instance.evolve(event));
        drawing::svg(self.name(), self.steps(), Some(&instance))
    }

    pub(crate) fn steps(&self) -> &[Step<C>] {
        &self.inner.steps
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Step<C>> {
        self.steps().iter().find(|step| step.name == name)
    }
}

impl<C: SagaData> Definition<C> {
    /// Why an instance cannot go on in this build, its data included.
    pub(crate) fn unfit(&self, instance: &Instance) -> Option<String> {
        let of_data = || Some(format!("its data does not fit this build: {}", self.data(instance).err()?));
        mismatch(self, instance).or_else(of_data).map(|reason| text::storable(&reason))
    }

    /// The input of an instance with everything that its steps have kept.
    pub(crate) fn data(&self, instance: &Instance) -> Result<C, serde_json::Error> {
        let mut data: C = serde_json::from_value(instance.data.clone())?;
        for name in &instance.done {
            // A person who skips a step gives nothing to keep.
            if let Some(keep) = self.find(name).and_then(|step| step.keep.as_ref())
                && let Some(state) = instance.steps.get(name)
                && state.done.end == Some(End::Succeeded)
            {
                let output = state.output.clone();
                let of_step = |problem: &dyn Display| {
                    serde_json::Error::custom(format!("`keep` of the step `{name}`: {problem}"))
                };
                catch_unwind(AssertUnwindSafe(|| keep(&mut data, output)))
                    .map_err(|panic| of_step(&format!("it panicked: {}", text::of_panic(&*panic))))?
                    .map_err(|e| of_step(&e))?;
            }
        }
        Ok(data)
    }
}

/// The key of a step in an instance.
///
/// # Errors
/// [`Invalid`] with the field `saga_id` if both names together do not fit a header.
pub(crate) fn key(id: &SagaId, step: &str, direction: Direction) -> Result<IdempotencyKey, Invalid> {
    IdempotencyKey::new(format!("{id}/{step}/{direction}")).map_err(|e| {
        let problem = format!("`{id}` makes no idempotency key together with the step `{step}`: {e}");
        Invalid::new("saga_id", problem, "use a shorter id of visible ASCII characters")
    })
}

fn outline<C>(steps: &[Step<C>]) -> String {
    let mut text = String::new();
    for step in steps {
        let after: Vec<_> = step.after.iter().map(|&index| steps[index].name.as_str()).collect();
        let undo = match &step.undo {
            Undo::Local(_) | Undo::Remote(..) | Undo::Signal => ", undo".to_owned(),
            Undo::Nothing(why) if why.is_empty() => String::new(),
            Undo::Nothing(why) => format!(", no undo: {why}"),
        };
        let before = if after.is_empty() { String::new() } else { format!(", after {}", after.join(" and ")) };
        text += &format!("{:6} {}{before}{undo}\n", step.kind.word(), step.name);
    }
    text
}

fn check_retry<C>(word: &'static str, step: &Step<C>, retry: Option<StepRetry>, calls: bool) -> Result<(), Invalid> {
    match retry {
        None => Ok(()),
        Some(retry) if calls => retry.check(&step.name),
        Some(_) => {
            let problem = format!("is for step `{}`, of which no call is made", step.name);
            Err(Invalid::new(word, problem, "leave it out, or put it behind the remote step that it is for"))
        }
    }
}

/// Checks a saga and makes its definition.
pub(crate) fn build<C>(
    name: String,
    steps: Vec<Step<C>>,
    deadline: Option<Duration>,
    compensation: Duration,
) -> Result<Definition<C>, Invalid> {
    let check_name = |field: &str, name: &str| {
        let ok = !name.is_empty() && name.len() <= 60 && name.bytes().all(|byte| (0x21..0x7f).contains(&byte));
        if ok && !name.contains('/') {
            return Ok(());
        }
        let problem = format!("is `{}`, which is no name", name.escape_debug());
        Err(Invalid::new(field, problem, "use 1 to 60 visible ASCII characters, no space and no `/`"))
    };
    check_name("saga", &name)?;
    if !steps.iter().any(|step| !matches!(step.kind, Kind::Pivot)) {
        return Err(Invalid::new("steps", format!("of saga `{name}` are none"), "declare one at least"));
    }
    for (index, step) in steps.iter().enumerate() {
        check_name("step", &step.name)?;
        if steps[..index].iter().any(|earlier| earlier.name == step.name) {
            let problem = format!("`{}` of saga `{name}` is declared twice", step.name);
            return Err(Invalid::new("step", problem, "give each step a name of its own"));
        }
        check_retry("retry", step, step.retry, matches!(step.kind, Kind::Remote(..)))?;
        check_retry("retry_undo", step, step.retry_undo, matches!(step.undo, Undo::Remote(..)))?;
        if matches!(step.kind, Kind::Timer(wait) if wait.is_zero()) {
            return Err(Invalid::new("timer", format!("of step `{}` is 0", step.name), "give it a duration"));
        }
        if matches!(step.kind, Kind::Approval(Some(limit)) if limit.is_zero()) {
            return Err(Invalid::new("within", format!("of step `{}` is 0", step.name), "give it a duration"));
        }
    }
    if deadline.is_some_and(|deadline| deadline.is_zero()) {
        return Err(Invalid::new("deadline", format!("of saga `{name}` is 0"), "give it a duration, or leave it out"));
    }
    if compensation.is_zero() {
        return Err(Invalid::new("compensation_within", format!("of saga `{name}` is 0"), "give it a duration"));
    }
    let hash = Fingerprint::of_bytes(outline(&steps).as_bytes()).get().to_string();
    Ok(Definition { inner: Arc::new(Inner { name, steps, deadline, compensation, hash }) })
}
