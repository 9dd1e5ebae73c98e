//! The reader that measures how long it is given nothing though there is more.

use std::time::Duration;

use annals::{EventStore, Filter, Position, PostgresOptions};
use tokio::time::{Instant, sleep, timeout};

use crate::torture::Fault;
use crate::torture::fact::Fact;
use crate::torture::place::Place;
use crate::torture::readers::shelf::Shelf;
use crate::torture::readers::waits::{Ages, Wait, Waits};

/// Reads every event through one handle that stays open through the whole run.
pub(crate) async fn read(place: Place, reader: usize, ages: Ages, tell: impl Fn(u64) + Send) -> Result<Waits, Fault> {
    let mut shelf = Shelf::resume(&place, reader)?;
    let store = PostgresOptions::new(place.url()).connections(2).open().await?;
    let mut news = store.watch();
    let mut waits = Waits::default();
    let mut after = Position::START;
    // Since when the read that is due has not come.
    let mut due = Instant::now();
    while !shelf.is_done() {
        news.borrow_and_update();
        let page = match store.read_page(after.into(), &Filter::all(), 1_000).await {
            Ok(page) => page,
            Err(error) if error.is_transient() => {
                sleep(Duration::from_millis(20)).await;
                // The server is away: no wait for a writer.
                due = Instant::now();
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for event in &page.events {
            shelf.add(&Fact::of_event(event)?)?;
        }
        if let Some(checkpoint) = page.checkpoint {
            shelf.reached(&checkpoint)?;
            after = checkpoint.position;
            let millis = |duration: Duration| duration.as_secs_f64() * 1_000.0;
            let oldest_writer_ms = millis(ages.oldest_since(due));
            waits.add(Wait { waited_ms: millis(due.elapsed()), oldest_writer_ms });
            tell(shelf.position());
            due = Instant::now();
        } else if page.end {
            // Others wake it by polling only; nothing is lost if they do not.
            timeout(Duration::from_millis(100), news.changed()).await.ok();
            due = Instant::now();
        }
    }
    store.close().await;
    Ok(waits)
}
