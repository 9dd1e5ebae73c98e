//! Runs instances of one saga.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{
    Actor, AggregateStore, Clock, Context, CorrelationId, ErrorFamily, EventId, EventStore, ExecuteError, Invalid,
    Metadata, Repository, StreamVersion, Tenant, TraceParent,
};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use serde::Serialize;
use tracing::Instrument;

use crate::call::StepError;
use crate::calls::{self, Calls};
use crate::control::Control;
use crate::definition::{self, Definition, SagaData};
use crate::error::{SagaError, chain};
use crate::event::{Direction, SagaEvent};
use crate::instance::{Instance, SagaId, Status};
use crate::local::{InstanceAt, NotDue};
use crate::observed::{self, Decided};
use crate::person::Decision;
use crate::plan::{Due, Outcome, Planner, after};
use crate::run::{Ended, until};
use crate::text;

/// Runs instances of one saga, whose streams are in a store. Cloning it is cheap.
///
/// Nothing about an instance is kept outside of its stream. So [`Engine::run`] continues an instance that another process
/// began and did not end; of two engines that run the same instance at once, appends decide which one goes on.
pub struct Engine<C> {
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) instances: Repository<Instance>,
    pub(crate) context: Context,
    pub(crate) definition: Definition<C>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) calls: Arc<dyn Calls<C>>,
    /// How the instance that it runs was started.
    pub(crate) start: Option<Start>,
}

impl<C> Clone for Engine<C> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            instances: self.instances.clone(),
            context: self.context.clone(),
            definition: self.definition.clone(),
            clock: self.clock.clone(),
            calls: self.calls.clone(),
            start: self.start.clone(),
        }
    }
}

/// The first event of an instance: what the commands of its steps come from.
#[derive(Clone)]
pub(crate) struct Start {
    event_id: EventId,
    actor: Option<Actor>,
}

/// Where an instance stands, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SagaStatus {
    /// The state.
    pub status: Status,
    /// The step in the way of an instance that is stuck, if it is one.
    pub stuck_at: Option<String>,
    /// The last failure, or why it is compensated or stuck.
    pub reason: Option<String>,
    /// The step that is under way or waited for, the first one if there are several, while it runs or is undone.
    pub waits_at: Option<String>,
    /// The steps that are done, in the order of their outcomes; also those that were undone since.
    pub done: Vec<String>,
    /// The steps that wait for the approval of a person.
    pub asks: Vec<String>,
    /// When [`Engine::run`] has something to do again, if it waits for a time; a signal may come before.
    pub wake_at: Option<Timestamp>,
    /// When a call that has failed is made again, if one waits for that. Timers and deadlines are no calls.
    pub next_try: Option<Timestamp>,
    /// What a person did to it last.
    pub decision: Option<Decision>,
    /// The version of its stream.
    pub version: StreamVersion,
}

/// An instance as it is at a version of its stream.
#[derive(Clone)]
pub(crate) struct InstanceAtVersion {
    pub(crate) state: Arc<Instance>,
    pub(crate) version: StreamVersion,
}

impl<C: SagaData> Engine<C> {
    /// An engine over `store`, for the default tenant.
    pub fn new(store: impl EventStore + Clone, definition: Definition<C>, clock: impl Clock) -> Self {
        let store: Arc<dyn EventStore> = Arc::new(store);
        let instances = store.aggregate::<Instance>();
        Self::over(store, instances, definition, Arc::new(clock))
    }

    pub(crate) fn over(
        store: Arc<dyn EventStore>,
        instances: Repository<Instance>,
        definition: Definition<C>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (context, calls) = (Context::default(), Arc::new(calls::ThroughPolicies));
        Self { store, instances, context, definition, clock, calls, start: None }
    }

    /// The engine for the instances of a tenant.
    pub(crate) fn of(&self, tenant: &Tenant) -> Self {
        self.clone().tenant(tenant.clone())
    }

    /// The same engine for the instances of another tenant.
    #[must_use]
    pub fn tenant(self, tenant: Tenant) -> Self {
        let context = Context::of(tenant);
        Self { instances: self.instances.with(context.clone()), context, ..self }
    }

    /// The same engine, which records as a part of this trace (W3C trace context). An instance that is started so is run in it, wherever
    /// and whenever that is; without a trace here, a run takes that of the start.
    #[must_use]
    pub fn in_trace(self, trace_parent: impl Into<Option<TraceParent>>) -> Self {
        match trace_parent.into() {
            Some(trace_parent) => Self { context: self.context.clone().with_trace_parent(trace_parent), ..self },
            None => self,
        }
    }

