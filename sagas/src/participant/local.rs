//! Steps that are commands of an aggregate in the same store.

use annals_eventstore::{Context, ExecuteError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::ParticipantError;
use super::event::StepEvent;
use super::handle::{Participant, fingerprint, recording};
use super::key::StepKey;
use super::remote::answer;
use super::state::{Phase, SHORTEST_WAIT, StepState, ToUndo};
use crate::event::Direction;
use crate::local::{LocalCommand, NotDue, Record, RecordedWith};
use crate::text;

impl Participant {
    /// Does a step by a command of an aggregate in the same store, see [`command`](crate::command) and
    /// [`answering`](crate::answering). Its events and the answer are one append. If the step was done before, the stored answer
    /// is given, and nothing happens; a rejection is stored too, as the answer to repeats.
    ///
    /// `request` is what the command is made from, for its fingerprint: the same step with another request is refused. The tenant is that
    /// of the participant's context, whatever that of the repository is.
    ///
    /// # Errors
    /// [`ParticipantError::Refused`], [`ParticipantError::Undone`] and [`ParticipantError::OtherRequest`] for good;
    /// [`ParticipantError::Invalid`] with the field `body` if the request or the answer cannot be written as JSON, `request_key`, or
    /// that of an event; [`ParticipantError::Answer`]; [`ParticipantError::Record`]. Nothing happened, unless that is of the
    /// family *outcome unknown*.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown; send it again, or undo it.
    pub async fn do_local<Q, T>(
        &self,
        step: &StepKey,
        request: &Q,
        command: LocalCommand<T>,
    ) -> Result<T, ParticipantError>
    where
        Q: Serialize + ?Sized,
        T: DeserializeOwned,
    {
        let request = fingerprint(request)?;
        let record = |state: &StepState, decided: Result<Value, String>| {
            let is_due = matches!(state.to_do(step, &request, self.now()), Ok(None));
            let (request, address) = (request.clone(), self.address.clone());
            is_due.then(|| {
                vec![match decided {
                    Ok(answer) => StepEvent::Done { request, answer, address },
                    Err(reason) => StepEvent::DoRefused { request, reason: text::storable(&reason), address },
                }]
            })
        };
        let context = self.context(step, Direction::Do)?;
        let state = self.execute(context, step, command, &record).await?;
        match state.to_do(step, &request, self.now())? {
            Some(_) => answer(step, &state),
            // It was in flight, by an effect outside of the store, and its time is over by now.
            None => Err(ParticipantError::InFlight { step: step.clone(), retry_after: SHORTEST_WAIT }),
        }
    }

    /// Undoes a step by a command of an aggregate in the same store, whose events are one append with the end of the step. If
    /// the step was not done, a tombstone is left and the command is not executed. If it was undone before, nothing happens.
    /// From then on the step is not done any more.
    ///
    /// # Errors
    /// [`ParticipantError::Refused`] if the command is rejected, after which it may be sent again; others as of
    /// [`Participant::do_local`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown; send it again.
    pub async fn undo_local<T>(&self, step: &StepKey, command: LocalCommand<T>) -> Result<(), ParticipantError> {
        let context = self.context(step, Direction::Undo)?;
        let begun = self
            .record(context.clone(), step, |state| {
                let to_undo = state.to_undo(step, self.address.as_deref(), self.now())?;
                Ok((to_undo == ToUndo::Tombstone).then_some(StepEvent::Undone))
            })
            .await?;
        if begun.state.phase == Phase::Undone {
            return Ok(());
        }
        // A step that was begun is not new again, so it is still to be undone or was undone meanwhile.
        let record = |state: &StepState, decided: Result<Value, String>| {
            matches!(state.to_undo(step, self.address.as_deref(), self.now()), Ok(ToUndo::Undo)).then(|| {
                vec![match decided {
                    Ok(_) => StepEvent::Undone,
                    Err(error) => StepEvent::UndoFailed { error: text::storable(&error) },
                }]
            })
        };
        let state = self.execute(context, step, command, &record).await?;
        match &state.phase {
            Phase::NotUndone { error } => Err(ParticipantError::Refused { step: step.clone(), reason: error.clone() }),
            Phase::Undone => Ok(()),
            // It is in flight, by an effect outside of the store; perhaps its time is over by now.
            _ => Err(ParticipantError::InFlight { step: step.clone(), retry_after: SHORTEST_WAIT }),
        }
    }

    /// Executes a command together with what is recorded about its step, and gives the state of the step.
    async fn execute<T>(
        &self,
        context: Context,
        step: &StepKey,
        command: LocalCommand<T>,
        record: Record<'_, StepState>,
    ) -> Result<StepState, ParticipantError> {
        let at = RecordedWith { store: &self.store, context: &context, instances: &self.steps, id: step };
        match command.execute_with(at, record).await {
            Ok(executed) => Ok((*executed.state).clone()),
            Err(ExecuteError::Rejected(NotDue)) => {
                let loaded = self.steps.with(context).load(step).await;
                let loaded = loaded.map_err(|e| recording::<NotDue>(step, ExecuteError::Read(e)))?;
                Ok((*loaded.state).clone())
            }
            Err(error) => Err(recording(step, error)),
        }
    }
}
