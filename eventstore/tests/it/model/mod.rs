//! Random programs agree with a tiny model about appends, duplicates, refusals, reads and requests, on every store.

mod oracle;
mod program;

use std::sync::Arc;

use annals_eventstore::conformance::{Backend, Setup};
use annals_eventstore::{Limits, ManualClock};
use jiff::Timestamp;
use proptest::collection::vec;
use proptest::test_runner::{Config, FileFailurePersistence, RngAlgorithm, TestRng, TestRunner};

use crate::backends::{FaultyWithoutFaults, InMemory, OnDisk};
use program::{Run, operation};

/// Runs the given number of random programs, each on its own store. `ANNALS_SEED` repeats the same programs, and
/// `ANNALS_CASES` sets another number.
fn agrees<H: Backend>(cases: u32, backend: impl Fn() -> H) {
    let seed = from_environment("ANNALS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let cases = from_environment("ANNALS_CASES").unwrap_or(cases);
    println!("ANNALS_SEED={seed}");
    let config = Config {
        cases,
        max_shrink_iters: 1_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/it/model/found.proptest-regressions",
        ))),
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = TestRunner::new_with_rng(config, random).run(&vec(operation(), 1..40), |program| {
        runtime.block_on(async {
            let setup = Setup {
                clock: Arc::new(ManualClock::at("2026-01-02T03:04:05Z".parse::<Timestamp>().unwrap())),
                limits: Limits::default(),
            };
            let mut run = Run::begin(backend(), setup).await;
            for operation in program {
                run.step(operation).await?;
            }
            run.check_everything().await?;
            run.reopen().await;
            run.check_everything().await
        })
    });
    if let Err(failed) = outcome {
        panic!("ANNALS_SEED={seed}: {failed}");
    }
}

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn random_programs_on_memory_agree_with_the_model() {
    agrees(200, || InMemory);
}

#[test]
fn random_programs_on_sqlite_agree_with_the_model() {
    agrees(40, OnDisk::new);
}

#[test]
fn random_programs_on_a_faulty_store_agree_with_the_model() {
    agrees(50, || FaultyWithoutFaults);
}

#[cfg(feature = "postgres")]
#[test]
fn random_programs_on_postgres_agree_with_the_model() {
    agrees(15, crate::backends::InPostgres::default);
}
