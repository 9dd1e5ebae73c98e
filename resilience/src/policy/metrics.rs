use std::sync::Arc;

use metrics::{Counter, counter};

use crate::class::Class;
use crate::error::Guard;

/// What a policy counts, registered once: so counting allocates nothing.
#[derive(Debug)]
pub(super) struct Metrics {
    success: Counter,
    transient: Counter,
    failure: Counter,
    ignored: Counter,
    pub(super) timed_out: Counter,
    pub(super) retries: Counter,
    deadline: Counter,
    rate_limit: Counter,
    breaker: Counter,
    bulkhead: Counter,
}

impl Metrics {
    pub(super) fn new(policy: &Arc<str>) -> Self {
        let attempts = |class| counter!("resilience_attempts_total", "policy" => policy.clone(), "class" => class);
        let refusals = |guard| counter!("resilience_refusals_total", "policy" => policy.clone(), "guard" => guard);
        Self {
            success: attempts("success"),
            transient: attempts("transient"),
            failure: attempts("failure"),
            ignored: attempts("ignored"),
            timed_out: attempts("timed_out"),
            retries: counter!("resilience_retries_total", "policy" => policy.clone()),
            deadline: refusals("deadline"),
            rate_limit: refusals("rate_limit"),
            breaker: refusals("breaker"),
            bulkhead: refusals("bulkhead"),
        }
    }

    pub(super) fn attempt(&self, class: Class) {
        match class {
            Class::Success => &self.success,
            Class::Transient { .. } => &self.transient,
            Class::Failure => &self.failure,
            Class::Ignored => &self.ignored,
        }
        .increment(1);
    }

    pub(super) fn refusal(&self, guard: Guard) {
        match guard {
            Guard::Deadline => &self.deadline,
            Guard::RateLimit => &self.rate_limit,
            Guard::Breaker => &self.breaker,
            Guard::Bulkhead => &self.bulkhead,
        }
        .increment(1);
    }
}
