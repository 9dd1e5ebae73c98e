//! Leases: which process moves which checkpoint.

use annals_eventstore::Checkpoint;
use jiff::Timestamp;
use uuid::Uuid;

/// What one process at a time works on: a slot of a version of a projection. A projection that is not split has one slot, 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UnitId {
    pub(crate) projection: &'static str,
    pub(crate) version: u32,
    pub(crate) slot: u32,
}

/// A process that runs projections, or rather one handle in it.
#[derive(Clone, Debug)]
pub(crate) struct Runner {
    pub(crate) id: Uuid,
    /// For people.
    pub(crate) name: String,
    /// The versions of projections that it runs.
    pub(crate) runs: Vec<(&'static str, u32)>,
    /// Slots of them that have stopped here.
    pub(crate) stopped: Vec<UnitId>,
}

impl Runner {
    /// What it runs, as stored: a line each, of a name and a version; and of what has stopped here, name, version and slot.
    pub(crate) fn runs_as_text(&self) -> String {
        let runs = self.runs.iter().map(|(name, version)| format!("{name} {version}"));
        let stopped = self.stopped.iter().map(|unit| format!("{} {} {}", unit.projection, unit.version, unit.slot));
        runs.chain(stopped).collect::<Vec<_>>().join("\n")
    }

    /// A runner that is alive, by what is stored of it.
    pub(crate) fn beside(&self, id: Uuid, name: String, text: &str) -> RunnerState {
        let (mut runs, mut stopped) = (Vec::new(), Vec::new());
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(projection), Some(Ok(version))) = (words.next(), words.next().map(str::parse)) else { continue };
            match words.next().map(str::parse) {
                None => runs.extend(self.unit(projection, version, 0).map(|unit| (unit.projection, unit.version))),
                Some(Ok(slot)) => stopped.extend(self.unit(projection, version, slot)),
                Some(Err(_)) => {}
            }
        }
        RunnerState { id, name, units: 0, runs, stopped }
    }

    /// The unit of a stored row, if this runner runs it.
    pub(crate) fn unit(&self, projection: &str, version: u32, slot: u32) -> Option<UnitId> {
        let own = self.runs.iter().find(|(name, of)| *name == projection && *of == version);
        own.map(|&(projection, version)| UnitId { projection, version, slot })
    }
}

/// What a look at all leases found, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    /// Every unit that the runner runs, sorted.
    pub(crate) units: Vec<LeaseState>,
    /// Every runner that is alive, this one too, sorted by id.
    pub(crate) runners: Vec<RunnerState>,
}

impl Survey {
    /// `owners` are those of all units, also of those that the runner does not run: every process sees the same numbers.
    pub(crate) fn new(units: Vec<LeaseState>, mut runners: Vec<RunnerState>, owners: &[Uuid]) -> Self {
        for runner in &mut runners {
            runner.units = owners.iter().filter(|owner| **owner == runner.id).count();
        }
        Self { units, runners }
    }
}

/// Who has a unit.
#[derive(Clone, Debug)]
pub(crate) struct LeaseState {
    pub(crate) unit: UnitId,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) epoch: i64,
    /// Who owns it, unless the lease has ended.
    pub(crate) owner: Option<Uuid>,
    pub(crate) paused: Option<Paused>,
}

/// A runner that is alive.
#[derive(Clone, Debug)]
pub(crate) struct RunnerState {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    /// How many units it owns, also of what the asking runner does not run.
    pub(crate) units: usize,
    /// Which of the asking runner's versions it runs too.
    pub(crate) runs: Vec<(&'static str, u32)>,
    /// Which slots of them have stopped there.
    pub(crate) stopped: Vec<UnitId>,
}

impl RunnerState {
    pub(crate) fn can_run(&self, unit: &UnitId) -> bool {
        self.runs.contains(&(unit.projection, unit.version)) && !self.stopped.contains(unit)
    }
}

/// A unit that was claimed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimed {
    pub(crate) unit: UnitId,
    pub(crate) epoch: i64,
    pub(crate) checkpoint: Checkpoint,
    /// Whether the owner before has not ended its lease, or an event was being applied alone: some event may have ended a process.
    pub(crate) suspect: bool,
}

/// Who wanted a projection to pause, and since when it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Paused {
    pub(crate) by: String,
    pub(crate) since: Timestamp,
}
