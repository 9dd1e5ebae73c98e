//! Many threads at once.

use super::*;

#[test]
fn with_many_threads_there_are_never_more_probes_than_allowed_and_every_place_comes_back() {
    let settings = BreakerSettings { open: ms(1), probes: 3, closes_after: 3, ..settings() };
    let breaker = Breaker::new("busy", settings).unwrap();
    let mut transitions = breaker.transitions();
    let reader = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut last: Option<Transition> = None;
        while let Some(next) = runtime.block_on(transitions.next()) {
            match next {
                Ok(transition) => {
                    if let Some(last) = last {
                        assert_eq!(transition.number, last.number + 1, "none is left out or doubled");
                        assert_eq!(transition.from, last.to);
                        assert!(transition.at >= last.at);
                    }
                    last = Some(transition);
                }
                Err(Missed { count }) => {
                    // Between two known ones lies exactly what was missed; the chain starts anew after it.
                    assert!(count > 0);
                    last = None;
                }
            }
        }
        last.map_or(0, |last| last.number)
    });
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let breaker = &breaker;
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(thread);
                for _ in 0..3_000 {
                    let Ok(permit) = breaker.admit() else {
                        std::thread::yield_now();
                        continue;
                    };
                    let BreakerSnapshot { probes_in_flight, probes_succeeded, .. } = breaker.snapshot();
                    assert!(probes_in_flight + probes_succeeded <= 3);
                    match rng.u32(0..4) {
                        0 => drop(permit),
                        1 => permit.record(Outcome::Ignored),
                        2 => permit.record(Outcome::Failure),
                        _ => permit.record(Outcome::Success),
                    }
                }
            });
        }
    });
    // Held open, the state no longer changes by time.
    breaker.set_mode(Mode::HeldOpen);
    let snapshot = breaker.snapshot();
    assert_eq!(snapshot.probes_in_flight, 0);
    drop(breaker);
    assert_eq!(reader.join().unwrap(), snapshot.generation, "the reader saw the last transition");
}
