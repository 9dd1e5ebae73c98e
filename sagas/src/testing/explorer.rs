//! Tries every schedule.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

use annals_eventstore::MemoryStore;

use super::laws;
use super::schedule::{Choice, Schedule};
use super::world::{Ran, follow, run};
use crate::definition::{Definition, SagaData};
use crate::instance::Status;

/// How many crashes, doubled calls and failures of repeated calls one run has at most.
const DISTURBANCES: usize = 1;
/// The most runs by default.
const MOST_RUNS: usize = 50_000;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End(Status);

impl End {
    /// Whether all steps were done.
    #[must_use]
    pub fn completed(self) -> bool {
        self.0 == Status::Completed
    }

    /// Whether everything was undone.
    #[must_use]
    pub fn compensated(self) -> bool {
        self.0 == Status::Compensated
    }
}

/// What was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explored {
    /// How many runs were made.
    pub runs: usize,
    /// How many of them ended completed.
    pub completed: usize,
    /// How many of them ended compensated.
    pub compensated: usize,
    /// How many of them ended stuck.
    pub stuck: usize,
}

type Invariant<W> = (String, Box<dyn Fn(&W, End) -> bool>);

/// Explores a saga. [`explore`] makes it.
#[must_use = "nothing is tried before `run`"]
pub struct Explorer<C, W, M, D> {
    input: C,
    world: M,
    saga: D,
    invariants: Vec<Invariant<W>>,
    disturbances: usize,
    most_runs: usize,
}

/// Explores the saga that `saga` makes, with `input`. Each run has a new `world`, whose services the steps call, and a new store,
/// for local steps.
pub fn explore<C, W, M, D>(input: C, world: M, saga: D) -> Explorer<C, W, M, D>
where
    C: SagaData,
    M: Fn() -> W,
    D: Fn(&Arc<W>, &MemoryStore) -> Definition<C>,
{
    Explorer { input, world, saga, invariants: Vec::new(), disturbances: DISTURBANCES, most_runs: MOST_RUNS }
}

impl<C, W, M, D> Explorer<C, W, M, D>
where
    C: SagaData,
    M: Fn() -> W,
    D: Fn(&Arc<W>, &MemoryStore) -> Definition<C>,
{
    /// What holds in the world after each run that ended completed or compensated.
    pub fn invariant(mut self, name: &str, holds: impl Fn(&W, End) -> bool + 'static) -> Self {
        self.invariants.push((name.to_owned(), Box::new(holds)));
        self
    }

    /// How many crashes, doubled calls and failures of repeated calls one run has at most, beside every combination of
    /// outcomes of first calls; 1 by default. Each more multiplies the time.
    pub fn disturbances(mut self, most: usize) -> Self {
        self.disturbances = most;
        self
    }

    /// How many runs are made at most; 50,000 by default.
    pub fn most_runs(mut self, most: usize) -> Self {
        self.most_runs = most;
        self
    }

    /// Tries every schedule, those with the fewest unusual outcomes first.
    ///
    /// # Panics
    /// If a law or an invariant does not hold, with the shortest schedule that shows it, or if there are more schedules than
    /// [`Explorer::most_runs`].
    #[track_caller]
    pub fn run(self) -> Explored {
        match self.search() {
            Ok(explored) => explored,
            Err(failure) => panic!("{failure}"),
        }
    }

    /// Makes one run again: with the schedule that a failure has printed.
    ///
    /// # Panics
    /// If a law or an invariant does not hold, or the text is no schedule.
    #[track_caller]
    pub fn replay(self, schedule: &str) {
        match schedule.parse() {
            Ok(schedule) => {
                if let Err(failure) = self.once(&schedule) {
                    panic!("{failure}");
                }
            }
            Err(why) => panic!("no schedule: {why}"),
        }
    }

    pub(crate) fn search(&self) -> Result<Explored, String> {
        let mut explored = Explored::default();
        let mut schedules = VecDeque::from([(Schedule::default(), 0)]);
        while let Some((schedule, disturbances)) = schedules.pop_front() {
            if explored.runs == self.most_runs {
                return Err(format!(
                    "there are more schedules than {} runs; allow more by `most_runs`",
                    self.most_runs
                ));
            }
            let ran = self.once(&schedule)?;
            explored.runs += 1;
            match ran.status.map(|status| status.status) {
                Ok(Status::Completed) => explored.completed += 1,
                Ok(Status::Compensated) => explored.compensated += 1,
                _ => explored.stuck += 1,
            }
            let next = schedule.0.last_key_value().map_or(0, |(point, _)| point + 1);
            for (number, point) in ran.points.iter().enumerate().skip(next) {
                for (index, &choice) in point.choices().iter().enumerate() {
                    let disturbances = disturbances + usize::from(point.disturbs(choice));
                    if choice != Choice::Usual && disturbances <= self.disturbances {
                        schedules.push_back((schedule.with(number, index), disturbances));
                    }
                }
            }
        }
        Ok(explored)
    }

    /// One run under a schedule; what does not hold is an error that shows it.
    fn once(&self, schedule: &Schedule) -> Result<Ran, String> {
        let world = Arc::new((self.world)());
        let mut definition = None;
        let ran = run(
            |store| {
                let made = (self.saga)(&world, store);
                definition = Some(made.clone());
                made
            },
            self.input.clone(),
            follow(schedule),
        );
        let definition = definition.expect("every run makes a definition first");
        let wrong = laws::broken(&definition, &ran).or_else(|| {
            let end = End(ran.status.as_ref().map_or(Status::Stuck, |status| status.status));
            let invariant = self.invariants.iter().find(|(_, holds)| end.0.is_final() && !holds(&world, end))?;
            Some(format!("`{}` does not hold", invariant.0))
        });
        match wrong {
            None => Ok(ran),
            Some(wrong) => Err(describe(&definition, schedule, &ran, &wrong)),
        }
    }
}

fn describe<C>(definition: &Definition<C>, schedule: &Schedule, ran: &Ran, wrong: &str) -> String {
    let mut text = format!("saga `{}`: {wrong}\n", definition.name());
    for (&number, &choice) in &schedule.0 {
        if let Some(point) = ran.points.get(number) {
            let choice = point.choices().get(choice).copied().unwrap_or(Choice::Usual);
            let _ = writeln!(text, "  point {number}, {point}: {choice}");
        }
    }
    text += "recorded:\n";
    for event in &ran.events {
        let _ = writeln!(text, "  {event:?}");
    }
    let _ = write!(text, "again: .replay(\"{schedule}\")");
    text
}
