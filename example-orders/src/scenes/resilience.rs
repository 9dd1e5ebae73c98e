//! The payment service degrades, fails and recovers while ten customers a second pay: what retries, breaker and fallback
//! make of it, second by second.
//!
//! Time is paused: it jumps to the next moment at which something happens, so half a minute takes no time, and each run
//! is the same.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals::resilience::breaker::{Cause, Transition, Transitions};
use annals::resilience::{CallError, Deadline, Guard, IdempotencyKey, Policy};
use futures::FutureExt;
use tokio::time::{Instant, sleep_until};

use crate::Fault;
use crate::scenes::payment::{self, PaymentError, PaymentService};

const SECONDS: u32 = 27;
const CUSTOMERS_PER_SECOND: u32 = 10;
const CENTS: i64 = 1_250;

/// What became of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Paid {
        attempts: u32,
    },
    /// The fallback: the order is accepted, and paid another time.
    Later {
        refused_by_breaker: bool,
    },
}

/// Plays the scene, in a runtime whose time is paused.
pub async fn play(out: &mut dyn Write) -> Result<(), Fault> {
    writeln!(
        out,
        "Ten customers pay each second. The payment service is well for 4 s, degraded until 10 s, down until 20 s.\n"
    )?;
    let (service, policy) = (Arc::new(PaymentService::start()), payment::policy()?);
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let mut transitions = policy.breaker().transitions();
    let start = Instant::now();
    let (mut customer, mut attempts_before) = (0, 0);
    let mut unpaid = Vec::new();
    writeln!(
        out,
        "  s  service   breaker   attempts  paid  by a retry  later  (refused by the breaker)  retries left"
    )?;
    for second in 1..=SECONDS {
        let condition = format!("{:?}", service.condition()).to_lowercase();
        for _ in 0..CUSTOMERS_PER_SECOND {
            customer += 1;
            let (service, policy, outcomes) = (service.clone(), policy.clone(), outcomes.clone());
            let key = IdempotencyKey::new(format!("order-{customer}/charge"))?;
            tokio::spawn(async move {
                let outcome = pay(&policy, &service, &key).await;
                outcomes.lock().expect("no holder panics").push(outcome.map(|outcome| (key, outcome)));
            });
            sleep_until(start + Duration::from_secs(1) * customer / CUSTOMERS_PER_SECOND).await;
        }
        tell_changes(&mut transitions, out)?;
        let ended = std::mem::take(&mut *outcomes.lock().expect("no holder panics"));
        let ended = ended.into_iter().collect::<Result<Vec<_>, _>>()?;
        let count = |which: fn(&Outcome) -> bool| ended.iter().filter(|(_, outcome)| which(outcome)).count();
        let paid = count(|outcome| matches!(outcome, Outcome::Paid { .. }));
        let retried = count(|outcome| matches!(outcome, Outcome::Paid { attempts: 2.. }));
        let later = count(|outcome| matches!(outcome, Outcome::Later { .. }));
        let refused = count(|outcome| matches!(outcome, Outcome::Later { refused_by_breaker: true }));
        let put_off = ended.into_iter().filter(|(_, outcome)| matches!(outcome, Outcome::Later { .. }));
        unpaid.extend(put_off.map(|(key, _)| key));
        let attempts = service.attempts() - attempts_before;
        attempts_before += attempts;
        let (breaker, left) =
            (format!("{:?}", policy.breaker().state()), policy.state().retries_left.unwrap_or_default());
        writeln!(
            out,
            " {second:>2}  {condition:<8}  {breaker:<8}  {attempts:>8}  {paid:>4}  {retried:>10}  {later:>5}  {refused:>24}  {left:>12}"
        )?;
    }
    let charged = service.charged() / CENTS;
    let (paid, later) = (i64::from(customer) - i64::try_from(unpaid.len())?, unpaid.len());
    writeln!(
        out,
        "\n{paid} customers have paid, and {charged} are charged: the others' answers were lost, and no retry was left."
    )?;
    for key in unpaid {
        pay(&policy, &service, &key).await?;
    }
    let charged = service.charged();
    if charged != CENTS * i64::from(customer) {
        return Err(format!("{customer} customers are charged {charged} cents, and not {CENTS} each").into());
    }
    writeln!(
        out,
        "The {later} payments are made now, with the same keys: all {customer} are charged, and none twice."
    )?;
    Ok(())
}

/// What a request handler would do. The customer waits for 2 s at most, and meets no error.
async fn pay(
    policy: &Policy,
    service: &PaymentService,
    key: &IdempotencyKey,
) -> Result<Outcome, CallError<PaymentError>> {
    let paid = policy.keyed(key, |call, key| async move {
        service.charge(CENTS, key, call.deadline()).await?;
        Ok(Outcome::Paid { attempts: call.attempt() })
    });
    let later = async |error: CallError<_>| {
        let refused_by_breaker = error.guard() == Some(Guard::Breaker);
        Ok(Outcome::Later { refused_by_breaker })
    };
    paid.deadline(Deadline::within(Duration::from_secs(2))).or_else(later).await
}

fn tell_changes(transitions: &mut Transitions, out: &mut dyn Write) -> Result<(), Fault> {
    while let Some(change) = transitions.next().now_or_never().flatten() {
        let Transition { from, to, cause, at, .. } = change?;
        let why = match cause {
            Cause::FailureRate { failures, calls } => format!("{failures} of the last {calls} attempts failed"),
            Cause::OpenPeriodOver => "time for probes".to_owned(),
            Cause::ProbeFailed => "the first probe failed, so it stays open for longer".to_owned(),
            Cause::ProbesSucceeded => "two probes succeeded".to_owned(),
            other => format!("{other:?}"),
        };
        writeln!(out, "     {:.1} s: {from:?} -> {to:?}, {why}", at.as_secs_f64())?;
    }
    Ok(())
}