    /// The same engine, which records for this person or program. The commands of the steps of an instance that is started so are in
    /// the name of who has started it, wherever and whenever that is. What is undone is in nobody's name.
    #[must_use]
    pub fn with_actor(self, actor: impl Into<Option<Actor>>) -> Self {
        match actor.into() {
            Some(actor) => Self { context: self.context.clone().with_actor(actor), ..self },
            None => self,
        }
    }

    /// The definition.
    #[must_use]
    pub fn definition(&self) -> &Definition<C> {
        &self.definition
    }

    /// Records a new instance; [`Engine::run`] runs it. To start the same again changes nothing.
    ///
    /// # Errors
    /// [`SagaError::StartedBefore`] if the id is in use for another saga or another input; [`SagaError::Invalid`] if it makes no
    /// idempotency keys together with the names of the steps; [`SagaError::Record`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown; start it again with the same input.
    pub async fn start(&self, id: &SagaId, data: C) -> Result<(), SagaError> {
        let data = serde_json::to_value(&data).map_err(|source| SagaError::Data { id: id.clone(), source })?;
        self.start_with(id, data).await
    }

    pub(crate) async fn start_with(&self, id: &SagaId, data: serde_json::Value) -> Result<(), SagaError> {
        for step in self.definition.steps() {
            definition::key(id, &step.name, Direction::Undo)?;
        }
        let started = self.started(data.clone());
        self.record(id, |instance| {
            if instance.status == Status::NotStarted {
                return Ok(vec![started.clone()]);
            }
            if instance.saga == self.definition.name() && is_same::<C>(&instance.data, &data) {
                return Ok(Vec::new());
            }
            Err(SagaError::StartedBefore { id: id.clone() })
        })
        .await
        .map(drop)
    }

    pub(crate) fn started(&self, data: serde_json::Value) -> SagaEvent {
        let at = self.clock.now();
        SagaEvent::Started {
            saga: self.definition.name().to_owned(),
            definition: self.definition.hash().to_owned(),
            data,
            at,
            deadline: self.definition.inner.deadline.map(|limit| after(at, limit)),
        }
    }

    /// Runs an instance until it ends, is stuck, or waits for a signal, a time or the next attempt. Continues what another process began and did not end:
    /// a call whose outcome is not recorded may have had its effect, and is made again under the same key.
    ///
    /// # Errors
    /// [`SagaError::NotStarted`]; [`SagaError::Read`], [`SagaError::Record`] or [`SagaError::Data`], after which it can be run again.
    ///
    /// # Cancel safety
    /// Dropping the future, at any moment, is as if the process had ended: run it again.
    pub async fn run(&self, id: &SagaId) -> Result<SagaStatus, SagaError> {
        self.run_until(id, &Control::default()).await
    }

    /// The same, but when `control` stops it, no further call is begun: those whose intents are recorded are made and end, and what they gave
    /// is recorded.
    pub(crate) async fn run_until(&self, id: &SagaId, control: &Control) -> Result<SagaStatus, SagaError> {
        if control.is_stopped() {
            return self.status(id).await;
        }
        let (start, trace) = self.start_of(id).await?.unzip();
        let trace = trace.flatten();
        let span = observed::run_span(self.definition.name(), id, trace.as_ref());
        control.set_span(&span);
        // Who looks at an instance is not who has started it.
        let own = Self { context: Context::of(self.context.tenant().clone()), start, ..self.clone() };
        let engine = own.in_trace(self.context.metadata().trace_parent.clone()).in_trace(trace);
        engine.run_from(id, control).instrument(span).await
    }

    /// How an instance was started, and in which trace, if it was in one.
    async fn start_of(&self, id: &SagaId) -> Result<Option<(Start, Option<TraceParent>)>, SagaError> {
        let stream = self.instances.stream(id)?;
        let first = self.store.load_page(&stream, StreamVersion::NONE, 1).await;
        let first = first.map_err(|source| SagaError::Read { id: id.clone(), source })?;
        let start = first.events.into_iter().next().map(|event| {
            let Metadata { actor, trace_parent, .. } = event.metadata;
            (Start { event_id: event.event_id, actor }, trace_parent)
        });
        Ok(start)
    }

