//! What the processes of a run say to each other: words down the standard input, JSON lines up the standard output.

use std::io::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

use crate::torture::fact::Wanted;
use crate::torture::{Fault, readers, writers};

/// What a process of the run does; the argument it is started with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Part {
    Writers {
        folder: PathBuf,
        process: usize,
        seed: u64,
        /// The numbers of its writers.
        writers: Vec<u32>,
    },
    Readers {
        folder: PathBuf,
        seed: u64,
        readers: Vec<ReaderPlan>,
    },
}

/// How one reader reads.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct ReaderPlan {
    pub(crate) number: usize,
    pub(crate) way: Way,
    pub(crate) wanted: Wanted,
}

/// By which of the library's reads, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Way {
    Pages,
    Subscription,
    ReadAll,
    /// By itself: everything after the last position it has seen.
    Naive,
    /// Page by page in the process that leads the run, which measures how long it waits.
    Watch,
}

/// What the leading process says to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Word {
    /// Finish what is under way and begin nothing.
    Hush,
    /// Go on.
    Go,
    /// Those who write most wait for the readers.
    Slow,
    /// They need not wait any more.
    Fast,
    /// Finish, and end.
    End,
}

/// What a process says to the leading one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    /// What its writers have done so far.
    Wrote(Tally),
    /// Nothing is under way any more.
    Hushed,
    /// How far one of its readers is.
    Read(Progress),
    /// It cannot go on, and why.
    Failed(String),
}

/// What writers have done.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// What one transaction adds to one stream counts as one append, once its commit has been acknowledged.
    pub(crate) appends: u64,
    /// The events of these appends.
    pub(crate) events: u64,
    /// Those of them that went through the library, units of work included.
    pub(crate) library: u64,
    /// Units of work that were committed.
    pub(crate) units: u64,
    /// Appends to several streams.
    pub(crate) to_several_streams: u64,
    /// Attempts that failed, most of them on purpose, or about which nobody knew at first whether they had happened.
    pub(crate) unknown: u64,
    /// Appends that had been stored when they were repeated after that.
    pub(crate) repeated: u64,
    /// Appends that were refused because another one had come first.
    pub(crate) conflicts: u64,
    /// Transactions that were rolled back after numbers were drawn.
    pub(crate) rolled_back: u64,
    /// Savepoints that were rolled back after numbers were drawn.
    pub(crate) savepoints: u64,
    /// Transactions that were prepared.
    pub(crate) prepared: u64,
    /// The highest position that was acknowledged.
    pub(crate) head: u64,
}

impl Tally {
    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            appends: self.appends + other.appends,
            events: self.events + other.events,
            library: self.library + other.library,
            units: self.units + other.units,
            to_several_streams: self.to_several_streams + other.to_several_streams,
            unknown: self.unknown + other.unknown,
            repeated: self.repeated + other.repeated,
            conflicts: self.conflicts + other.conflicts,
            rolled_back: self.rolled_back + other.rolled_back,
            savepoints: self.savepoints + other.savepoints,
            prepared: self.prepared + other.prepared,
            head: self.head.max(other.head),
        }
    }
}

/// How far a reader is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) reader: usize,
    pub(crate) position: u64,
    /// How often it has gone on from its checkpoint since its process began.
    pub(crate) resumed: u64,
    /// How often that was on a standby.
    pub(crate) on_standby: u64,
    /// Whether it has been given the last event of the run.
    pub(crate) done: bool,
}

/// Runs one process of a torture run; for the leading process only.
pub(crate) async fn run(part: &str) -> Result<(), Fault> {
    let done = match serde_json::from_str(part)? {
        Part::Writers { folder, process, seed, writers } => {
            writers::run(&folder, process, seed, &writers, words()).await
        }
        Part::Readers { folder, seed, readers } => readers::run(&folder, seed, readers, words()).await,
    };
    if let Err(error) = &done {
        say(&Said::Failed(told(&**error)))?;
    }
    done
}

/// An error with its causes.
pub(crate) fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        told.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    told
}

/// Says something to the leading process.
pub(crate) fn say(said: &Said) -> Result<(), Fault> {
    let mut text = serde_json::to_string(said)?;
    text.push('\n');
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// What the leading process says. It ends when that process has.
fn words() -> mpsc::Receiver<Word> {
    let (tell, told) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let Ok(word) = serde_json::from_str(&line) else { return };
            if tell.send(word).await.is_err() {
                return;
            }
        }
    });
    told
}
