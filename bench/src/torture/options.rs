//! What a run is asked for, and what follows from it.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::torture::fact::Wanted;
use crate::torture::part::{ReaderPlan, Way};

/// Races writers and readers in several processes on a server that is crashed again and again, then compares what was
/// acknowledged and delivered with the log.
///
/// Starts a PostgreSQL server of its own and removes it. Exit status: 0 if nothing is missed, duplicated, inverted, lost,
/// torn or left out, 1 if anything is, 2 if the run could not be made. With `--reader naive` it should find missed events, or the run has shown nothing.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Which store.
    #[arg(long, value_enum, default_value_t = Store::Postgres)]
    pub(crate) store: Store,
    /// For how long writers begin something; 10 if `--appends` is not given either.
    #[arg(long)]
    pub(crate) seconds: Option<f64>,
    /// How many appends must be acknowledged. What one transaction adds to one stream is one append.
    #[arg(long)]
    pub(crate) appends: Option<u64>,
    /// What the random decisions follow from; chosen and printed if it is not given.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How many writers there are in all.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) writers: u32,
    /// Over how many processes they are spread.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) processes: u32,
    /// How many readers there are in two more processes, one of which is killed again and again. One that measures waits
    /// comes to those of ours.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) readers: u32,
    /// Who reads.
    #[arg(long, value_enum, default_value_t = Reader::Ours)]
    pub(crate) reader: Reader,
    /// How many seconds lie between two crashes of the server; 0 for no crashes.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) crash_every: f64,
    /// Goes on until the server has crashed so often, whatever the time.
    #[arg(long, default_value_t = 0)]
    pub(crate) crashes: u32,
    /// Each crash of this number is followed by the promotion of a standby; 0 for no promotions.
    #[arg(long, default_value_t = 3)]
    pub(crate) promote_every: u32,
    /// Print a JSON line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    /// A PostgreSQL server of its own, with fsync and synchronous_commit on.
    Postgres,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reader {
    /// The library's reads.
    Ours,
    /// One that goes on after the last position it has seen, which must miss events: the control.
    Naive,
}

impl Options {
    /// When the run is over, in time; never if it is counted in appends only.
    pub(crate) fn time(&self) -> Option<Duration> {
        let seconds = self.seconds.or(self.appends.is_none().then_some(10.0))?;
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }

    /// How long the server is left alone between two crashes.
    pub(crate) fn crash_every(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.crash_every).ok().filter(|every| !every.is_zero())
    }

    /// The writers of each process.
    pub(crate) fn writers_of(&self, process: u32) -> Vec<u32> {
        (0..self.writers).filter(|writer| writer % self.processes == process).collect()
    }

    /// How each reader reads. The last of ours measures.
    pub(crate) fn plan(&self) -> Vec<ReaderPlan> {
        const OURS: [(Way, Wanted); 6] = [
            (Way::Subscription, Wanted::All),
            (Way::Pages, Wanted::All),
            (Way::ReadAll, Wanted::Odd),
            (Way::Subscription, Wanted::Third),
            (Way::Pages, Wanted::Story),
            (Way::ReadAll, Wanted::All),
        ];
        let ways = match self.reader {
            Reader::Ours => OURS,
            Reader::Naive => [(Way::Naive, Wanted::All); 6],
        };
        let chosen = ways.into_iter().cycle().take(self.readers as usize);
        let watch = (self.reader == Reader::Ours).then_some((Way::Watch, Wanted::All));
        let plan = |(number, (way, wanted))| ReaderPlan { number, way, wanted };
        chosen.chain(watch).enumerate().map(plan).collect()
    }
}