    async fn run_from(&self, id: &SagaId, control: &Control) -> Result<SagaStatus, SagaError> {
        let instance = self.record(id, |instance| {
            if instance.status == Status::NotStarted {
                return Err(self.not_started(id));
            }
            Ok(self.continued(instance))
        });
        let mut instance = instance.await?;
        let (mut under_way, mut woken, mut looks) = (BTreeSet::new(), None, false);
        let mut calls = FuturesUnordered::new();
        loop {
            control.set_version(instance.version.get());
            let now = self.clock.now();
            let planner = Planner::new(&self.definition, &instance.state, now);
            for due in planner.due() {
                // An intent says that a call is made; a local step has none.
                let is_recorded = due.attempt > 0;
                if (is_recorded || !control.is_stopped()) && under_way.insert(due.clone()) {
                    calls.push(self.call(id, Arc::clone(&instance.state), due, control).left_future());
                }
            }
            // While a call is under way, the other branches go on: at a time, or when a signal or a person has come.
            let wake_at = planner.wake_at().filter(|at| *at > now || woken != Some(*at));
            let may_look = !looks && !control.is_stopped();
            let ended = tokio::select! {
                biased;
                ended = calls.next() => ended,
                () = until(wake_at, now), if may_look && wake_at.is_some() => {
                    (woken, looks) = (wake_at, true);
                    calls.push(self.look(id, instance.clone()).right_future());
                    continue;
                }
                () = control.changed(), if may_look => {
                    looks = true;
                    calls.push(self.look(id, instance.clone()).right_future());
                    continue;
                }
            };
            let Some((due, result)) = ended else {
                return Ok(self.status_of(&instance));
            };
            match due {
                Some(due) => drop(under_way.remove(&due)),
                None => looks = false,
            }
            instance = match result? {
                Some(known) if known.version >= instance.version => known,
                // Of two that ended at the same moment, the older one may be seen last.
                _ => self.load_at(id).await?,
            };
        }
    }

    /// [`Engine::run`], again and again, until the instance has ended, is stuck, or waits for a signal without a time limit.
    ///
    /// # Errors
    /// As of [`Engine::run`].
    ///
    /// # Cancel safety
    /// As of [`Engine::run`].
    pub async fn run_to_end(&self, id: &SagaId) -> Result<SagaStatus, SagaError> {
        loop {
            let status = self.run(id).await?;
            let Some(wake_at) = status.wake_at else { return Ok(status) };
            let wait = wake_at.duration_since(self.clock.now());
            tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
        }
    }

