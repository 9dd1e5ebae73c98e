//! What an instance does next: pure, so that every order of outcomes can be tried.

use annals_eventstore::Evolve;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::time::Duration;

use crate::call::StepError;
use crate::definition::{Definition, Kind, Step, Undo};
use crate::event::{Direction, SagaEvent};
use crate::instance::{Instance, Status, signal};
use crate::mismatch::mismatch;
use crate::retry::StepRetry;
use crate::text;

/// A call that is due: of a remote step whose intent is recorded, or of a local one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Due {
    /// The step, by index.
    pub(crate) step: usize,
    pub(crate) direction: Direction,
    /// 0 for a local step, whose outcome is recorded with its effect.
    pub(crate) attempt: u32,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Succeeded(Value),
    Refused {
        reason: String,
        /// Whether an attempt inside of the call may have had its effect.
        may_have_happened: bool,
    },
    Failed {
        error: String,
        may_have_happened: bool,
        retry_after: Option<Duration>,
        /// Whether a guard of the policy refused it before any attempt.
        not_made: bool,
    },
}

impl Outcome {
    pub(crate) fn of(error: StepError) -> Self {
        match error {
            StepError::Refused { reason } => Self::Refused { reason, may_have_happened: false },
            StepError::Transient { error, retry_after } => {
                Self::Failed { error, may_have_happened: false, retry_after, not_made: false }
            }
            StepError::Unknown { error } => {
                Self::Failed { error, may_have_happened: true, retry_after: None, not_made: false }
            }
        }
    }
}

/// The moment that is `wait` after `now`, the end of the calendar at the latest.
pub(crate) fn after(now: Timestamp, wait: Duration) -> Timestamp {
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// A definition and the state of one of its instances at a moment.
pub(crate) struct Planner<'d, C> {
    definition: &'d Definition<C>,
    instance: Instance,
    now: Timestamp,
    events: Vec<SagaEvent>,
}

impl<'d, C> Planner<'d, C> {
    pub(crate) fn new(definition: &'d Definition<C>, instance: &Instance, now: Timestamp) -> Self {
        Self { definition, instance: instance.clone(), now, events: Vec::new() }
    }

    /// Adds an event, which what follows is planned on.
    pub(crate) fn push(&mut self, event: SagaEvent) {
        self.instance.evolve(&event);
        self.events.push(event);
    }

    /// Everything that can be recorded now: intents of calls that are due, timers, signals that are taken, and how the instance ends.
    pub(crate) fn plan(mut self) -> Vec<SagaEvent> {
        // Each event settles something that is finite: steps, their attempts, the status.
        while let Some(event) = self.next() {
            self.push(event);
        }
        if self.instance.is_under_way() && self.instance.waits.is_none() && self.due().is_empty() {
            self.push(SagaEvent::WaitBegun { step: self.waits_at(), until: self.wake_at() });
        }
        self.events
    }

    /// A call whose outcome nobody recorded: it counts, so that a step that ends its process does not do so for ever.
    pub(crate) fn interrupted(&mut self, due: &Due) {
        let step = &self.definition.steps()[due.step];
        let forgiven = self.instance.step(&step.name).progress(due.direction).forgiven;
        let may_go_on = due.attempt.saturating_sub(forgiven) < self.retry(step, due.direction).most_interrupted();
        self.push(SagaEvent::Failed {
            step: step.name.clone(),
            direction: due.direction,
            attempt: due.attempt,
            error: "the process ended before the outcome was recorded".to_owned(),
            may_have_happened: true,
            retry_at: may_go_on.then_some(self.now),
            not_made: false,
        });
    }

    /// The end of a plan for an instance that cannot go on in this build.
    pub(crate) fn stuck(mut self, reason: String) -> Vec<SagaEvent> {
        self.push(SagaEvent::Stuck { step: None, reason });
        self.events
    }

    /// How the instance ends, if no further call is needed for that.
    fn plan_end(mut self) -> Option<Vec<SagaEvent>> {
        while let Some(event) = self.next() {
            if matches!(event, SagaEvent::Begun { .. }) {
                return None;
            }
            self.push(event);
        }
        self.instance.status.is_final().then_some(self.events)
    }

