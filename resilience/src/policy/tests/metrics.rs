//! What is counted, by the names that the documentation gives.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use ::metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::*;

/// Metrics by name and labels.
#[derive(Default)]
struct Counts(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Counts {
    fn of(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{} {}", key.name().trim_start_matches("resilience_"), labels.join(" "));
        self.0.lock().unwrap().entry(name).or_default().clone()
    }

    /// Those that are not 0.
    fn counted(&self) -> String {
        let counts = self.0.lock().unwrap();
        let counted = counts.iter().map(|(name, count)| (name, count.load(Ordering::SeqCst)));
        counted.filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}\n")).collect()
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.of(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.of(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn counted(calls: impl AsyncFnOnce()) -> String {
    let counts = Counts::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    ::metrics::with_local_recorder(&counts, || runtime.block_on(calls()));
    counts.counted()
}

#[test]
fn attempts_refusals_and_retries_are_counted_as_the_documentation_says() {
    let counted = counted(async || {
        let policy = Policy::fast("p")
            .timeout(secs(1))
            .retry(fixed())
            .rate_limit(RateLimit { burst: Some(8), ..RateLimit::per_minute(8) })
            .bulkhead(BulkheadSettings { slots: 1, queue: 0, wait: None })
            .build()
            .unwrap();
        let fails_once = |call: Call| async move { if call.attempt() == 1 { Err(DOWN) } else { Ok(()) } };
        policy.idempotent(fails_once).await.unwrap();
        policy.once(|_| async { Err::<(), _>(Status(404, None)) }).await.unwrap_err();
        policy.once(|_| async { Err::<(), _>(Status(500, None)) }).await.unwrap_err();
        policy.once(|_| std::future::pending::<Result<(), Status>>()).await.unwrap_err();
        // The retry of a caller that leaves before it is made is none.
        let leaves = policy.idempotent(|_| async { Err::<(), _>(DOWN) });
        tokio::time::timeout(ms(50), leaves.into_future()).await.unwrap_err();
        let full = policy.once(|_| async { policy.once(|_| async { Ok::<_, Status>(()) }).await });
        assert_eq!(
            full.judged_by(|_| Class::Ignored).await.unwrap_err().source.unwrap().guard(),
            Some(Guard::Bulkhead)
        );
        let succeeds = || policy.once(|_| async { Ok::<_, Status>(()) });
        assert_eq!(succeeds().deadline(Deadline::within(secs(0))).await.unwrap_err().guard(), Some(Guard::Deadline));
        policy.breaker().set_mode(Mode::HeldOpen);
        assert_eq!(succeeds().await.unwrap_err().guard(), Some(Guard::Breaker));
        assert_eq!(succeeds().await.unwrap_err().guard(), Some(Guard::RateLimit));
    });
    insta::assert_snapshot!(counted, @r"
    attempts_total policy=p class=failure 1
    attempts_total policy=p class=ignored 2
    attempts_total policy=p class=success 1
    attempts_total policy=p class=timed_out 1
    attempts_total policy=p class=transient 2
    breaker_state policy=p 4611686018427387904
    breaker_transitions_total policy=p to=open 1
    refusals_total policy=p guard=breaker 1
    refusals_total policy=p guard=bulkhead 1
    refusals_total policy=p guard=deadline 1
    refusals_total policy=p guard=rate_limit 1
    retries_total policy=p 1
    ");
}

/// The gauge shows the newest state also where the transitions of several results are announced at once.
#[test]
fn the_state_of_a_breaker_is_a_number() {
    let state = |calls: u32, wait: u64, succeed: u32| {
        let counted = counted(async || {
            let policy = Policy::fast("p").breaker(after_five_failures()).build().unwrap();
            for _ in 0..calls {
                policy.once(|_| async { Err::<(), _>(DOWN) }).await.unwrap_err();
            }
            sleep(secs(wait)).await;
            policy.breaker().state();
            for _ in 0..succeed {
                policy.once(|_| async { Ok::<_, Status>(()) }).await.unwrap();
            }
        });
        let bits = counted.lines().find_map(|line| line.strip_prefix("breaker_state policy=p "));
        bits.map(|bits| f64::from_bits(bits.parse().unwrap()))
    };
    assert_eq!([state(5, 0, 0), state(5, 30, 0), state(5, 30, 1)], [Some(2.0), Some(1.0), Some(1.0)]);
    assert_eq!(state(5, 30, 2), None, "closed is 0");
}

/// Each start of a service logged that breakers had changed from closed to closed.
#[test]
fn a_breaker_that_begins_in_a_mode_or_begins_anew_has_not_changed_its_state() {
    let counted = counted(async || {
        let pool = Policy::fast("pool").breaker_mode(Mode::Disabled).build().unwrap();
        pool.breaker().set_mode(Mode::Normal);
        let held = Policy::fast("held").breaker_mode(Mode::HeldOpen).build().unwrap();
        assert_eq!(held.once(|_| async { Ok::<_, Status>(()) }).await.unwrap_err().guard(), Some(Guard::Breaker));
        held.breaker().set_mode(Mode::Normal);
        held.once(|_| async { Ok::<_, Status>(()) }).await.unwrap();
    });
    insta::assert_snapshot!(counted, @r"
    attempts_total policy=held class=success 1
    breaker_transitions_total policy=held to=closed 1
    refusals_total policy=held guard=breaker 1
    ");
}