    /// Where an instance stands.
    ///
    /// # Errors
    /// [`SagaError::NotStarted`]; [`SagaError::Read`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn status(&self, id: &SagaId) -> Result<SagaStatus, SagaError> {
        let instance = self.load_at(id).await?;
        if instance.state.status == Status::NotStarted {
            return Err(self.not_started(id));
        }
        Ok(self.status_of(&instance))
    }

    /// The input of an instance, with what its steps have kept so far: what a saga that is completed has given.
    ///
    /// # Errors
    /// [`SagaError::NotStarted`]; [`SagaError::Read`]; [`SagaError::Data`] if it does not fit this build.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn data(&self, id: &SagaId) -> Result<C, SagaError> {
        let instance = self.load(id).await?;
        if instance.status == Status::NotStarted {
            return Err(self.not_started(id));
        }
        self.definition.data(&instance).map_err(|source| SagaError::Data { id: id.clone(), source })
    }

    /// Hands an instance what its step `step` waits for, now or later. A step takes one signal: the same again changes nothing.
    ///
    /// # Errors
    /// [`SagaError::Invalid`] with the field `step` if no step waits for such a signal, or `payload` if it does not fit;
    /// [`SagaError::SignalledBefore`] if another one came first; [`SagaError::NotStarted`]; [`SagaError::WrongStatus`] after its
    /// end, and while it is undone. Nothing is recorded then. [`SagaError::Record`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn signal<T: Serialize>(&self, id: &SagaId, step: &str, payload: T) -> Result<(), SagaError> {
        let check = match self.definition.find(step).map(|step| &step.kind) {
            Some(definition::Kind::Signal(check)) => check,
            _ => {
                let problem = format!("`{step}` of saga `{}` waits for no signal", self.definition.name());
                return Err(Invalid::new("step", problem, "name a step declared by `signal`").into());
            }
        };
        let unfit = |e: serde_json::Error| {
            Invalid::new("payload", format!("does not fit: {e}"), "send what the step waits for")
        };
        let payload = serde_json::to_value(payload).map_err(unfit)?;
        check(&payload).map_err(unfit)?;
        let received = SagaEvent::SignalReceived { step: step.to_owned(), payload: payload.clone() };
        self.record(id, |instance| match (instance.signalled(step), instance.status) {
            (_, Status::NotStarted) => Err(self.not_started(id)),
            (Some(first), _) if *first == payload => Ok(Vec::new()),
            (Some(_), _) => Err(SagaError::SignalledBefore { id: id.clone(), step: step.to_owned() }),
            (None, status) if !instance.goes_forward() => Err(SagaError::WrongStatus {
                id: id.clone(),
                status,
                needs: "signals are for those that run",
                allowed: &[Status::Running],
                decision: instance.decision.clone(),
            }),
            // What follows from it is recorded by who makes the calls: an intent means that a call is being made.
            (None, _) => Ok(vec![received.clone()]),
        })
        .await
        .map(drop)
    }

    /// What is recorded first when an instance is continued: calls without an outcome may have had their effect.
    fn continued(&self, instance: &Instance) -> Vec<SagaEvent> {
        let mut planner = Planner::new(&self.definition, instance, self.clock.now());
        for due in planner.due() {
            if due.attempt > 0 {
                planner.interrupted(&due);
            }
        }
        let runs = matches!(instance.status, Status::Running | Status::Compensating);
        match self.definition.unfit(instance).filter(|_| runs) {
            Some(reason) => planner.stuck(reason),
            None => planner.plan(),
        }
    }

    /// Makes a call and records its outcome, with what follows from it.
    async fn call(&self, id: &SagaId, instance: Arc<Instance>, due: Due, control: &Control) -> Ended {
        let span = observed::step_span(&self.definition.steps()[due.step].name, due.direction, due.attempt);
        let result = self.call_and_record(id, &instance, &due, control).instrument(span).await;
        (Some(due), result)
    }

    /// Gives the instance afterwards, if it is known.
    async fn call_and_record(
        &self,
        id: &SagaId,
        instance: &Instance,
        due: &Due,
        control: &Control,
    ) -> Result<Option<InstanceAtVersion>, SagaError> {
        let goes_on = || !control.is_stopped();
        let data = self.definition.data(instance).map_err(|source| SagaError::Data { id: id.clone(), source })?;
        if let Some(command) = calls::local(&self.definition, &data, due) {
            let context = self.context_of_command(id, due.direction)?;
            let at = InstanceAt { store: &self.store, context: &context, instances: &self.instances, id };
            let decided = Decided::default();
            let record = |instance: &Instance, result: Result<(), String>| {
                let outcome = match result {
                    Ok(()) => Outcome::Succeeded(serde_json::Value::Null),
                    Err(reason) => Outcome::Refused { reason, may_have_happened: false },
                };
                observed::ended(&outcome);
                let recorded =
                    Planner::new(&self.definition, instance, self.clock.now()).outcome(due, outcome, goes_on());
                decided.note(recorded.as_deref().unwrap_or_default());
                recorded
            };
            self.calls.before_append()?;
            let done = AssertUnwindSafe(command.execute(at, &record)).catch_unwind().await;
            self.calls.after_append()?;
            return match done {
                Ok(Ok(())) => {
                    decided.count(self.definition.name());
                    Ok(None)
                }
                Ok(Err(ExecuteError::Rejected(NotDue))) => Ok(None),
                Ok(Err(ExecuteError::Invalid(invalid))) => {
                    let error = StepError::refused(format!("its events cannot be recorded: {invalid}"));
                    self.record_outcome(id, due, Outcome::of(error), &goes_on).await.map(Some)
                }
                Ok(Err(e)) => match recording(id, e) {
                    error if error.family() == ErrorFamily::Broken => self.stuck_at(id, due, chain(&error)).await,
                    error => Err(error),
                },
                Err(panic) => self.stuck_at(id, due, format!("it panicked: {}", text::of_panic(&*panic))).await,
            };
        }
        let key = definition::key(id, &self.definition.steps()[due.step].name, due.direction)?;
        // The intent may be that of a build in which the step was a call.
        let outcome = match calls::remote(&self.definition, due, (self.context.tenant(), id)) {
            Some(remote) => self.calls.call(remote, due, Arc::new(data), key).await?,
            None => Outcome::of(StepError::refused("the step makes no calls in this build")),
        };
        observed::ended(&outcome);
        let recorded = match self.record_outcome(id, due, outcome, &goes_on).await {
            // The call had its effect, so what cannot be stored must lead to its undo.
            Err(SagaError::Invalid(invalid)) => {
                let error = StepError::unknown(format!("its output cannot be recorded: {invalid}"));
                self.record_outcome(id, due, Outcome::of(error), &goes_on).await
            }
            recorded => recorded,
        };
        recorded.map(Some)
    }

    pub(crate) fn not_started(&self, id: &SagaId) -> SagaError {
        SagaError::NotStarted { tenant: self.context.tenant().clone(), id: id.clone() }
    }

    /// All events that an instance leads to have its id as their correlation id.
    fn context(&self, id: &SagaId) -> Result<Context, SagaError> {
        Ok(self.context.clone().with_correlation(CorrelationId::new(id)?))
    }

    /// The command of a step is caused by the start, and in the name of who did that; unless it undoes what that one wanted.
    fn context_of_command(&self, id: &SagaId, direction: Direction) -> Result<Context, SagaError> {
        let context = self.context(id)?;
        let Some(start) = &self.start else { return Ok(context) };
        let context = context.with_causation(start.event_id.into());
        Ok(match &start.actor {
            Some(actor) if direction == Direction::Do => context.with_actor(actor.clone()),
            _ => context,
        })
    }

    pub(crate) async fn load(&self, id: &SagaId) -> Result<Instance, SagaError> {
        Ok((*self.load_at(id).await?.state).clone())
    }

    pub(crate) async fn load_at(&self, id: &SagaId) -> Result<InstanceAtVersion, SagaError> {
        let loaded = self.instances.load(id).await.map_err(|source| SagaError::Read { id: id.clone(), source })?;
        Ok(InstanceAtVersion { state: loaded.state, version: loaded.version })
    }

    /// Appends what `decide` returns to the stream of an instance, decided again after a conflict.
    pub(crate) async fn record(
        &self,
        id: &SagaId,
        decide: impl Fn(&Instance) -> Result<Vec<SagaEvent>, SagaError>,
    ) -> Result<InstanceAtVersion, SagaError> {
        self.calls.before_append()?;
        let decided = Decided::default();
        let noted = |instance: &Instance| decide(instance).inspect(|events| decided.note(events));
        let done = self.instances.with(self.context(id)?).execute(id, noted).await;
        self.calls.after_append()?;
        match done {
            Ok(done) => {
                decided.count(self.definition.name());
                Ok(InstanceAtVersion { state: done.state, version: done.version })
            }
            Err(ExecuteError::Rejected(refused)) => Err(refused),
            Err(e) => Err(recording(id, e)),
        }
    }

    pub(crate) fn status_of(&self, at: &InstanceAtVersion) -> SagaStatus {
        let planner = Planner::new(&self.definition, &at.state, self.clock.now());
        SagaStatus { wake_at: planner.wake_at(), waits_at: planner.waiting_at(), ..SagaStatus::of(at) }
    }
}

