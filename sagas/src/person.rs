//! What a person can do to an instance.

use annals_eventstore::Invalid;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::definition::{Kind, SagaData};
use crate::engine::Engine;
use crate::error::SagaError;
use crate::event::{Direction, Intervention, SagaEvent};
use crate::instance::{Instance, SagaId, Status};
use crate::plan::{Planner, after};

/// Who decides, and why. Both are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    actor: String,
    reason: String,
    request: Option<String>,
}

/// What a person decided about an instance. It is also what a step that asks for approval gives.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
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
                return Err(Invalid::new(field, "is empty", "say who decides, and why"));
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
        let events = self.intervention(id, &instance, what, by)?;
        if events.is_empty() {
            return Ok(events);
        }
        events.into_iter().for_each(|event| planner.push(event));
        Ok(planner.plan())
    }

    /// A person decides about an instance that is stuck, answers one that asks, or cancels one that runs. [`Engine::run`] runs it then.
    ///
    /// | intervention | needs | then |
    /// |---|---|---|
    /// | `Retry` | stuck | the failed step has all its attempts again, under the same key: a [participant](crate::participant) that has refused it refuses it again |
    /// | `Skip` | stuck at a step | the step counts as done, or as undone |
    /// | `Compensate` | stuck, its pivot not passed | finished steps are undone |
    /// | `Complete` | stuck | it counts as completed; nothing more is called |
    /// | `Cancel` | running, its pivot not passed | finished steps are undone, also while it waits for its next attempt |
    /// | `Approve` | running, its step asks for approval | the step is done |
    /// | `Reject` | running, its step asks for approval | the step is refused: finished steps are undone, after the pivot it is stuck |
    ///
    /// # Errors
    /// [`SagaError::WrongStatus`] if the instance is in another state, also because another person was first, with what that
    /// one decided, or because the time to answer has ended; [`SagaError::Invalid`] with the field `step` if that asks for no approval,
    /// or `request` if its key is that of another decision; [`SagaError::NotStarted`]; [`SagaError::Record`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown; [`Engine::status`] shows it.
    pub async fn intervene(&self, id: &SagaId, what: Intervention, by: &By) -> Result<(), SagaError> {
        self.record(id, |instance| self.intervention(id, instance, what.clone(), by)).await.map(drop)
    }

    /// A person approves a step that was declared by [`approval`](crate::Saga::approval) and asks: [`Intervention::Approve`].
    ///
    /// # Errors
    /// As of [`Engine::intervene`].
    ///
    /// # Cancel safety
    /// As of [`Engine::intervene`].
    pub async fn approve(&self, id: &SagaId, step: &str, by: &By) -> Result<(), SagaError> {
        self.intervene(id, Intervention::Approve { step: step.to_owned() }, by).await
    }

    /// A person rejects such a step: [`Intervention::Reject`].
    ///
    /// # Errors
    /// As of [`Engine::intervene`].
    ///
    /// # Cancel safety
    /// As of [`Engine::intervene`].
    pub async fn reject(&self, id: &SagaId, step: &str, by: &By) -> Result<(), SagaError> {
        self.intervene(id, Intervention::Reject { step: step.to_owned() }, by).await
    }

    /// What is recorded; nothing if the same request was followed before.
    fn intervention(
        &self,
        id: &SagaId,
        instance: &Instance,
        what: Intervention,
        by: &By,
    ) -> Result<Vec<SagaEvent>, SagaError> {
        match by.request.as_ref().and_then(|request| instance.requests.get(request)) {
            Some(before) if (&before.intervention, &before.actor, &before.reason) == (&what, &by.actor, &by.reason) => {
                return Ok(Vec::new());
            }
            Some(before) => {
                let problem = format!("is the key of another decision, {before}");
                return Err(Invalid::new("request", problem, "give each decision a key of its own").into());
            }
            None => {}
        }
        let step = match &what {
            Intervention::Approve { step } | Intervention::Reject { step } => Some(step.as_str()),
            _ => None,
        };
        let state = step.map(|step| instance.step(step)).unwrap_or_default();
        let now = self.clock.now();
        let decision = || state.answer.clone().or_else(|| instance.decision.clone());
        let allowed: &[Status] = match what {
            Intervention::Retry | Intervention::Skip | Intervention::Compensate | Intervention::Complete => {
                &[Status::Stuck]
            }
            Intervention::Cancel | Intervention::Approve { .. } | Intervention::Reject { .. } => &[Status::Running],
        };
        let wrong = |needs| {
            let (id, status, decision) = (id.clone(), instance.status, decision());
            SagaError::WrongStatus { id, status, needs, allowed, decision }
        };
        let undoes = matches!(what, Intervention::Compensate | Intervention::Cancel);
        match (&what, instance.status) {
            (_, Status::NotStarted) => return Err(self.not_started(id)),
            (_, Status::Running | Status::Stuck) if undoes && instance.pivot_passed => {
                return Err(wrong("it has passed its pivot, so that its steps cannot be undone"));
            }
            (Intervention::Skip, Status::Stuck) if instance.stuck_at.is_none() => {
                return Err(wrong("it is stuck at no step that could be skipped"));
            }
            _ if step.is_some_and(|step| !self.is_approval(step)) => {
                let problem = format!("{what} of saga `{}` asks for no approval", self.definition.name());
                return Err(Invalid::new("step", problem, "name a step declared by `approval`").into());
            }
            (Intervention::Approve { .. } | Intervention::Reject { .. }, Status::Running) => {
                if !state.asked {
                    return Err(wrong("its step does not ask for approval yet"));
                }
                if !state.asks() {
                    return Err(wrong("its step has its answer"));
                }
                let ends = [state.due, instance.deadline];
                if ends.iter().flatten().any(|end| now >= *end) {
                    return Err(wrong("the time to answer its step has ended"));
                }
            }
            (Intervention::Approve { .. } | Intervention::Reject { .. }, _) => {
                return Err(wrong("this is for one that asks for approval"));
            }
            (Intervention::Cancel, Status::Running) => {}
            (Intervention::Cancel, _) => return Err(wrong("this is for one that runs")),
            (_, Status::Stuck) => {}
            _ => return Err(wrong("this is for one that is stuck")),
        }
        let goes_on = matches!(what, Intervention::Retry | Intervention::Skip);
        let compensates = undoes || goes_on && instance.was == Status::Compensating;
        let By { actor, reason, request } = by.clone();
        let made = Decision { intervention: what.clone(), actor: actor.clone(), reason: reason.clone(), at: now };
        let answered = self.answered(id, &made)?;
        let until = compensates.then(|| after(now, self.definition.inner.compensation));
        let intervened = SagaEvent::Intervened { intervention: what, actor, reason, at: now, request, until };
        Ok(std::iter::once(intervened).chain(answered).collect())
    }

    /// The outcome of a step that was approved or rejected.
    fn answered(&self, id: &SagaId, decision: &Decision) -> Result<Option<SagaEvent>, SagaError> {
        let (direction, attempt) = (Direction::Do, 0);
        Ok(match &decision.intervention {
            Intervention::Approve { step } => {
                let output =
                    serde_json::to_value(decision).map_err(|source| SagaError::Data { id: id.clone(), source })?;
                Some(SagaEvent::Succeeded { step: step.clone(), direction, attempt, output })
            }
            Intervention::Reject { step } => {
                let reason = format!("by `{}`, because: {}", decision.actor, decision.reason);
                Some(SagaEvent::Refused { step: step.clone(), direction, attempt, reason, may_have_happened: false })
            }
            _ => None,
        })
    }

    fn is_approval(&self, step: &str) -> bool {
        self.definition.find(step).is_some_and(|step| matches!(step.kind, Kind::Approval(_)))
    }
}
