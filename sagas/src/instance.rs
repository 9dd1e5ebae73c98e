//! The state of one instance: the fold of its stream.

use std::collections::{BTreeMap, VecDeque};

use annals_eventstore::Evolve;
use annals_macros::Aggregate;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::{Direction, Intervention, SagaEvent};
use crate::person::Decision;

annals_eventstore::text_id! {
    /// What names an instance of a saga. No two sagas of a tenant share one, whatever their names.
    pub struct SagaId;
}

/// Where an instance stands.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// There is no such instance.
    #[default]
    NotStarted,
    /// Its steps are being done.
    Running,
    /// Its finished steps are being undone.
    Compensating,
    /// It waits for a person.
    Stuck,
    /// All steps are done.
    Completed,
    /// All finished steps are undone.
    Compensated,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotStarted => "not started",
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Stuck => "stuck",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
        })
    }
}

impl Status {
    /// Whether nothing will happen any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated)
    }
}

/// The state of an instance.
#[derive(Aggregate, Clone, Debug, Default, PartialEq)]
#[aggregate(name = "saga", id = SagaId, event = SagaEvent)]
pub struct Instance {
    pub(crate) saga: String,
    pub(crate) definition: String,
    pub(crate) data: Value,
    pub(crate) started_at: Timestamp,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) status: Status,
    /// What it did when it became stuck.
    pub(crate) was: Status,
    pub(crate) pivot_passed: bool,
    pub(crate) steps: BTreeMap<String, StepState>,
    /// The steps that are done, in the order of their outcomes.
    pub(crate) done: Vec<String>,
    /// Signals that no step has taken yet, by step.
    pub(crate) signals: BTreeMap<String, VecDeque<Value>>,
    pub(crate) stuck_at: Option<String>,
    pub(crate) reason: Option<String>,
    /// Until when a compensation must have ended.
    pub(crate) until: Option<Timestamp>,
    /// Set while nothing is to be done for it: when there is something again, if no signal comes before.
    pub(crate) waits: Option<Wait>,
    /// What a person did last.
    pub(crate) decision: Option<Decision>,
    /// The requests of people that were followed, by their keys.
    pub(crate) requests: BTreeMap<String, Decision>,
}

/// A wait for a signal or a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) until: Option<Timestamp>,
}

/// The name under which signals for a step wait. That a step was undone is signalled under a name that no step has.
pub(crate) fn signal(step: &str, direction: Direction) -> String {
    match direction {
        Direction::Do => step.to_owned(),
        Direction::Undo => format!("{step}/undo"),
    }
}

/// What a step can be, in words.
pub(crate) mod kind {
    pub(crate) const LOCAL: &str = "local";
    pub(crate) const REMOTE: &str = "remote";
    pub(crate) const SIGNAL: &str = "signal";
    pub(crate) const TIMER: &str = "timer";
    pub(crate) const APPROVAL: &str = "approval";
    pub(crate) const PIVOT: &str = "pivot";
}

/// What is known of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct StepState {
    pub(crate) done: Progress,
    pub(crate) undone: Progress,
    pub(crate) output: Value,
    /// When its timer, or the time to answer it, ends.
    pub(crate) due: Option<Timestamp>,
    /// Whether a person was asked for approval.
    pub(crate) asked: bool,
    /// How a person answered.
    pub(crate) answer: Option<Decision>,
    /// What it was in the build that began it.
    pub(crate) kind: Option<&'static str>,
}

/// The calls of one step in one direction.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Progress {
    /// How many calls were begun.
    pub(crate) attempts: u32,
    /// How many of them do not count: a person has allowed more since, or they were not made.
    pub(crate) forgiven: u32,
    /// Whether the last one has no outcome yet.
    pub(crate) open: bool,
    pub(crate) end: Option<End>,
    /// Whether any of them may have had its effect.
    pub(crate) may_have_happened: bool,
    pub(crate) retry_at: Option<Timestamp>,
    /// How the last call failed.
    pub(crate) error: Option<String>,
}

/// How the calls of a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Succeeded,
    /// For good, or all attempts were made.
    Failed,
    /// A person decided so.
    Skipped,
}

