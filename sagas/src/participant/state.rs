//! The state of one step, and what its next call leads to: pure, so that every order of calls can be tried.

use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::Evolve;
use annals_macros::Aggregate;
use jiff::Timestamp;
use serde_json::Value;

use super::error::ParticipantError;
use super::event::StepEvent;
use super::key::StepKey;

/// The shortest wait that is asked for while a call is in flight.
pub(super) const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// The state of a step.
#[derive(Aggregate, Clone, Debug, Default, PartialEq)]
#[aggregate(name = "participant_step", id = StepKey, event = StepEvent)]
pub(crate) struct StepState {
    pub(crate) phase: Phase,
    /// The fingerprint of the first do, if there was one.
    request: Option<String>,
    /// The path of the handler that was called for it, if it was one.
    address: Option<Arc<str>>,
    /// Whether an effect may have been made, so that an undo must run.
    begun: bool,
    /// How many calls were begun.
    pub(crate) calls: u32,
    /// What the do has answered.
    pub(crate) answer: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Phase {
    #[default]
    New,
    Doing(Flight),
    /// The last do has failed, and may be made again.
    NotDone,
    Done,
    Refused {
        reason: String,
    },
    Undoing(Flight),
    /// The last undo has failed, and may be made again.
    NotUndone {
        error: String,
    },
    Undone,
}

/// The time of a call whose outcome is not recorded yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Flight {
    at: Timestamp,
    until: Timestamp,
}

impl Flight {
    /// The wait to ask for; `None` once its time is over. The longer the call has taken, the longer the wait.
    fn wait(self, now: Timestamp) -> Option<Duration> {
        let left = Duration::try_from(self.until.duration_since(now)).ok().filter(|left| !left.is_zero())?;
        let age = Duration::try_from(now.duration_since(self.at)).unwrap_or_default();
        Some(age.max(SHORTEST_WAIT).min(left))
    }
}

/// What an undo leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToUndo {
    /// It is undone.
    Nothing,
    /// Nothing was ever begun.
    Tombstone,
    /// The user's undo is due.
    Undo,
}

impl StepState {
    /// What a do leads to: the stored answer, or `None` if its effect is due.
    ///
    /// # Errors
    /// [`ParticipantError::Undone`], [`ParticipantError::OtherRequest`], [`ParticipantError::Refused`] or
    /// [`ParticipantError::InFlight`].
    pub(crate) fn to_do(
        &self,
        step: &StepKey,
        request: &str,
        now: Timestamp,
    ) -> Result<Option<&Value>, ParticipantError> {
        let is_other = self.request.as_deref().is_some_and(|first| first != request);
        match &self.phase {
            Phase::Undoing(_) | Phase::NotUndone { .. } | Phase::Undone => {
                Err(ParticipantError::Undone { step: step.clone() })
            }
            _ if is_other => Err(ParticipantError::OtherRequest { step: step.clone() }),
            Phase::New | Phase::NotDone => Ok(None),
            Phase::Doing(flight) => in_flight(step, *flight, now).map(|()| None),
            Phase::Done => Ok(self.answer.as_ref()),
            Phase::Refused { reason } => Err(ParticipantError::Refused { step: step.clone(), reason: reason.clone() }),
        }
    }

    /// What an undo leads to.
    ///
    /// # Errors
    /// [`ParticipantError::OtherRequest`] at another address than that of the do, where the undo of another step would run;
    /// [`ParticipantError::InFlight`], of a do too.
    pub(crate) fn to_undo(
        &self,
        step: &StepKey,
        address: Option<&str>,
        now: Timestamp,
    ) -> Result<ToUndo, ParticipantError> {
        let is_other = self.address.as_deref().zip(address).is_some_and(|(first, address)| first != address);
        match &self.phase {
            _ if is_other => Err(ParticipantError::OtherRequest { step: step.clone() }),
            Phase::Undone => Ok(ToUndo::Nothing),
            Phase::Doing(flight) | Phase::Undoing(flight) => in_flight(step, *flight, now).map(|()| ToUndo::Undo),
            _ if self.begun => Ok(ToUndo::Undo),
            _ => Ok(ToUndo::Tombstone),
        }
    }
}

fn in_flight(step: &StepKey, flight: Flight, now: Timestamp) -> Result<(), ParticipantError> {
    match flight.wait(now) {
        Some(retry_after) => Err(ParticipantError::InFlight { step: step.clone(), retry_after }),
        None => Ok(()),
    }
}

impl Evolve for StepState {
    fn evolve(&mut self, event: &StepEvent) {
        match event.clone() {
            StepEvent::DoBegun { request, at, until, address } => {
                (self.request, self.address) = (Some(request), address);
                (self.begun, self.calls) = (true, self.calls.saturating_add(1));
                self.phase = Phase::Doing(Flight { at, until });
            }
            StepEvent::Done { request, answer, address } => {
                self.address = self.address.take().or(address);
                (self.request, self.begun, self.answer) = (Some(request), true, Some(answer));
                self.phase = Phase::Done;
            }
            StepEvent::DoRefused { request, reason, address } => {
                self.address = self.address.take().or(address);
                self.request = Some(request);
                self.phase = Phase::Refused { reason };
            }
            StepEvent::DoFailed { error: _ } => self.phase = Phase::NotDone,
            StepEvent::UndoBegun { at, until } => {
                self.calls = self.calls.saturating_add(1);
                self.phase = Phase::Undoing(Flight { at, until });
            }
            StepEvent::Undone => self.phase = Phase::Undone,
            StepEvent::UndoFailed { error } => self.phase = Phase::NotUndone { error },
        }
    }
}
