use std::time::Duration;

/// Whether a runtime is blocked, decided by looks at one task that it was given: has it run? Pure; time is an input.
#[derive(Debug)]
pub(super) struct Pulse {
    limit: Duration,
    /// For how long the task at hand has not run, as far as the watcher was there to see it.
    silent: Duration,
}

impl Pulse {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, silent: Duration::ZERO }
    }

    /// Time between two looks.
    pub(super) fn interval(&self) -> Duration {
        self.limit / 20
    }

    /// `since` the last look: has the task run?
    pub(super) fn look(&mut self, since: Duration, ran: bool) {
        if ran {
            self.silent = Duration::ZERO;
        } else {
            // A watcher that slept longer than it wanted to was stopped with the whole process, or had no processor: then
            // the runtime had none either, and is not blocked.
            self.silent += since.min(self.interval() * 2);
        }
    }

    pub(super) fn alive(&self) -> bool {
        self.silent < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Looks every `step` until the pulse is gone.
    fn gone_after(step: Duration) -> Duration {
        let mut pulse = Pulse::new(LIMIT);
        let mut time = Duration::ZERO;
        while pulse.alive() {
            time += step;
            pulse.look(step, false);
        }
        time
    }

    #[test]
    fn a_blocked_runtime_is_noticed_within_a_fifth_of_the_limit() {
        let interval = Pulse::new(LIMIT).interval();
        // Up to one interval more passes until the task is given.
        for step in [interval, interval * 11 / 10, interval * 3 / 2] {
            let noticed = gone_after(step);
            assert!(noticed >= LIMIT && noticed + step <= LIMIT * 12 / 10, "{noticed:?} with looks every {step:?}");
        }
    }

    #[test]
    fn the_time_in_which_the_watcher_itself_slept_does_not_count() {
        let mut pulse = Pulse::new(LIMIT);
        pulse.look(LIMIT * 6, false);
        assert!(pulse.alive(), "the process was stopped for a minute");
        // Just after it the task has still not run.
        pulse.look(pulse.interval(), false);
        assert!(pulse.alive());
    }

    #[test]
    fn a_runtime_that_runs_again_is_alive() {
        let mut pulse = Pulse::new(LIMIT);
        for _ in 0..100 {
            pulse.look(LIMIT / 20, false);
        }
        assert!(!pulse.alive());
        pulse.look(LIMIT / 20, true);
        assert!(pulse.alive());
    }
}
