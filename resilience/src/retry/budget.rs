use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::{Check, SettingsError};
use crate::ratio::Ratio;

/// How many retries are allowed, in any span of `window`: `ratio` of the calls that succeeded in it, and `reserve` more.
///
/// Failures add nothing: during an outage only the reserve is left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// The share of the successful calls, from 0 to 1. Default: 0.2.
    pub ratio: f64,
    /// Retries that are always allowed, for services with little traffic. Default: 3.
    pub reserve: u32,
    /// Default: 10 s.
    #[serde(with = "crate::duration_text")]
    pub window: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self { ratio: 0.2, reserve: 3, window: Duration::from_secs(10) }
    }
}

impl Budget {
    pub(crate) fn check(&self, name: &str) -> Result<(), SettingsError> {
        let check = Check::of(name);
        if Ratio::new(self.ratio).is_none() {
            return check.refuse("retry.budget.ratio", self.ratio, "a share is from 0 to 1");
        }
        if self.window < Duration::from_millis(1) {
            return check.refuse("retry.budget.window", self.window, "a window is at least 1 ms long");
        }
        Ok(())
    }
}

/// The window is counted in so many spans.
pub(super) const SPANS: u64 = 10;
/// Withdrawals are kept for one span more than the window, deposits for the window at most: so no span of time of the
/// window's length, wherever it begins, has more retries than its deposits and the reserve allow.
const KEPT: usize = SPANS as usize + 1;

/// The budget as a pure state machine; times are given as the time since it was made.
#[derive(Debug)]
pub(super) struct Account {
    ratio: Ratio,
    reserve: u64,
    span: Duration,
    newest: u64,
    deposits: [u64; KEPT],
    withdrawals: [u64; KEPT],
    deposited: u64,
    withdrawn: u64,
}

impl Account {
    pub(super) fn new(budget: &Budget) -> Self {
        Self {
            ratio: Ratio::new(budget.ratio).unwrap_or_else(|| Ratio::new(0.0).expect("0 is a share")),
            reserve: u64::from(budget.reserve),
            span: budget.window / SPANS as u32,
            newest: 0,
            deposits: [0; KEPT],
            withdrawals: [0; KEPT],
            deposited: 0,
            withdrawn: 0,
        }
    }

    pub(super) fn deposit(&mut self, now: Duration) {
        self.forget(now);
        self.deposits[slot(self.newest)] += 1;
        self.deposited += 1;
    }

    /// Gives the span in which the retry is counted, if it is allowed.
    pub(super) fn withdraw(&mut self, now: Duration) -> Option<u64> {
        self.forget(now);
        if self.withdrawn >= self.ratio.of(self.deposited) + self.reserve {
            return None;
        }
        self.withdrawals[slot(self.newest)] += 1;
        self.withdrawn += 1;
        Some(self.newest)
    }

    /// Takes a withdrawal back; one that is no longer counted anyway changes nothing.
    pub(super) fn refund(&mut self, span: u64, now: Duration) {
        self.forget(now);
        if self.newest - span < KEPT as u64 {
            self.withdrawals[slot(span)] -= 1;
            self.withdrawn -= 1;
        }
    }

    /// Counts a withdrawal at the moment when its retry is made, since it may have waited for longer than a window. `false`
    /// if too many others were made meanwhile, or the deposits are no longer counted.
    pub(super) fn spend(&mut self, span: u64, now: Duration) -> bool {
        self.refund(span, now);
        self.withdraw(now).is_some()
    }

    pub(super) fn left(&mut self, now: Duration) -> u64 {
        self.forget(now);
        (self.ratio.of(self.deposited) + self.reserve).saturating_sub(self.withdrawn)
    }

    fn forget(&mut self, now: Duration) {
        let current = u64::try_from(now.as_nanos() / self.span.as_nanos()).unwrap_or(u64::MAX);
        let steps = current.saturating_sub(self.newest);
        for step in 1..=steps.min(KEPT as u64) {
            let newest = self.newest + step;
            // The oldest deposits leave one span earlier than the withdrawals of the same time.
            let old = slot(newest + 1);
            self.deposited -= std::mem::take(&mut self.deposits[old]);
            let new = slot(newest);
            self.deposited -= std::mem::take(&mut self.deposits[new]);
            self.withdrawn -= std::mem::take(&mut self.withdrawals[new]);
        }
        if steps > 0 {
            self.newest = current;
        }
    }
}

fn slot(span: u64) -> usize {
    (span % KEPT as u64) as usize
}

/// A retry budget that callers share. Clones share one account.
#[derive(Clone)]
pub struct RetryBudget {
    shared: Arc<Shared>,
}

struct Shared {
    account: Mutex<Account>,
    start: Instant,
}

impl RetryBudget {
    /// A budget of its own. `name` appears in errors.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting that cannot work.
    pub fn new(name: &str, budget: &Budget) -> Result<Self, SettingsError> {
        budget.check(name)?;
        Ok(Self { shared: Arc::new(Shared { account: Mutex::new(Account::new(budget)), start: Instant::now() }) })
    }

    /// Says that a call succeeded.
    pub fn deposit(&self) {
        self.shared.with(Account::deposit);
    }

    /// Asks for one retry. What is not [spent](Withdrawal::spend) goes back when it is dropped.
    pub fn withdraw(&self) -> Option<Withdrawal> {
        let span = self.shared.with(Account::withdraw)?;
        Some(Withdrawal { shared: self.shared.clone(), span, spent: false })
    }

    /// How many retries are allowed now.
    pub fn left(&self) -> u64 {
        self.shared.with(Account::left)
    }
}

impl Shared {
    fn with<R>(&self, act: impl FnOnce(&mut Account, Duration) -> R) -> R {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut account, self.start.elapsed())
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget").field("left", &self.left()).finish()
    }
}

/// The right to make one retry.
#[must_use = "a withdrawal that is dropped goes back"]
pub struct Withdrawal {
    shared: Arc<Shared>,
    span: u64,
    spent: bool,
}

impl Withdrawal {
    /// The retry is made now, if the budget still allows it: after a long wait it may not.
    #[must_use = "a retry that the budget no longer allows must not be made"]
    pub fn spend(mut self) -> bool {
        self.spent = true;
        self.shared.with(|account, now| account.spend(self.span, now))
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if !self.spent {
            self.shared.with(|account, now| account.refund(self.span, now));
        }
    }
}

impl fmt::Debug for Withdrawal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Withdrawal").finish_non_exhaustive()
    }
}
