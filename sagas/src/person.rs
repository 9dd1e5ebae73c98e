//! What a person can do to an instance.

use annals_eventstore::Invalid;
use jiff::Timestamp;

use crate::definition::SagaData;
use crate::engine::Engine;
use crate::error::SagaError;
use crate::event::{Intervention, SagaEvent};
use crate::instance::{Instance, SagaId, Status};
use crate::plan::{Planner, after};

/// Who intervenes, and why. Both are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    actor: String,
    reason: String,
    request: Option<String>,
}

/// What a person did to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// What.
    pub intervention: Intervention,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

impl std::fmt::Display for Decision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by `{}` at {}, because: {}", self.intervention, self.actor, self.at, self.reason)
    }
}

impl By {
    /// The person and the reason; neither is empty.
    ///
    /// # Errors
    /// [`Invalid`] with the field `actor` or `reason`.
    pub fn new(actor: impl Into<String>, reason: impl Into<String>) -> Result<Self, Invalid> {
        let (actor, reason) = (actor.into(), reason.into());
        for (field, text) in [("actor", &actor), ("reason", &reason)] {
            if text.trim().is_empty() {
                return Err(Invalid::new(field, "is empty", "say who intervenes, and why"));
            }
        }
        Ok(Self { actor, reason, request: None })
    }

    /// The key of the request: the same request again, a second click say, is answered as the first and changes nothing.
    #[must_use]
    pub fn request(mut self, key: impl Into<String>) -> Self {
        self.request = Some(key.into());
        self
    }
}

impl<C: SagaData> Engine<C> {
    /// What [`Engine::intervene`], and the next run, would record, without recording it: a dry run.
    ///
    /// # Errors
    /// As of [`Engine::intervene`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn preview(&self, id: &SagaId, what: Intervention, by: &By) -> Result<Vec<SagaEvent>, SagaError> {
        let instance = self.load(id).await?;
        let mut planner = Planner::new(&self.definition, &instance, self.clock.now());
        match self.intervention(id, &instance, what, by)? {
            Some(event) => planner.push(event),
            None => return Ok(Vec::new()),
        }
        Ok(planner.plan())
    }

    /// A person decides about an instance that is stuck, or cancels one that runs. [`Engine::run`] runs it then.
    ///
    /// | intervention | needs | then |
    /// |---|---|---|
    /// | `Retry` | stuck | the failed step has all its attempts again |
    /// | `Skip` | stuck at a step | the step counts as done, or as undone |
    /// | `Compensate` | stuck, its pivot not passed | finished steps are undone |
    /// | `Complete` | stuck | it counts as completed; nothing more is called |
    /// | `Cancel` | running, its pivot not passed | finished steps are undone, also while it waits for its next attempt |
    ///
    /// # Errors
    /// [`SagaError::WrongStatus`] if the instance is in another state, also because another person was first, with what that
    /// one decided; [`SagaError::Invalid`] with the field `request` if its key was that of another decision;
    /// [`SagaError::NotStarted`]; [`SagaError::Record`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown; [`Engine::status`] shows it.
    pub async fn intervene(&self, id: &SagaId, what: Intervention, by: &By) -> Result<(), SagaError> {
        self.record(id, |instance| Ok(self.intervention(id, instance, what, by)?.into_iter().collect())).await.map(drop)
    }

    fn intervention(
        &self,
        id: &SagaId,
        instance: &Instance,
        what: Intervention,
        by: &By,
    ) -> Result<Option<SagaEvent>, SagaError> {
        if let Some((request, first)) = by.request.as_ref().and_then(|request| instance.requests.get_key_value(request))
        {
            if (first.intervention, &first.actor, &first.reason) == (what, &by.actor, &by.reason) {
                return Ok(None);
            }
            let problem = format!("`{request}` was that of another one: {first}");
            return Err(Invalid::new("request", problem, "give each decision a key of its own").into());
        }
        let decision = || instance.decision.clone();
        let wrong =
            |needs| SagaError::WrongStatus { id: id.clone(), status: instance.status, needs, decision: decision() };
        let undoes = matches!(what, Intervention::Compensate | Intervention::Cancel);
        match (what, instance.status) {
            (_, Status::NotStarted) => return Err(SagaError::NotStarted { id: id.clone() }),
            (_, Status::Running | Status::Stuck) if undoes && instance.pivot_passed => {
                return Err(wrong("it has passed its pivot, so that its steps cannot be undone"));
            }
            (Intervention::Skip, Status::Stuck) if instance.stuck_at.is_none() => {
                return Err(wrong("it is stuck at no step that could be skipped"));
            }
            (Intervention::Cancel, Status::Running) => {}
            (Intervention::Cancel, _) => return Err(wrong("this is for one that runs")),
            (_, Status::Stuck) => {}
            _ => return Err(wrong("this is for one that is stuck")),
        }
        let now = self.clock.now();
        let goes_on = matches!(what, Intervention::Retry | Intervention::Skip);
        let compensates = undoes || goes_on && instance.was == Status::Compensating;
        Ok(Some(SagaEvent::Intervened {
            intervention: what,
            actor: by.actor.clone(),
            reason: by.reason.clone(),
            at: now,
            request: by.request.clone(),
            until: compensates.then(|| after(now, self.definition.inner.compensation)),
        }))
    }
}