impl Progress {
    /// Whether the step counts as done, or as undone.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.end, Some(End::Succeeded | End::Skipped))
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.end == Some(End::Failed)
    }
}

impl StepState {
    pub(crate) fn progress(&self, direction: Direction) -> &Progress {
        match direction {
            Direction::Do => &self.done,
            Direction::Undo => &self.undone,
        }
    }

    /// Whether it waits for the answer of a person, as long as the instance runs.
    pub(crate) fn asks(&self) -> bool {
        self.asked && self.done.end.is_none()
    }

    fn progress_mut(&mut self, direction: Direction) -> &mut Progress {
        match direction {
            Direction::Do => &mut self.done,
            Direction::Undo => &mut self.undone,
        }
    }

    /// Whether it has, or may have had, an effect that is not undone.
    pub(crate) fn has_effect(&self) -> bool {
        (self.done.end == Some(End::Succeeded) || self.done.may_have_happened) && !self.undone.is_settled()
    }
}

impl Instance {
    pub(crate) fn step(&self, name: &str) -> StepState {
        self.steps.get(name).cloned().unwrap_or_default()
    }

    fn progress_mut(&mut self, step: &str, direction: Direction) -> &mut Progress {
        self.steps.entry(step.to_owned()).or_default().progress_mut(direction)
    }

    /// Whether the signal that a step is done, or undone, has come.
    pub(crate) fn has_signal(&self, step: &str, direction: Direction) -> bool {
        self.step(step).progress(direction).is_settled() || self.signals.contains_key(&signal(step, direction))
    }

    /// The signal that counts for a step: that which it has taken, or the first that waits for it.
    pub(crate) fn signalled(&self, step: &str) -> Option<&Value> {
        let taken = self.steps.get(step).filter(|state| state.done.is_settled()).map(|state| &state.output);
        taken.or_else(|| self.signals.get(step)?.front())
    }

    /// Whether steps are being done or undone.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self.status, Status::Running | Status::Compensating)
    }

    /// Whether steps are being done, or will be if a person lets it go on.
    pub(crate) fn goes_forward(&self) -> bool {
        self.status == Status::Running || self.status == Status::Stuck && self.was == Status::Running
    }

    /// What is known of a step that is begun as one of this kind.
    fn begin(&mut self, step: &str, kind: &'static str) -> &mut StepState {
        let state = self.steps.entry(step.to_owned()).or_default();
        state.kind.get_or_insert(kind);
        state
    }

    /// The steps that wait for the approval of a person.
    pub(crate) fn asks(&self) -> impl Iterator<Item = (&String, &StepState)> {
        let runs = self.status == Status::Running;
        self.steps.iter().filter(move |(_, state)| runs && state.asks())
    }

    /// When a call that has failed is made again, the first one if there are several.
    pub(crate) fn next_try(&self) -> Option<Timestamp> {
        let tries = self.steps.values().flat_map(|state| match self.status {
            Status::Running => [state.done.retry_at, state.undone.retry_at],
            Status::Compensating => [None, state.undone.retry_at],
            _ => [None, None],
        });
        tries.flatten().min()
    }

    /// The direction in which a failed step was in the way.
    pub(crate) fn direction_when_stuck(&self) -> Direction {
        if self.was == Status::Compensating { Direction::Undo } else { Direction::Do }
    }

    fn intervened(&mut self, decision: Decision, until: Option<Timestamp>) {
        let direction = self.direction_when_stuck();
        let stuck_at = self.stuck_at.take();
        match &decision.intervention {
            Intervention::Retry | Intervention::Skip => {
                if let Some(step) = stuck_at {
                    let skip = decision.intervention == Intervention::Skip;
                    let state = self.steps.entry(step.clone()).or_default();
                    // A person is asked again, and has the whole time again.
                    (state.asked, state.answer) = (false, None);
                    let progress = state.progress_mut(direction);
                    progress.end = skip.then_some(End::Skipped);
                    progress.forgiven = progress.attempts;
                    progress.retry_at = None;
                    if skip && direction == Direction::Do {
                        self.done.push(step);
                    }
                }
                self.status = self.was;
                self.until = until.or(self.until);
                // A person has seen that it is late.
                self.deadline = None;
            }
            Intervention::Compensate | Intervention::Cancel => {
                self.status = Status::Compensating;
                self.until = until;
            }
            Intervention::Complete => self.status = Status::Completed,
            Intervention::Approve { step } | Intervention::Reject { step } => {
                self.steps.entry(step.clone()).or_default().answer = Some(decision.clone());
            }
        }
        self.reason = None;
        self.decision = Some(decision);
    }
}

