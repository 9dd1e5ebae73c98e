//! The participant as its users see it.

use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{
    AggregateStore, CausationId, Clock, Context, CorrelationId, ErrorFamily, EventStore, ExecuteError, Executed,
    Fingerprint, Invalid, Repository, SystemClock,
};
use annals_resilience::Deadline;
use serde::Serialize;

use super::error::ParticipantError;
use super::event::StepEvent;
use super::key::{StepCall, StepKey};
use super::state::StepState;
use crate::event::Direction;

/// How long a call of an effect may take by default.
const EFFECTS_WITHIN: Duration = Duration::from_secs(30);
/// How many states are cached: a step is called a few times within seconds, and then no more.
const CACHED_STEPS: u64 = 1_000;

/// Does steps of sagas once, undoes them once, and never does them after that. [The module](super) has an example. Cloning it is
/// cheap.
///
/// Everything it knows is in streams of the store, so any number of participants in any number of processes answer alike.
#[derive(Clone)]
pub struct Participant {
    pub(super) store: Arc<dyn EventStore>,
    pub(super) steps: Repository<StepState>,
    pub(super) context: Context,
    clock: Arc<dyn Clock>,
    effects_within: Duration,
    /// The path of the handler that is called, if it is one.
    pub(super) address: Option<Arc<str>>,
    #[cfg(feature = "axum")]
    pub(super) contexts: Option<super::routes::Contexts>,
}

impl Participant {
    /// A participant with its steps in `store`, for calls of the default tenant. Local steps are commands of that store.
    pub fn new(store: impl EventStore + Clone) -> Self {
        let store: Arc<dyn EventStore> = Arc::new(store);
        Self {
            steps: store.aggregate::<StepState>().cache(CACHED_STEPS),
            store,
            context: Context::default(),
            clock: Arc::new(SystemClock),
            effects_within: EFFECTS_WITHIN,
            address: None,
            #[cfg(feature = "axum")]
            contexts: None,
        }
    }

    /// The same participant for calls in other circumstances: of another tenant, with a deadline, an actor, .. They land in
    /// the events. Without a correlation id in it, the saga is taken for it; without a causation id, the key of the call.
    ///
    /// A request key in it is refused: the step is the key.
    #[must_use]
    pub fn with(&self, context: Context) -> Self {
        Self { context, ..self.clone() }
    }

    /// How long a call of a remote effect may take; 30 s by default, and never beyond the deadline of the context. Then it is
    /// dropped, and its outcome is unknown. For so long the step stays in flight after its process was killed.
    #[must_use]
    pub fn effects_within(self, limit: Duration) -> Self {
        Self { effects_within: limit, ..self }
    }

    /// The same participant with another clock, for tests. Processes that share a store need clocks that agree within a few seconds.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    pub(super) fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }

    /// How long an effect may take that begins now.
    pub(super) fn limit(&self) -> Duration {
        let left = self.context.deadline().and_then(|deadline| Deadline::at(deadline).left());
        left.map_or(self.effects_within, |left| left.min(self.effects_within))
    }

    pub(super) fn call(&self, step: &StepKey, direction: Direction, limit: Duration) -> StepCall {
        let tenant = self.context.tenant().clone();
        StepCall { step: step.clone(), direction, tenant, deadline: Deadline::within(limit) }
    }

    /// The circumstances of the events of a call.
    pub(super) fn context(&self, step: &StepKey, direction: Direction) -> Result<Context, Invalid> {
        let mut context = self.context.clone();
        if let Some(request) = context.request() {
            let problem = format!("`{}` is in the context", request.key());
            return Err(Invalid::new("request_key", problem, "leave it out: the step is the key"));
        }
        if let (None, Some(saga)) = (&context.metadata().correlation_id, step.saga()) {
            context = context.with_correlation(CorrelationId::new(saga)?);
        }
        if context.metadata().causation_id.is_none() {
            context = context.with_causation(CausationId::new(step.key(direction).as_str())?);
        }
        Ok(context)
    }

    /// Appends what `decide` returns to the stream of a step, decided again after a conflict.
    pub(super) async fn record(
        &self,
        context: Context,
        step: &StepKey,
        decide: impl Fn(&StepState) -> Result<Option<StepEvent>, ParticipantError>,
    ) -> Result<Executed<StepState>, ParticipantError> {
        self.steps.with(context).execute(step, decide).await.map_err(|error| match error {
            ExecuteError::Rejected(refused) => refused,
            error => recording(step, error),
        })
    }

    /// Appends the outcome of a call, which may come after the deadline of the caller.
    pub(super) async fn record_outcome(
        &self,
        step: &StepKey,
        direction: Direction,
        decide: impl Fn(&StepState) -> Result<Option<StepEvent>, ParticipantError>,
    ) -> Result<Executed<StepState>, ParticipantError> {
        let context = self.context(step, direction)?.with_deadline(None::<tokio::time::Instant>);
        self.record(context, step, decide).await
    }
}

/// The fingerprint of a request, as it is stored.
pub(super) fn fingerprint<Q: Serialize + ?Sized>(request: &Q) -> Result<String, Invalid> {
    Ok(Fingerprint::of(request)?.get().to_string())
}

/// The error of a store that did not record.
pub(super) fn recording<R: std::error::Error + Send + Sync + 'static>(
    step: &StepKey,
    error: ExecuteError<R>,
) -> ParticipantError {
    match error {
        ExecuteError::Invalid(invalid) => invalid.into(),
        error => ParticipantError::Record {
            step: step.clone(),
            family: error.family().unwrap_or(ErrorFamily::Broken),
            source: Box::new(error),
        },
    }
}
