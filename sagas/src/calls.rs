//! Making the calls of steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals_eventstore::Tenant;
use annals_resilience::{CallError, Deadline, IdempotencyKey, Policy};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::call::{Call, StepError};
use crate::definition::{Action, Definition, Kind, SagaData, Undo};
use crate::error::SagaError;
use crate::event::Direction;
use crate::instance::SagaId;
use crate::local::LocalCommand;
use crate::plan::{Due, Outcome};

/// How calls are made. The explorer makes them fail, and ends the process before and after each append and call.
pub(crate) trait Calls<C>: Send + Sync {
    fn call<'a>(
        &'a self,
        remote: Remote<'a, C>,
        due: &'a Due,
        data: Arc<C>,
        key: IdempotencyKey,
    ) -> BoxFuture<'a, Result<Outcome, SagaError>>;

    fn before_append(&self) -> Result<(), SagaError> {
        Ok(())
    }

    fn after_append(&self) -> Result<(), SagaError> {
        Ok(())
    }
}

/// Each call goes through the policy of its step.
pub(crate) struct ThroughPolicies;

impl<C: SagaData> Calls<C> for ThroughPolicies {
    fn call<'a>(
        &'a self,
        remote: Remote<'a, C>,
        due: &'a Due,
        data: Arc<C>,
        key: IdempotencyKey,
    ) -> BoxFuture<'a, Result<Outcome, SagaError>> {
        async move { Ok(through(&remote, due.attempt, data, &key).await) }.boxed()
    }
}

async fn through<C: SagaData>(remote: &Remote<'_, C>, attempt: u32, data: Arc<C>, key: &IdempotencyKey) -> Outcome {
    // The policy may make several attempts, and an earlier one may be of unknown outcome.
    let unknown = AtomicBool::new(false);
    let result = remote
        .policy
        .keyed(key, |call, key| {
            let made = (remote.action)(data.clone(), remote.call_of(key.clone(), call.deadline(), attempt));
            let unknown = &unknown;
            async move {
                let result = made.await;
                if let Err(StepError::Unknown { .. }) = result {
                    unknown.store(true, Ordering::Relaxed);
                }
                result
            }
        })
        .await;
    match result {
        Ok(output) => Outcome::Succeeded(output),
        Err(error) => failed(&error, unknown.into_inner()),
    }
}

fn failed(error: &CallError<StepError>, unknown: bool) -> Outcome {
    let may_have_happened = unknown || error.may_have_happened();
    match &error.source {
        Some(StepError::Refused { reason }) if error.call_at_fault() => {
            Outcome::Refused { reason: reason.clone(), may_have_happened }
        }
        source => Outcome::Failed {
            error: source.as_ref().map_or_else(|| error.to_string(), ToString::to_string),
            may_have_happened,
            retry_after: error.retry_after(),
            not_made: error.attempts == 0,
        },
    }
}

/// How the call of a remote step, or of its undo, is made.
pub(crate) struct Remote<'a, C> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) id: &'a SagaId,
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "the explorer names the call by it"))]
    pub(crate) step: &'a str,
    pub(crate) policy: &'a Policy,
    pub(crate) action: &'a Action<C>,
}

impl<C> Remote<'_, C> {
    /// What the step is handed.
    pub(crate) fn call_of(&self, key: IdempotencyKey, deadline: Deadline, attempt: u32) -> Call {
        Call { tenant: self.tenant.clone(), saga_id: self.id.clone(), key, deadline, attempt }
    }
}

/// The call of a remote step of an instance; `None` for one that makes none.
pub(crate) fn remote<'a, C>(
    definition: &'a Definition<C>,
    due: &Due,
    (tenant, id): (&'a Tenant, &'a SagaId),
) -> Option<Remote<'a, C>> {
    let step = &definition.steps()[due.step];
    match (due.direction, &step.kind, &step.undo) {
        (Direction::Do, Kind::Remote(policy, action), _) | (Direction::Undo, _, Undo::Remote(policy, action)) => {
            Some(Remote { tenant, id, step: &step.name, policy, action })
        }
        _ => None,
    }
}

/// The command of a local step.
pub(crate) fn local<C>(definition: &Definition<C>, data: &C, due: &Due) -> Option<LocalCommand> {
    let step = &definition.steps()[due.step];
    match (due.direction, &step.kind, &step.undo) {
        (Direction::Do, Kind::Local(action), _) | (Direction::Undo, _, Undo::Local(action)) => Some(action(data)),
        _ => None,
    }
}
