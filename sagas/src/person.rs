//! What a person can do to an instance.

use annals_eventstore::Invalid;

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
        Ok(Self { actor, reason })
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
        planner.push(self.intervention(id, &instance, what, by)?);
        Ok(planner.plan())
    }

    /// A person decides about an instance that is stuck, or cancels one that runs ([`Intervention::Compensate`]).
    /// [`Engine::run`] runs it then.
    ///
    /// | intervention | needs | then |
    /// |---|---|---|
    /// | `Retry` | stuck | the failed step has all its attempts again |
    /// | `Skip` | stuck at a step | the step counts as done, or as undone |
    /// | `Compensate` | running or stuck, its pivot not passed | finished steps are undone |
    /// | `Complete` | stuck | it counts as completed; nothing more is called |
    ///
    /// # Errors
    /// [`SagaError::WrongStatus`] if the instance is in another state, also because another person was first;
    /// [`SagaError::NotStarted`]; [`SagaError::Record`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown; [`Engine::status`] shows it.
    pub async fn intervene(&self, id: &SagaId, what: Intervention, by: &By) -> Result<(), SagaError> {
        self.record(id, |instance| Ok(vec![self.intervention(id, instance, what, by)?])).await
    }

    fn intervention(
        &self,
        id: &SagaId,
        instance: &Instance,
        what: Intervention,
        by: &By,
    ) -> Result<SagaEvent, SagaError> {
        let wrong = |needs| SagaError::WrongStatus { id: id.clone(), status: instance.status, needs };
        match (what, instance.status) {
            (_, Status::NotStarted) => return Err(SagaError::NotStarted { id: id.clone() }),
            (Intervention::Compensate, Status::Running | Status::Stuck) if instance.pivot_passed => {
                return Err(wrong("it has passed its pivot, so that its steps cannot be undone"));
            }
            (Intervention::Skip, Status::Stuck) if instance.stuck_at.is_none() => {
                return Err(wrong("it is stuck at no step that could be skipped"));
            }
            (Intervention::Compensate, Status::Running) | (_, Status::Stuck) => {}
            _ => return Err(wrong("this is for one that is stuck")),
        }
        let now = self.clock.now();
        let compensates = what == Intervention::Compensate || instance.was == Status::Compensating;
        Ok(SagaEvent::Intervened {
            intervention: what,
            actor: by.actor.clone(),
            reason: by.reason.clone(),
            until: compensates.then(|| after(now, self.definition.inner.compensation)),
        })
    }
}
