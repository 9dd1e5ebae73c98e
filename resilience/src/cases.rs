use proptest::test_runner::{Config, RngSeed};

/// So many random programs, from a seed that is printed and may be given back as `ANNALS_SEED`.
pub(crate) fn cases(cases: u32) -> Config {
    let seed = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("ANNALS_SEED={seed}");
    Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() }
}
