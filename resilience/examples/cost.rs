//! What the guards cost: `cargo run --release -p annals-resilience --example cost`.

use std::future::Future;
use std::time::{Duration, Instant};

use annals_resilience::breaker::{Breaker, BreakerSettings, Outcome};
use annals_resilience::rate_limit::RateLimit;
use annals_resilience::retry::Retry;
use annals_resilience::{Deadline, Policy};

/// A round is short, so that some rounds are not interrupted by other work on the machine.
const CALLS: u32 = 10_000;
const ROUNDS: u32 = 500;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let breaker = Breaker::new("b", BreakerSettings::default())?;
        let policy = Policy::medium("payment")
            .deadline(Duration::from_secs(60))
            .rate_limit(RateLimit::per_second(1_000_000_000))
            .retry(Retry::default())
            .bulkhead(20)
            .build()?;
        let deadline = Deadline::within(Duration::from_secs(3_600));
        measure("direct call", || work(1)).await;
        measure("breaker: admit and record", || {
            if let Ok(permit) = breaker.admit() {
                permit.record(Outcome::Success);
            }
            std::future::ready(())
        })
        .await;
        let call = || policy.idempotent(|call| work(call.attempt())).deadline(deadline);
        measure("full policy", || async { call().await.map(drop) }).await;
        measure("full policy, without the box", || async { call().run().await.map(drop) }).await;
        Ok(())
    })
}

async fn work(attempt: u32) -> Result<u32, std::io::Error> {
    Ok(std::hint::black_box(attempt))
}

/// The best of the rounds.
async fn measure<F: Future>(what: &str, mut call: impl FnMut() -> F) {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..CALLS {
            std::hint::black_box(call().await);
        }
        best = best.min(start.elapsed());
    }
    println!("{what}: {:.0} ns", best.as_secs_f64() * 1e9 / f64::from(CALLS));
}