    /// The first step that is in the way of an instance which waits.
    fn waits_at(&self) -> Option<String> {
        let steps = self.definition.steps();
        let is_next = |index: &usize| match self.instance.status {
            Status::Compensating => self.can_undo(*index),
            _ => !self.is_done(*index) && steps[*index].after.iter().all(|&before| self.is_done(before)),
        };
        (0..steps.len()).find(is_next).map(|index| steps[index].name.clone())
    }

    /// The same of an instance that is under way.
    pub(crate) fn waiting_at(&self) -> Option<String> {
        self.instance.is_under_way().then(|| self.waits_at()).flatten()
    }

    fn next(&self) -> Option<SagaEvent> {
        match self.instance.status {
            Status::Running => self.next_of_running(),
            Status::Compensating => self.next_of_compensating(),
            Status::NotStarted | Status::Stuck | Status::Completed | Status::Compensated => None,
        }
    }

    fn next_of_running(&self) -> Option<SagaEvent> {
        if let Some(mismatch) = mismatch(self.definition, &self.instance) {
            return Some(SagaEvent::Stuck { step: None, reason: mismatch });
        }
        let steps = self.definition.steps();
        if let Some((step, error)) = self.failed(Direction::Do) {
            return Some(self.fail(Some(&step), error));
        }
        if self.instance.deadline.is_some_and(|deadline| self.now >= deadline) && !self.is_in_time() {
            return Some(self.fail(None, "its deadline has passed".to_owned()));
        }
        let mut all_done = true;
        for (index, step) in steps.iter().enumerate() {
            let state = self.instance.step(&step.name);
            all_done &= self.is_done(index);
            if self.is_done(index) || !step.after.iter().all(|&before| self.is_done(before)) {
                continue;
            }
            let event = match &step.kind {
                Kind::Remote(..) if state.done.open => None,
                Kind::Remote(..) => self.begin(step, Direction::Do),
                Kind::Local(_) => None,
                Kind::Signal(_) => {
                    self.instance.signals.get(&step.name).and_then(|waiting| waiting.front()).map(|payload| {
                        SagaEvent::Succeeded {
                            step: step.name.clone(),
                            direction: Direction::Do,
                            attempt: 0,
                            output: payload.clone(),
                        }
                    })
                }
                Kind::Timer(wait) => match state.due {
                    None => Some(SagaEvent::TimerSet { step: step.name.clone(), due: after(self.now, *wait) }),
                    Some(due) => (self.now >= due).then(|| SagaEvent::Succeeded {
                        step: step.name.clone(),
                        direction: Direction::Do,
                        attempt: 0,
                        output: Value::Null,
                    }),
                },
                Kind::Approval(limit) if !state.asked => Some(SagaEvent::ApprovalAsked {
                    step: step.name.clone(),
                    at: self.now,
                    until: limit.map(|limit| after(self.now, limit)),
                }),
                Kind::Approval(_) => state.due.filter(|due| self.now >= *due).map(|due| SagaEvent::Refused {
                    step: step.name.clone(),
                    direction: Direction::Do,
                    attempt: 0,
                    reason: format!("nobody has answered until {due}"),
                    may_have_happened: false,
                }),
                Kind::Pivot => Some(SagaEvent::PivotPassed),
            };
            if event.is_some() {
                return event;
            }
        }
        all_done.then_some(SagaEvent::Completed)
    }

    /// The first step that has failed in a direction, and how.
    fn failed(&self, direction: Direction) -> Option<(String, String)> {
        self.definition.steps().iter().find_map(|step| {
            let state = self.instance.step(&step.name);
            let progress = state.progress(direction);
            progress.has_failed().then(|| (step.name.clone(), progress.error.clone().unwrap_or_default()))
        })
    }

