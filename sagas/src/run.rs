//! What a run of an instance records.

use std::time::Duration;

use jiff::Timestamp;

use crate::definition::SagaData;
use crate::engine::{Engine, InstanceAtVersion};
use crate::error::SagaError;
use crate::event::SagaEvent;
use crate::instance::{Instance, SagaId};
use crate::plan::{Due, Outcome, Planner};
use crate::text;

/// What has ended in a run: a call, or a look, and the instance afterwards if it is known.
pub(crate) type Ended = (Option<Due>, Result<Option<InstanceAtVersion>, SagaError>);

impl<C: SagaData> Engine<C> {
    /// Records what has become due beside the calls that are under way. It is polled together with them, as their appends to the same
    /// stream wait for each other.
    pub(crate) async fn look(&self, id: &SagaId, instance: InstanceAtVersion) -> Ended {
        let planned = |instance: &Instance| Ok(Planner::new(&self.definition, instance, self.clock.now()).plan());
        let recorded = match self.record(id, planned).await {
            // What is under way must not be dropped for it; when that has ended, it is recorded together.
            Err(error) if error.is_transient() => {
                tracing::warn!(saga = %id, %error, "what has become due could not be recorded yet");
                Ok(instance)
            }
            recorded => recorded,
        };
        (None, recorded.map(Some))
    }

    /// A local step cannot be done or undone before a person has repaired something.
    pub(crate) async fn stuck_at(
        &self,
        id: &SagaId,
        due: &Due,
        problem: String,
    ) -> Result<Option<InstanceAtVersion>, SagaError> {
        let step = &self.definition.steps()[due.step].name;
        let stuck = SagaEvent::Stuck {
            step: Some(step.clone()),
            reason: text::storable(&format!("the {} of `{step}`: {problem}", due.direction)),
        };
        self.record(id, |instance| {
            let is_due = Planner::new(&self.definition, instance, self.clock.now()).due().contains(due);
            Ok(is_due.then(|| stuck.clone()).into_iter().collect())
        })
        .await
        .map(Some)
    }

    /// Records how a call ended, and what follows from it.
    pub(crate) async fn record_outcome(
        &self,
        id: &SagaId,
        due: &Due,
        outcome: Outcome,
        goes_on: &(dyn Fn() -> bool + Sync),
    ) -> Result<InstanceAtVersion, SagaError> {
        self.record(id, |instance| {
            let planner = Planner::new(&self.definition, instance, self.clock.now());
            let recorded = planner.outcome(due, outcome.clone(), goes_on());
            if recorded.is_none() {
                tracing::info!(saga = %id, ?due, "an outcome came that nobody waits for any more");
            }
            Ok(recorded.unwrap_or_default())
        })
        .await
    }
}

/// Sleeps from `now` until `at`; without a time for ever.
pub(crate) async fn until(at: Option<Timestamp>, now: Timestamp) {
    match at {
        None => std::future::pending().await,
        Some(at) => {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
        }
    }
}
