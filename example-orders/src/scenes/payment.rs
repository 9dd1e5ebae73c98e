//! Calls to a system that fails. Two things make them safe to repeat: the client's error says which failures may pass, and
//! each payment has a key, so one whose answer was lost is not charged again.
//!
//! Left out: the network. The service stands in this process, and keeps to a timetable.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use annals::resilience::breaker::BreakerSettings;
use annals::resilience::retry::Retry;
use annals::resilience::{Class, Classify, Deadline, IdempotencyKey, Policy, SettingsError};
use tokio::time::{Instant, sleep};

/// Why there is no answer of the payment service.
#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    #[error("the payment service answered {0}")]
    Status(u16),
    #[error("no connection to the payment service")]
    NoConnection,
}

/// This is all that a policy must know of an error.
impl Classify for PaymentError {
    fn class(&self) -> Class {
        match self {
            Self::Status(status) => Class::of_status(*status, None),
            Self::NoConnection => Class::TRANSIENT,
        }
    }
}

/// All calls to the payment service go through one policy, made once. What is not said here comes from the profile.
pub fn policy() -> Result<Policy, SettingsError> {
    Policy::fast("payment")
        .timeout(Duration::from_secs(1))
        .retry(Retry { seed: Some(1), ..Retry::default() })
        .breaker(BreakerSettings { open: Duration::from_secs(4), seed: Some(1), ..BreakerSettings::default() })
        .bulkhead(20)
        .build()
}

/// How the service is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It answers within 50 ms.
    Well,
    /// It is slow, and each third answer is lost: the payment was made, but a proxy says 504.
    Degraded,
    /// Nobody listens.
    Down,
}

/// The simulated service.
pub struct PaymentService {
    start: Instant,
    attempts: AtomicU32,
    /// Cents by key: who knows the keys it has seen charges each payment once.
    charged: Mutex<BTreeMap<IdempotencyKey, i64>>,
}

impl PaymentService {
    pub fn start() -> Self {
        Self { start: Instant::now(), attempts: AtomicU32::new(0), charged: Mutex::default() }
    }

    /// The timetable, in seconds since the start.
    pub fn condition(&self) -> Condition {
        match self.start.elapsed().as_secs() {
            ..4 | 20.. => Condition::Well,
            4..10 => Condition::Degraded,
            10..20 => Condition::Down,
        }
    }

    /// Charges `cents`, once for each key. Nobody waits for the answer after `deadline`.
    pub async fn charge(&self, cents: i64, key: &IdempotencyKey, deadline: Deadline) -> Result<(), PaymentError> {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
        let condition = self.condition();
        let work = match condition {
            Condition::Well => Duration::from_millis(50),
            Condition::Degraded => Duration::from_millis(200),
            Condition::Down => return Err(PaymentError::NoConnection),
        };
        deadline.run(sleep(work)).await.map_err(|_| PaymentError::Status(504))?;
        self.charged.lock().expect("no holder panics").entry(key.clone()).or_insert(cents);
        let lost = condition == Condition::Degraded && attempt.is_multiple_of(3);
        if lost { Err(PaymentError::Status(504)) } else { Ok(()) }
    }

    /// Attempts that reached the service so far, and also those that found nobody.
    pub fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Cents charged in all.
    pub fn charged(&self) -> i64 {
        self.charged.lock().expect("no holder panics").values().sum()
    }
}
