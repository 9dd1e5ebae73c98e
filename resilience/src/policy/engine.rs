//! The order of the guards, written once: rate limit, retry, breaker, bulkhead, breaker again, attempt.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::call::Call;
use super::metrics::Metrics;
use super::settings::{Limits, PolicySettings};
use crate::breaker::{Breaker, Outcome, Permit, Refused};
use crate::bulkhead::{Bulkhead, Slot};
use crate::chaos::{Faced, Switch};
use crate::class::{Class, Judge};
use crate::deadline::{Deadline, DeadlineOver};
use crate::error::{CallError, LastBecause, Reason, Refusal, TimeLimit};
use crate::rate_limit::RateLimiter;
use crate::retry::{Delays, Retry, RetryBudget, Withdrawal};

pub(super) struct Engine {
    pub(super) name: Arc<str>,
    /// What it was made of, for those who look at it.
    pub(super) settings: PolicySettings,
    pub(super) limits: Limits,
    pub(super) rate_limit: Option<RateLimiter<()>>,
    pub(super) retry: Option<Retry>,
    pub(super) budget: Option<RetryBudget>,
    pub(super) breaker: Breaker,
    pub(super) bulkhead: Option<Bulkhead>,
    /// Each call gets its own generator of waits from this one.
    pub(super) rng: Mutex<fastrand::Rng>,
    pub(super) metrics: Metrics,
    pub(super) chaos: Switch,
}

/// How one attempt ended.
enum Ended {
    /// With a result of its class.
    By(Class),
    CutOff(TimeLimit),
    /// By chaos.
    Injected,
}

/// The right to make another attempt, and how the one before ended.
struct Again {
    right: Withdrawal,
    ended: Ended,
    retry_after: Option<Duration>,
}

/// One call with its attempts so far.
struct Run<'a, T, E> {
    engine: &'a Engine,
    deadline: Deadline,
    attempts: u32,
    cut_off: u32,
    /// The result of the last attempt, or of an earlier one if that was cut off.
    last: Option<Result<T, E>>,
    delays: Option<Delays>,
}

