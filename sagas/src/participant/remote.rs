//! Steps whose effect lies outside of the store.

use std::future::Future;
use std::time::Duration;

use annals_resilience::Deadline;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::ParticipantError;
use super::event::StepEvent;
use super::handle::{Participant, fingerprint};
use super::key::{StepCall, StepKey};
use super::state::{Phase, StepState, ToUndo};
use crate::call::StepError;
use crate::event::Direction;
use crate::plan::after;
use crate::text;

impl Participant {
    /// Does a step by an effect outside of the store: that it was begun is committed, then `effect` runs, then its answer is
    /// committed. If the step was done before, the stored answer is given, and `effect` does not run.
    ///
    /// `request` is what the effect is made from, for its fingerprint: the same step with another request is refused.
    ///
    /// How `effect` fails decides what is stored: [`StepError::Refused`] for good, as the answer to repeats too; after
    /// [`StepError::Transient`] and [`StepError::Unknown`] it runs again when it is sent again, under the same key. In all
    /// cases an undo runs the user's undo, as it was begun.
    ///
    /// # Errors
    /// [`ParticipantError::Refused`], [`ParticipantError::Undone`] and [`ParticipantError::OtherRequest`] for good;
    /// [`ParticipantError::InFlight`] and [`ParticipantError::Transient`], after which it may be sent again;
    /// [`ParticipantError::Unknown`] if the effect may have happened; [`ParticipantError::Invalid`] with the field `body` if the request
    /// cannot be written as JSON, or `request_key`; [`ParticipantError::Answer`]; [`ParticipantError::Record`].
    ///
    /// # Cancel safety
    /// Dropping the future is as if the process had ended: the step stays in flight until the time of the call is over, see
    /// [`Participant::effects_within`]; then it may be sent again, or undone.
    pub async fn do_remote<Q, T, F, Fut>(&self, step: &StepKey, request: &Q, effect: F) -> Result<T, ParticipantError>
    where
        Q: Serialize + ?Sized,
        T: Serialize + DeserializeOwned,
        F: FnOnce(StepCall) -> Fut,
        Fut: Future<Output = Result<T, StepError>>,
    {
        let request = fingerprint(request)?;
        let limit = self.limit();
        let call = self.call(step, Direction::Do, limit);
        let begun = self
            .record(self.context(step, Direction::Do)?, step, |state| {
                let now = self.now();
                let is_due = state.to_do(step, &request, now)?.is_none();
                let (request, address) = (request.clone(), self.address.clone());
                Ok(is_due.then(|| StepEvent::DoBegun { request, at: now, until: after(now, limit), address }))
            })
            .await?;
        if begun.events == 0 {
            return answer(step, &begun.state);
        }
        let result = within(&call, limit, effect(call.clone())).await;
        let event = match result.and_then(answer_to_keep) {
            Ok(answer) => StepEvent::Done { request, answer, address: None },
            Err(error) => return Err(self.not_done(step, request, begun.state.calls, error).await),
        };
        let done = self.record_outcome(step, Direction::Do, |state| match state.phase {
            // Also that of another attempt, which was begun when the time of this one was over.
            Phase::Doing(_) | Phase::NotDone => Ok(Some(event.clone())),
            Phase::Done => Ok(None),
            _ => {
                tracing::error!(%step, "an effect ended late: by then the step was undone, or refused");
                let error = "its effect ended late, when the step was undone or refused".to_owned();
                Err(ParticipantError::Unknown { step: step.clone(), error })
            }
        });
        match done.await {
            Ok(done) => answer(step, &done.state),
            Err(ParticipantError::Invalid(invalid)) => {
                let error = StepError::unknown(format!("its answer cannot be stored: {invalid}"));
                Err(self.not_done(step, String::new(), begun.state.calls, error).await)
            }
            Err(error) => Err(error.after_the_effect(step)),
        }
    }

    /// Records that call number `call` has failed, and gives the error to answer with.
    async fn not_done(&self, step: &StepKey, request: String, call: u32, error: StepError) -> ParticipantError {
        let is_final = matches!(error, StepError::Refused { .. });
        let event = match &error {
            StepError::Refused { reason } => {
                StepEvent::DoRefused { request, reason: text::storable(reason), address: None }
            }
            error => StepEvent::DoFailed { error: text::storable(&error.to_string()) },
        };
        let is_ours = |state: &StepState| matches!(state.phase, Phase::Doing(_)) && state.calls == call;
        let recorded =
            self.record_outcome(step, Direction::Do, |state| Ok(is_ours(state).then(|| event.clone()))).await;
        match recorded {
            // What is final must be stored, or a repeat could still have its effect.
            Err(not_recorded) if is_final => not_recorded.after_the_effect(step),
            Ok(recorded) if is_final && recorded.events == 0 => {
                let error = format!("{error}, but another call was begun meanwhile");
                ParticipantError::Unknown { step: step.clone(), error }
            }
            Err(not_recorded) => {
                tracing::warn!(%step, error = %not_recorded, "a failure is not recorded: the step stays in flight");
                ParticipantError::of_effect(step, error)
            }
            Ok(_) => ParticipantError::of_effect(step, error),
        }
    }

