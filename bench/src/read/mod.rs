//! Reads of the whole log.

mod copy;
mod postgres;
mod sqlite;

use std::time::Instant;

use annals::{EventStore, EventStoreExt, Filter, MemoryStore, Position};
use futures::StreamExt;

use crate::plain::our_amount;
use crate::report::Report;
use crate::slices::{Tally, report};
use crate::{Fault, Options, Store, fill};

/// Events of one stream.
const LENGTH: usize = 1_000;

/// Measures reads of the whole log; the unit is one event.
pub(crate) async fn measure(options: &Options) -> Result<Report, Fault> {
    match options.store {
        Store::Memory => {
            let store = MemoryStore::new();
            fill::by_appends(&store, options.events().div_ceil(LENGTH), LENGTH).await?;
            let mut ours = Tally::default();
            while ours.busy < options.time() {
                our_read(&store, &mut ours).await?;
            }
            Ok(report("read", "memory", 1, ours, None))
        }
        Store::Sqlite => sqlite::measure(options).await,
        Store::Postgres => postgres::measure(options).await,
    }
}

async fn our_read<S: EventStore + Clone>(store: &S, tally: &mut Tally) -> Result<(), Fault> {
    let start = Instant::now();
    let mut events = store.read_all(Position::START, Filter::all());
    let (mut count, mut sum) = (0, 0);
    while let Some(event) = events.next().await {
        sum += our_amount(&event?)?;
        count += 1;
    }
    std::hint::black_box(sum);
    tally.add(count, start.elapsed(), [start.elapsed()]);
    Ok(())
}
