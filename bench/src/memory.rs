//! `memory`: what a process holds at most, where something is many or large.

use std::fmt;
use std::time::Duration;

use annals::engine::Payload;
use annals::{
    Aggregate, AggregateStore, Event, EventId, EventStore, EventStoreExt, Evolve, ExpectedVersion, Filter, Metadata,
    NewEvent, Position, ProjectionError, ReadModel, Recorded, Rows, SqliteStore, prelude::*,
};
use clap::{Args, ValueEnum};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::report::peak_resident_mb;
use crate::{Fault, sample};

/// Measures the largest resident memory of a process, beside what it was before, on SQLite.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// What is held.
    #[arg(value_enum)]
    what: What,
    /// Print a JSON line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// 200 subscriptions whose consumers are slow, on a log of 20,000 events of 8 kB.
    Subscriptions,
    /// The cached states of 500 aggregates, of 4 MB each.
    States,
    /// A page of 4,000 events with 15 kB of metadata each.
    Page,
    /// A projection whose batch of 2,000 small events needs 2,000 rows of 200 kB.
    Rows,
}

impl What {
    /// What the process may hold at most beside what it held before, in MB: the bound of the library, and as much again for
    /// what is on its way.
    fn bound_mb(self) -> f64 {
        match self {
            Self::Subscriptions => 256.0,
            Self::States => 512.0,
            Self::Page => 64.0,
            Self::Rows => 128.0,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    case: &'static str,
    what: String,
    before_mb: f64,
    most_mb: f64,
    bound_mb: f64,
}

impl Report {
    pub(crate) fn holds(&self) -> bool {
        self.most_mb - self.before_mb <= self.bound_mb
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, before_mb, most_mb, bound_mb, .. } = self;
        writeln!(f, "memory of {what} on sqlite")?;
        writeln!(f, "  {before_mb:.0} MB before   {most_mb:.0} MB at most")?;
        write!(
            f,
            "  wanted: at most {bound_mb:.0} MB more, {}",
            if self.holds() { "which holds" } else { "WHICH FAILS" }
        )
    }
}

#[derive(Event, Serialize, Deserialize, Clone)]
enum NoteEvent {
    #[event(name = "note.written")]
    Written { text: String },
}

#[derive(Aggregate, Serialize, Deserialize, Default, Clone)]
#[aggregate(name = "note", id = String, event = NoteEvent)]
struct Note(Vec<String>);

impl Evolve for Note {
    fn evolve(&mut self, event: &NoteEvent) {
        let NoteEvent::Written { text } = event;
        self.0.push(text.clone());
    }
}

#[derive(ReadModel, Clone)]
#[read_model(table = "notes", key = "note")]
struct Row {
    note: String,
    text: String,
    changes: i64,
}

struct Notes;

impl annals::Projection for Notes {
    type Event = NoteEvent;
    type Row = Row;

    fn apply(&self, event: &Recorded<NoteEvent>, rows: &mut Rows<Row>) -> Result<(), ProjectionError> {
        let note = event.stream.aggregate_id().to_owned();
        if let Some(row) = rows.get_mut(&note)? {
            row.changes += 1;
            return Ok(());
        }
        rows.upsert(Row { note, text: "t".repeat(200_000), changes: 0 });
        Ok(())
    }
}

pub(crate) async fn measure(options: &Options) -> Result<Report, Fault> {
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(folder.path().join("log.db")).await?;
    fill(&store, options.what).await?;
    let before_mb = reset_peak()?;
    match options.what {
        What::Subscriptions => subscriptions(&store).await?,
        What::States => states(&store).await?,
        What::Page => drop(store.read_page(Position::START.into(), &Filter::all(), 4_000).await?),
        What::Rows => rows(&store).await?,
    }
    let most_mb = peak_resident_mb().ok_or("the kernel does not tell the resident memory")?;
    store.close().await;
    let what = options.what.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    Ok(Report { case: "memory", what, before_mb, most_mb, bound_mb: options.what.bound_mb() })
}

/// What the process holds now, from which on the peak is counted.
fn reset_peak() -> Result<f64, Fault> {
    std::fs::write("/proc/self/clear_refs", "5")?;
    peak_resident_mb().ok_or_else(|| "the kernel does not tell the resident memory".into())
}

fn note(text: &str) -> Result<NewEvent, Fault> {
    Ok(NewEvent::of(EventId::new(sample::id())?, &NoteEvent::Written { text: text.to_owned() })?)
}

async fn fill(store: &SqliteStore, what: What) -> Result<(), Fault> {
    let append = async |id: String, events: Vec<NewEvent>| {
        let stream = annals::StreamId::new(annals::Tenant::default(), "note", id)?;
        store.append(&stream, ExpectedVersion::Any, events).await?;
        Ok::<_, Fault>(())
    };
    match what {
        What::Subscriptions => {
            let text = "e".repeat(8_000);
            for n in 0..40 {
                append(n.to_string(), (0..500).map(|_| note(&text)).collect::<Result<_, _>>()?).await?;
            }
        }
        What::States => {
            let text = "s".repeat(1_000_000);
            for n in 0..500 {
                append(n.to_string(), (0..4).map(|_| note(&text)).collect::<Result<_, _>>()?).await?;
            }
        }
        What::Page => {
            let mut metadata = Metadata::default();
            metadata.extra.insert("note".to_owned(), "m".repeat(15_000));
            for n in 0..8 {
                let event = |_| {
                    let event =
                        NewEvent::raw(EventId::new(sample::id())?, "note.written", 1, Payload::from_json("{}")?)?;
                    Ok::<_, Fault>(event.with_metadata(metadata.clone()))
                };
                append(n.to_string(), (0..500).map(event).collect::<Result<_, _>>()?).await?;
            }
        }
        What::Rows => {
            for n in 0..2_000 {
                append(n.to_string(), vec![note("n")?]).await?;
            }
        }
    }
    Ok(())
}

async fn subscriptions(store: &SqliteStore) -> Result<(), Fault> {
    let mut all: Vec<_> = (0..200).map(|_| store.subscribe(Position::START, Filter::all())).collect();
    // Far enough that the pages of each are as long as they get, and then none reads on.
    for subscription in &mut all {
        for _ in 0..500 {
            subscription.next().await.ok_or("a subscription ended")??;
        }
    }
    // What is read ahead by now is held.
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

async fn states(store: &SqliteStore) -> Result<(), Fault> {
    let notes = store.aggregate::<Note>();
    for n in 0..500 {
        let loaded = notes.load(&n.to_string()).await?;
        if loaded.state.0.len() != 4 {
            return Err("a state is not whole".into());
        }
    }
    Ok(())
}

/// Builds the rows, then changes all of them in as few batches as there are.
async fn rows(store: &SqliteStore) -> Result<(), Fault> {
    let views = store.projections().with(Notes).start().await?;
    let caught_up = Duration::from_secs(120);
    views.caught_up(caught_up).await?;
    reset_peak()?;
    for n in 0..2_000 {
        let stream = annals::StreamId::new(annals::Tenant::default(), "note", n.to_string())?;
        store.append(&stream, ExpectedVersion::Any, vec![note("n")?]).await?;
    }
    views.caught_up(caught_up).await?;
    views.close().await;
    Ok(())
}
