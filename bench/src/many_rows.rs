//! `many-rows`: what a fold costs that changes many rows for each event, asking for them at once or one by one.

use std::fmt;
use std::time::Duration;

use annals::{
    Event, EventId, EventStore, ExpectedVersion, NewEvent, Projection, ProjectionError, ReadModel, Recorded, Rows,
    SqliteStore, StreamId, Tenant, prelude::*,
};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{Fault, sample};

const MOST_TIME: Duration = Duration::from_secs(600);

/// Measures on SQLite how long a projection takes for events that each change rows of their own.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// How many events.
    #[arg(long, default_value_t = 2_000)]
    events: u64,
    /// How many rows each of them changes.
    #[arg(long, default_value_t = 50)]
    rows: u64,
    /// Print a JSON line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    case: &'static str,
    events: u64,
    rows: u64,
    prefetched_seconds: f64,
    one_by_one_seconds: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} events that each change {} rows on sqlite", self.events, self.rows)?;
        writeln!(f, "  `prefetch`, then a loop  {:.2} s", self.prefetched_seconds)?;
        write!(f, "  a loop alone             {:.2} s", self.one_by_one_seconds)
    }
}

#[derive(Event, Serialize, Deserialize, Clone)]
enum ShelfEvent {
    #[event(name = "shelf.counted")]
    Counted { first: u64, rows: u64 },
}

macro_rules! counted {
    ($projection:ident, $row:ident, $table:literal, $prefetch:literal) => {
        #[derive(ReadModel, Clone)]
        #[read_model(table = $table, key = "item")]
        struct $row {
            item: String,
            count: i64,
        }

        struct $projection;

        impl Projection for $projection {
            type Event = ShelfEvent;
            type Row = $row;

            fn apply(&self, event: &Recorded<ShelfEvent>, rows: &mut Rows<$row>) -> Result<(), ProjectionError> {
                let ShelfEvent::Counted { first, rows: many } = event.event;
                let items: Vec<String> = (first..first + many).map(|item| item.to_string()).collect();
                if $prefetch {
                    rows.prefetch(&items)?;
                }
                for item in items {
                    rows.get_or_insert_with(&item, || $row { item: item.clone(), count: 0 })?.count += 1;
                }
                Ok(())
            }
        }
    };
}

counted!(Prefetched, PrefetchedRow, "prefetched", true);
counted!(OneByOne, OneByOneRow, "one_by_one", false);

pub(crate) async fn measure(options: &Options) -> Result<Report, Fault> {
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(folder.path().join("log.db")).await?;
    let stream = StreamId::new(Tenant::default(), "shelf", "s-1")?;
    let event = |n| {
        NewEvent::of(EventId::new(sample::id())?, &ShelfEvent::Counted { first: n * options.rows, rows: options.rows })
    };
    let events = (0..options.events).map(event).collect::<Result<Vec<_>, _>>()?;
    for chunk in events.chunks(1_000) {
        store.append(&stream, ExpectedVersion::Any, chunk.to_vec()).await?;
    }
    let begun = Instant::now();
    let views = store.projections().with(Prefetched).start().await?;
    views.caught_up(MOST_TIME).await?;
    let prefetched_seconds = begun.elapsed().as_secs_f64();
    views.close().await;
    let begun = Instant::now();
    let views = store.projections().with(OneByOne).start().await?;
    views.caught_up(MOST_TIME).await?;
    let one_by_one_seconds = begun.elapsed().as_secs_f64();
    views.close().await;
    store.close().await;
    let Options { events, rows, .. } = *options;
    Ok(Report { case: "many-rows", events, rows, prefetched_seconds, one_by_one_seconds })
}