impl SagaStatus {
    /// As recorded, also where there is no definition.
    pub(crate) fn of(at: &InstanceAtVersion) -> Self {
        let instance = &*at.state;
        Self {
            status: instance.status,
            stuck_at: instance.stuck_at.clone(),
            reason: instance.reason.clone(),
            waits_at: None,
            done: instance.done.clone(),
            asks: instance.asks().map(|(step, _)| step.clone()).collect(),
            wake_at: instance.waits.and_then(|wait| wait.until),
            next_try: instance.next_try(),
            decision: instance.decision.clone(),
            version: at.version,
        }
    }
}

/// Whether an input is the recorded one, which an earlier build may have written in an earlier shape.
fn is_same<C: SagaData>(recorded: &serde_json::Value, data: &serde_json::Value) -> bool {
    text::is_same(recorded, data)
        || C::deserialize(recorded).and_then(serde_json::to_value).is_ok_and(|recorded| text::is_same(&recorded, data))
}

/// The error of a store that did not record.
fn recording<R: std::error::Error + Send + Sync + 'static>(id: &SagaId, error: ExecuteError<R>) -> SagaError {
    match error {
        ExecuteError::Invalid(invalid) => invalid.into(),
        ExecuteError::Read(source) => SagaError::Read { id: id.clone(), source },
        error => SagaError::Record {
            id: id.clone(),
            family: error.family().unwrap_or(ErrorFamily::Broken),
            source: Box::new(error),
        },
    }
}