impl Evolve for Instance {
    fn evolve(&mut self, event: &SagaEvent) {
        self.waits = None;
        self.reason = event.error_in(self.status).or_else(|| self.reason.take());
        let error = event.error();
        match event.clone() {
            SagaEvent::Started { saga, definition, data, deadline, at } => {
                let status = Status::Running;
                *self = Self { saga, definition, data, started_at: at, deadline, status, ..Self::default() };
            }
            SagaEvent::Begun { step, direction, attempt } => {
                if direction == Direction::Do {
                    self.begin(&step, kind::REMOTE);
                }
                let progress = self.progress_mut(&step, direction);
                (progress.attempts, progress.open, progress.retry_at) = (attempt, true, None);
            }
            SagaEvent::Succeeded { step, direction, attempt, output } => {
                let waiting = self.signals.get_mut(&signal(&step, direction));
                let signal = waiting.filter(|_| attempt == 0).and_then(VecDeque::pop_front);
                if attempt == 0 && direction == Direction::Do {
                    self.begin(&step, if signal.is_some() { kind::SIGNAL } else { kind::LOCAL });
                }
                let progress = self.progress_mut(&step, direction);
                (progress.open, progress.retry_at, progress.end) = (false, None, Some(End::Succeeded));
                if direction == Direction::Do {
                    self.steps.entry(step.clone()).or_default().output = output;
                    self.done.push(step);
                }
            }
            SagaEvent::Refused { step, direction, attempt, reason: _, may_have_happened } => {
                if attempt == 0 && direction == Direction::Do {
                    self.begin(&step, kind::LOCAL);
                }
                let progress = self.progress_mut(&step, direction);
                progress.may_have_happened |= may_have_happened;
                (progress.open, progress.retry_at, progress.end) = (false, None, Some(End::Failed));
                progress.error = error;
            }
            SagaEvent::Failed { step, direction, attempt: _, error: _, may_have_happened, retry_at, not_made } => {
                let progress = self.progress_mut(&step, direction);
                progress.may_have_happened |= may_have_happened;
                progress.forgiven += u32::from(not_made);
                (progress.open, progress.retry_at, progress.error) = (false, retry_at, error);
                if retry_at.is_none() {
                    progress.end = Some(End::Failed);
                }
            }
            SagaEvent::TimerSet { step, due } => self.begin(&step, kind::TIMER).due = Some(due),
            SagaEvent::ApprovalAsked { step, at: _, until } => {
                let state = self.begin(&step, kind::APPROVAL);
                (state.asked, state.due) = (true, until);
            }
            SagaEvent::SignalReceived { step, payload } => self.signals.entry(step).or_default().push_back(payload),
            SagaEvent::PivotPassed => self.pivot_passed = true,
            SagaEvent::CompensationBegun { reason: _, until } => {
                (self.status, self.until) = (Status::Compensating, Some(until));
            }
            SagaEvent::Stuck { step, reason: _ } => {
                self.was = self.status;
                (self.status, self.stuck_at) = (Status::Stuck, step);
            }
            SagaEvent::WaitBegun { step: _, until } => self.waits = Some(Wait { until }),
            SagaEvent::Intervened { intervention, actor, reason, at, request, until } => {
                let decision = Decision { intervention, actor, reason, at };
                self.requests.extend(request.map(|request| (request, decision.clone())));
                self.intervened(decision, until);
            }
            SagaEvent::Completed => self.status = Status::Completed,
            SagaEvent::Compensated => self.status = Status::Compensated,
        }
    }
}
