//! What a call on the success path allocates. A test binary of its own, since it counts what the whole process allocates.

use std::alloc::System;
use std::time::Duration;

use annals_resilience::rate_limit::RateLimit;
use annals_resilience::retry::Retry;
use annals_resilience::{Deadline, Policy};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn a_call_that_succeeds_allocates_its_box_and_nothing_else() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let policy = Policy::medium("payment")
            .deadline(Duration::from_secs(60))
            .rate_limit(RateLimit::per_second(1_000_000))
            .retry(Retry::default())
            .bulkhead(20)
            .build()
            .unwrap();
        let deadline = Deadline::within(Duration::from_secs(5));
        for allocations in [1, 0] {
            let call = || policy.idempotent(|call| async move { Ok::<_, std::io::Error>(call.attempt()) });
            // The first calls may register and resize what later ones use.
            for _ in 0..100 {
                call().deadline(deadline).await.unwrap();
            }
            let calls = 1_000;
            // Threads of the test harness allocate now and then, so the least of several rounds counts.
            let mut least = usize::MAX;
            for _ in 0..10 {
                let region = Region::new(ALLOCATOR);
                for _ in 0..calls {
                    let call = call().deadline(deadline);
                    let answer = if allocations == 1 { call.await } else { call.run().await };
                    assert_eq!(answer.unwrap(), 1);
                }
                let change = region.change();
                least = least.min(change.allocations + change.reallocations);
            }
            assert_eq!(least, allocations * calls);
        }
    });
}