    /// What happens to an instance that cannot be completed: it is compensated, or past the pivot it waits for a person.
    fn fail(&self, step: Option<&str>, reason: String) -> SagaEvent {
        if self.instance.pivot_passed {
            return SagaEvent::Stuck { step: step.map(str::to_owned), reason };
        }
        SagaEvent::CompensationBegun { reason, until: after(self.now, self.definition.inner.compensation) }
    }

    /// Whether the deadline does not matter any more.
    fn is_in_time(&self) -> bool {
        (0..self.definition.steps().len()).all(|index| self.is_done(index))
    }

    fn next_of_compensating(&self) -> Option<SagaEvent> {
        if let Some(mismatch) = mismatch(self.definition, &self.instance) {
            return Some(SagaEvent::Stuck { step: None, reason: mismatch });
        }
        let steps = self.definition.steps();
        if let Some((step, error)) = self.failed(Direction::Undo) {
            return Some(SagaEvent::Stuck { step: Some(step), reason: format!("undo: {error}") });
        }
        let mut waits = false;
        for (index, step) in steps.iter().enumerate() {
            let state = self.instance.step(&step.name);
            if let Some(event) = self.reported(index) {
                return Some(event);
            }
            // A call that was begun before the compensation is waited for.
            waits |= state.done.open || self.needs_undo(index);
            if let Undo::Remote(..) = step.undo
                && self.can_undo(index)
                && !state.undone.open
                && let Some(event) = self.begin(step, Direction::Undo)
            {
                if self.is_late() {
                    break;
                }
                return Some(event);
            }
        }
        if !waits {
            return Some(SagaEvent::Compensated);
        }
        let none_open = !steps.iter().any(|step| {
            let state = self.instance.step(&step.name);
            state.done.open || state.undone.open
        });
        (self.is_late() && none_open).then(|| SagaEvent::Stuck {
            step: (0..steps.len()).find(|&index| self.can_undo(index)).map(|index| steps[index].name.clone()),
            reason: "the compensation took too long".to_owned(),
        })
    }

    /// What a signal says about a step that others do and undo: also that it was done, as it must be undone then.
    fn reported(&self, index: usize) -> Option<SagaEvent> {
        let step = &self.definition.steps()[index];
        let direction = match step.undo {
            Undo::Signal if !self.is_done(index) => Direction::Do,
            Undo::Signal if self.can_undo(index) => Direction::Undo,
            _ => return None,
        };
        let output = self.instance.signals.get(&signal(&step.name, direction))?.front()?.clone();
        Some(SagaEvent::Succeeded { step: step.name.clone(), direction, attempt: 0, output })
    }

    fn is_late(&self) -> bool {
        self.instance.until.is_some_and(|until| self.now >= until)
    }

    /// The intent of the next call of a remote step, if it is time for it.
    fn begin(&self, step: &Step<C>, direction: Direction) -> Option<SagaEvent> {
        let state = self.instance.step(&step.name);
        let progress = state.progress(direction);
        if progress.end.is_some() || progress.retry_at.is_some_and(|at| self.now < at) {
            return None;
        }
        Some(SagaEvent::Begun { step: step.name.clone(), direction, attempt: progress.attempts + 1 })
    }

    fn is_done(&self, index: usize) -> bool {
        let step = &self.definition.steps()[index];
        match step.kind {
            Kind::Pivot => self.instance.pivot_passed,
            _ => self.instance.step(&step.name).done.is_settled(),
        }
    }

    fn needs_undo(&self, index: usize) -> bool {
        let step = &self.definition.steps()[index];
        !matches!(step.undo, Undo::Nothing(_)) && self.instance.step(&step.name).has_effect()
    }

    /// Whether a step can be undone now: everything that came after it is undone, and no call of those is under way.
    fn can_undo(&self, index: usize) -> bool {
        let steps = self.definition.steps();
        if !self.needs_undo(index) || self.instance.step(&steps[index].name).done.open {
            return false;
        }
        let mut later = vec![false; steps.len()];
        for other in index + 1..steps.len() {
            later[other] = steps[other].after.iter().any(|&before| before == index || later[before]);
        }
        (0..steps.len())
            .filter(|&other| later[other])
            .all(|other| !self.needs_undo(other) && !self.instance.step(&steps[other].name).done.open)
    }