    /// Undoes a step. `undo` runs if the step was ever begun, with the answer of the do if there is one; without an answer the effect
    /// may have happened or not. If nothing was begun, a tombstone is left and `undo` does not run. If it was undone before, nothing
    /// happens. From then on the step is not done any more.
    ///
    /// # Errors
    /// [`ParticipantError::InFlight`], also while a do runs, and [`ParticipantError::Transient`], after which it may be sent again;
    /// [`ParticipantError::Refused`] and [`ParticipantError::Unknown`] as `undo` answers, after which it may be sent again too;
    /// [`ParticipantError::Answer`]; [`ParticipantError::Invalid`] with the field `request_key`; [`ParticipantError::Record`].
    ///
    /// # Cancel safety
    /// As of [`Participant::do_remote`].
    pub async fn undo_remote<T, F, Fut>(&self, step: &StepKey, undo: F) -> Result<(), ParticipantError>
    where
        T: DeserializeOwned,
        F: FnOnce(StepCall, Option<T>) -> Fut,
        Fut: Future<Output = Result<(), StepError>>,
    {
        let limit = self.limit();
        let call = self.call(step, Direction::Undo, limit);
        let begun = self
            .record(self.context(step, Direction::Undo)?, step, |state| {
                let now = self.now();
                Ok(match state.to_undo(step, self.address.as_deref(), now)? {
                    ToUndo::Nothing => None,
                    ToUndo::Tombstone => Some(StepEvent::Undone),
                    ToUndo::Undo => {
                        // Before anything is begun.
                        stored_answer::<T>(step, state)?;
                        Some(StepEvent::UndoBegun { at: now, until: after(now, limit) })
                    }
                })
            })
            .await?;
        if begun.state.phase == Phase::Undone {
            return Ok(());
        }
        let answer = stored_answer(step, &begun.state)?;
        let result = within(&call, limit, undo(call.clone(), answer)).await;
        let ended = self
            .record_outcome(step, Direction::Undo, |state| {
                let is_ours = state.calls == begun.state.calls;
                Ok(match (&state.phase, &result) {
                    (Phase::Undoing(_) | Phase::NotUndone { .. }, Ok(())) => Some(StepEvent::Undone),
                    (Phase::Undoing(_), Err(error)) if is_ours => {
                        Some(StepEvent::UndoFailed { error: text::storable(&error.to_string()) })
                    }
                    _ => None,
                })
            })
            .await;
        match (result, ended) {
            (Ok(()), Ok(_)) => Ok(()),
            (Ok(()), Err(not_recorded)) => Err(not_recorded.after_the_effect(step)),
            (Err(error), ended) => {
                if let Err(not_recorded) = ended {
                    tracing::warn!(%step, error = %not_recorded, "a failure is not recorded: the undo stays in flight");
                }
                Err(ParticipantError::of_effect(step, error))
            }
        }
    }
}

/// The outcome of an effect, which is dropped at its deadline.
async fn within<T>(
    call: &StepCall,
    limit: Duration,
    effect: impl Future<Output = Result<T, StepError>>,
) -> Result<T, StepError> {
    let deadline: Option<tokio::time::Instant> = Deadline::into(call.deadline());
    match deadline {
        None => effect.await,
        Some(deadline) => tokio::time::timeout_at(deadline, effect)
            .await
            .unwrap_or_else(|_| Err(StepError::unknown(format!("it did not end within {limit:?}")))),
    }
}

fn answer_to_keep<T: Serialize>(answer: T) -> Result<Value, StepError> {
    // The effect has happened, so what cannot be stored must lead to an undo.
    serde_json::to_value(answer).map_err(|e| StepError::unknown(format!("its answer is no JSON: {e}")))
}

/// The answer of a step that is done. The first caller gets it as it is stored, as repeats do.
pub(super) fn answer<T: DeserializeOwned>(step: &StepKey, state: &StepState) -> Result<T, ParticipantError> {
    let value = state.answer.clone().unwrap_or_default();
    serde_json::from_value(value).map_err(|source| ParticipantError::Answer { step: step.clone(), source })
}

fn stored_answer<T: DeserializeOwned>(step: &StepKey, state: &StepState) -> Result<Option<T>, ParticipantError> {
    state.answer.as_ref().map(|_| answer(step, state)).transpose()
}