impl Engine {
    pub(super) async fn run<T, E, Fut>(
        &self,
        repeatable: impl Fn() -> bool,
        caller: Deadline,
        judge: &impl Judge<T, E>,
        mut operation: impl FnMut(Call) -> Fut,
    ) -> Result<T, CallError<E>>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        let deadline = caller.child(self.limits.longest);
        let mut run = Run { engine: self, deadline, attempts: 0, cut_off: 0, last: None, delays: None };
        if deadline.is_over() {
            return run.refused(Refusal::DeadlineOver);
        }
        if let Some(limiter) = &self.rate_limit
            && let Err(limited) = limiter.check(&())
        {
            return run.refused(Refusal::RateLimited(limited));
        }
        let mut again: Option<Again> = None;
        loop {
            let (slot, permit) = match self.enter(deadline).await {
                Ok(entered) => entered,
                Err(refusal) => return run.refused(refusal),
            };
            if deadline.is_over() {
                return run.refused(Refusal::DeadlineOver);
            }
            if let Some(Again { right, ended, retry_after }) = again.take()
                && !right.spend()
            {
                return run.ended(ended, NoNext::Last(LastBecause::BudgetUsed), retry_after);
            }
            if run.attempts > 0 {
                self.metrics.retries.increment(1);
            }
            let ended = run.attempt(permit, judge, &mut operation).await;
            // The result is recorded before the slot is free, so the next caller meets a breaker that knows it.
            drop(slot);
            let retry_after = match ended {
                Ended::By(Class::Success) => {
                    if let Some(budget) = &self.budget {
                        budget.deposit();
                    }
                    // Gives the result as it is: the reason is for an `Err` that was judged a success.
                    return run.failed(LastBecause::NotTransient, None);
                }
                Ended::By(Class::Ignored) => return run.failed(LastBecause::CallAtFault, None),
                Ended::By(Class::Failure) => return run.failed(LastBecause::NotTransient, None),
                Ended::By(Class::Transient { retry_after }) => retry_after,
                Ended::CutOff(TimeLimit::Attempt(_)) | Ended::Injected => None,
                Ended::CutOff(TimeLimit::Deadline) => return run.timed_out(TimeLimit::Deadline),
            };
            let wait = match run.wait_for_next(repeatable(), retry_after) {
                Ok((wait, right)) => {
                    again = right.map(|right| Again { right, ended, retry_after });
                    wait
                }
                Err(reason) => return run.ended(ended, reason, retry_after),
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Breaker, bulkhead, and the breaker again, since it may have opened while the call waited for its slot.
    async fn enter(&self, deadline: Deadline) -> Result<(Option<Slot>, Permit), Refusal> {
        self.breaker.check().map_err(Refusal::BreakerOpen)?;
        let slot = match &self.bulkhead {
            None => None,
            Some(bulkhead) => Some(match bulkhead.try_enter() {
                Some(slot) => slot,
                None => tokio::select! {
                    biased;
                    refused = self.breaker.opened() => return Err(Refusal::BreakerOpen(refused)),
                    slot = bulkhead.enter(deadline) => slot.map_err(Refusal::NoSlot)?,
                },
            }),
        };
        let permit = self.breaker.admit().map_err(Refusal::BreakerOpen)?;
        Ok((slot, permit))
    }
}

/// Why there is no further attempt.
enum NoNext {
    Last(LastBecause),
    Refused(Refusal),
}

impl<T, E> Run<'_, T, E> {
    async fn attempt<Fut>(
        &mut self,
        permit: Permit,
        judge: &impl Judge<T, E>,
        operation: &mut impl FnMut(Call) -> Fut,
    ) -> Ended
    where
        Fut: Future<Output = Result<T, E>>,
    {
        let Engine { name, limits, metrics, chaos, .. } = self.engine;
        self.attempts += 1;
        let begin = Instant::now();
        let deadline = self.deadline.earlier(begin.checked_add(limits.timeout).map_or(Deadline::NONE, Deadline::at));
        let call = Call { attempt: self.attempts, deadline, connect: limits.connect, read: limits.read };
        let faced = match chaos.next() {
            None => deadline.run(operation(call)).await.map(Faced::Answer),
            Some(fate) => deadline.run(fate.around(|| operation(call))).await,
        };
        if !matches!(faced, Ok(Faced::Answer(_))) {
            // This attempt has no result, and an earlier `Ok` is not that of the call.
            self.last = self.last.take().filter(Result::is_err);
        }
        let result = match faced {
            Ok(Faced::Answer(result)) => result,
            Ok(Faced::Error | Faced::Cancelled) => {
                permit.record(Outcome::Failure);
                self.cut_off += u32::from(matches!(faced, Ok(Faced::Cancelled)));
                metrics.attempt(Class::TRANSIENT);
                tracing::warn!(policy = &**name, attempt = self.attempts, "chaos made an attempt fail");
                return Ended::Injected;
            }
            Err(DeadlineOver) => return self.cut_off(permit, begin, deadline),
        };
        let class = judge.judge(&result);
        permit.record(class.outcome());
        metrics.attempt(class);
        match class {
            Class::Success => tracing::debug!(policy = &**name, attempt = self.attempts, "an attempt succeeded"),
            // The error itself may hold what does not belong into a log; its class does.
            _ => tracing::warn!(policy = &**name, attempt = self.attempts, ?class, "an attempt failed"),
        }
        self.last = Some(result);
        Ended::By(class)
    }

    fn cut_off(&mut self, permit: Permit, begin: Instant, deadline: Deadline) -> Ended {
        let Engine { name, limits, metrics, .. } = self.engine;
        self.cut_off += 1;
        metrics.timed_out.increment(1);
        let given = deadline.instant().map_or(limits.timeout, |end| end.saturating_duration_since(begin));
        tracing::warn!(policy = &**name, attempt = self.attempts, ?given, "an attempt was cut off");
        // A caller in a hurry says nothing about the dependency; one who left a hundredth less than the limit does.
        if given + limits.timeout / 100 >= limits.timeout {
            permit.record(Outcome::Failure);
            Ended::CutOff(TimeLimit::Attempt(limits.timeout))
        } else {
            permit.record(Outcome::Abandoned);
            Ended::CutOff(TimeLimit::Deadline)
        }
    }

    /// How long to wait before the next attempt, and the right to make it.
    fn wait_for_next(
        &mut self,
        repeatable: bool,
        retry_after: Option<Duration>,
    ) -> Result<(Duration, Option<Withdrawal>), NoNext> {
        let engine = self.engine;
        let Some(retry) = engine.retry.as_ref().filter(|retry| repeatable && retry.attempts > 1) else {
            return Err(NoNext::Last(LastBecause::OnlyOne));
        };
        if self.attempts >= retry.attempts {
            return Err(NoNext::Last(LastBecause::AttemptsUsed));
        }
        let delays = self.delays.get_or_insert_with(|| {
            let mut rng = engine.rng.lock().unwrap_or_else(PoisonError::into_inner);
            retry.delays_with(rng.fork())
        });
        let wait = delays.next().unwrap_or(retry.cap).max(retry_after.unwrap_or_default());
        // Asked before the budget: what the breaker refuses takes nothing from it.
        if let Err(refused) = engine.breaker.check()
            && !matches!(refused, Refused::Open { retry_after } if retry_after <= wait)
            && refused != Refused::ProbesTaken
        {
            return Err(NoNext::Refused(Refusal::BreakerOpen(refused)));
        }
        if self.deadline.left().is_some_and(|left| left <= wait) {
            return Err(NoNext::Last(LastBecause::DeadlineTooNear));
        }
        let withdrawal = match &engine.budget {
            None => None,
            Some(budget) => Some(budget.withdraw().ok_or(NoNext::Last(LastBecause::BudgetUsed))?),
        };
        tracing::info!(policy = &*engine.name, attempt = self.attempts, ?wait, "the call is made again");
        Ok((wait, withdrawal))
    }

    fn ended(self, ended: Ended, why: NoNext, retry_after: Option<Duration>) -> Result<T, CallError<E>> {
        match (why, ended) {
            (NoNext::Refused(refusal), _) => self.refused(refusal),
            (NoNext::Last(_), Ended::CutOff(limit)) => self.timed_out(limit),
            (NoNext::Last(_), Ended::Injected) => self.end(Reason::Injected),
            (NoNext::Last(because), Ended::By(_)) => self.failed(because, retry_after),
        }
    }

    fn failed(self, last_because: LastBecause, retry_after: Option<Duration>) -> Result<T, CallError<E>> {
        self.end(Reason::Failed { last_because, retry_after })
    }

    fn timed_out(self, limit: TimeLimit) -> Result<T, CallError<E>> {
        self.end(Reason::TimedOut { limit })
    }

    fn refused(self, refusal: Refusal) -> Result<T, CallError<E>> {
        self.engine.metrics.refusal(refusal.guard());
        self.end(Reason::Refused(refusal))
    }

    /// An `Ok` is the caller's answer also when it was judged a failure and no further attempt was made.
    fn end(self, reason: Reason) -> Result<T, CallError<E>> {
        let source = match self.last {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(source)) => Some(source),
            None => None,
        };
        let Self { engine, attempts, cut_off, .. } = self;
        Err(CallError { policy: engine.name.clone(), attempts, cut_off, reason, source })
    }
}