    /// The calls that are due on the present state.
    pub(crate) fn due(&self) -> Vec<Due> {
        let mut due = Vec::new();
        for (index, step) in self.definition.steps().iter().enumerate() {
            let state = self.instance.step(&step.name);
            for direction in [Direction::Do, Direction::Undo] {
                let progress = state.progress(direction);
                let is_due =
                    if self.is_local(step, direction) { self.local_is_due(index, direction) } else { progress.open };
                if is_due {
                    let attempt = if self.is_local(step, direction) { 0 } else { progress.attempts };
                    due.push(Due { step: index, direction, attempt });
                }
            }
        }
        due
    }

    fn is_local(&self, step: &Step<C>, direction: Direction) -> bool {
        match direction {
            Direction::Do => matches!(step.kind, Kind::Local(_)),
            Direction::Undo => matches!(step.undo, Undo::Local(_)),
        }
    }

    fn local_is_due(&self, index: usize, direction: Direction) -> bool {
        let step = &self.definition.steps()[index];
        if self.instance.step(&step.name).progress(direction).end.is_some() {
            return false;
        }
        match direction {
            Direction::Do => {
                self.instance.status == Status::Running && step.after.iter().all(|&before| self.is_done(before))
            }
            Direction::Undo => self.instance.status == Status::Compensating && self.can_undo(index) && !self.is_late(),
        }
    }

    /// When something will be due without any call: the end of a timer, of a wait before a retry, of a deadline.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        let instance = &self.instance;
        let ends = instance
            .steps
            .values()
            .filter_map(|state| state.due.filter(|_| instance.status == Status::Running && !state.done.is_settled()));
        let limit = match instance.status {
            Status::Running if !self.is_in_time() => instance.deadline,
            Status::Compensating => instance.until,
            _ => None,
        };
        if matches!(instance.status, Status::Running | Status::Compensating) {
            ends.chain(instance.next_try()).chain(limit).min()
        } else {
            None
        }
    }

    /// What is recorded about the outcome of a call, and what follows from it if it `goes_on`, else only its end if there is
    /// nothing left to be called. `None` if nobody waits for the outcome any more.
    pub(crate) fn outcome(mut self, due: &Due, outcome: Outcome, goes_on: bool) -> Option<Vec<SagaEvent>> {
        let step = &self.definition.steps()[due.step];
        let state = self.instance.step(&step.name);
        let progress = state.progress(due.direction);
        let is_open = match due.attempt {
            0 => self.local_is_due(due.step, due.direction),
            attempt => progress.open && progress.attempts == attempt,
        };
        if !is_open {
            return None;
        }
        let (name, direction, attempt) = (step.name.clone(), due.direction, due.attempt);
        let retry = self.retry(step, direction);
        self.push(match outcome {
            Outcome::Succeeded(output) => SagaEvent::Succeeded { step: name, direction, attempt, output },
            Outcome::Refused { reason, may_have_happened } => {
                let reason = text::storable(&reason);
                SagaEvent::Refused { step: name, direction, attempt, reason, may_have_happened }
            }
            Outcome::Failed { error, may_have_happened, retry_after, not_made } => {
                let wait = match not_made {
                    true => Some(retry.wait_for_room(progress.forgiven, retry_after)),
                    false => retry.wait(attempt - progress.forgiven.min(attempt), retry_after),
                };
                let (error, retry_at) = (text::storable(&error), wait.map(|wait| after(self.now, wait)));
                SagaEvent::Failed { step: name, direction, attempt, error, may_have_happened, retry_at, not_made }
            }
        });
        if goes_on {
            return Some(self.plan());
        }
        let outcome = self.events.clone();
        Some(self.plan_end().unwrap_or(outcome))
    }

    fn retry(&self, step: &Step<C>, direction: Direction) -> StepRetry {
        match direction {
            Direction::Do => step.retry.unwrap_or_default(),
            Direction::Undo => step.retry_undo.unwrap_or(StepRetry::UNDO),
        }
    }
}
