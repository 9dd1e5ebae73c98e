//! How often a call of a step is made.

use std::time::Duration;

use annals_eventstore::Invalid;

/// The longest wait that a service may ask for.
const MOST_ASKED: Duration = Duration::from_secs(24 * 60 * 60);

/// How often the calls of a step are made, and how long to wait in between: the wait doubles after each call.
///
/// The waits are recorded, so they go on after a restart. Retries inside of one call, within milliseconds, are those of the
/// step's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepRetry {
    /// How many calls are made at most, from 1. One whose process ended before its outcome was recorded is made again also if it
    /// was the last one, until there were five in all. One that a
    /// guard of its policy refused, an open breaker or a full bulkhead say, is no call, and is made later.
    pub attempts: u32,
    /// The wait after the first one.
    pub first: Duration,
    /// The longest wait, unless the service asks for a longer one; a day at most.
    pub most: Duration,
}

impl Default for StepRetry {
    /// Five calls, within about 15 seconds.
    fn default() -> Self {
        Self { attempts: 5, first: Duration::from_secs(1), most: Duration::from_secs(60) }
    }
}

impl StepRetry {
    /// Twenty calls, within about 15 minutes: what is begun should be undone.
    pub(crate) const UNDO: Self = Self { attempts: 20, first: Duration::from_secs(1), most: Duration::from_secs(60) };

    /// The wait after a call that a guard of its policy refused, after `earlier` such ones.
    pub(crate) fn wait_for_room(&self, earlier: u32, asked: Option<Duration>) -> Duration {
        let room = Self { attempts: u32::MAX, ..*self };
        room.wait(earlier.min(u32::MAX - 2) + 1, asked).unwrap_or(self.most)
    }

    /// How many calls are made at most if the process ends in each.
    pub(crate) fn most_interrupted(&self) -> u32 {
        self.attempts.max(Self::default().attempts)
    }

    pub(crate) fn check(&self, step: &str) -> Result<(), Invalid> {
        if self.attempts == 0 {
            return Err(Invalid::new("attempts", format!("of step `{step}` are 0"), "allow one at least"));
        }
        if self.first > self.most {
            let problem = format!("of step `{step}` is {:?}, longer than `most`, {:?}", self.first, self.most);
            return Err(Invalid::new("first", problem, "make it the shorter one"));
        }
        Ok(())
    }

    /// The wait after attempt number `attempt`, and not less than the service asked for; `None` after the last one.
    pub(crate) fn wait(&self, attempt: u32, asked: Option<Duration>) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let doubled = 2_u32.checked_pow(attempt.saturating_sub(1)).and_then(|factor| self.first.checked_mul(factor));
        Some(doubled.unwrap_or(self.most).min(self.most).max(asked.unwrap_or_default().min(MOST_ASKED)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_end_with_the_last_attempt() {
        let retry = StepRetry { attempts: 100, first: Duration::from_secs(1), most: Duration::from_secs(60) };
        let seconds = |attempt| retry.wait(attempt, None).map(|wait| wait.as_secs());
        assert_eq!([1, 2, 3, 6, 7, 64, 99].map(seconds), [1, 2, 4, 32, 60, 60, 60].map(Some));
        assert_eq!(retry.wait(100, None), None);
        assert_eq!(retry.wait(1, Some(Duration::from_secs(90))), Some(Duration::from_secs(90)));
        assert_eq!(retry.wait(6, Some(Duration::from_secs(2))), Some(Duration::from_secs(32)));
        assert_eq!(retry.wait(1, Some(Duration::MAX)), Some(MOST_ASKED));
        assert_eq!([0, 1, u32::MAX].map(|earlier| retry.wait_for_room(earlier, None).as_secs()), [1, 2, 60]);
    }

    #[test]
    fn settings_that_cannot_work_are_refused_with_their_name() {
        let check = |retry: StepRetry| retry.check("pay").map_err(|invalid| invalid.field);
        assert_eq!(check(StepRetry { attempts: 0, ..StepRetry::default() }), Err("attempts".to_owned()));
        assert_eq!(
            check(StepRetry { first: Duration::from_secs(61), ..StepRetry::default() }),
            Err("first".to_owned())
        );
        assert_eq!(check(StepRetry { attempts: 1, ..StepRetry::default() }), Ok(()));
    }
}
