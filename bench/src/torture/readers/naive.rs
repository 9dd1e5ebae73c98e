//! The reader that believes what it sees: everything after the last position it has seen. It must miss events.

use std::time::Duration;

use annals::engine::Incarnation;
use annals::{Checkpoint, EventId, Position};
use fastrand::Rng;
use sqlx::Row;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::torture::Fault;
use crate::torture::fact::Fact;
use crate::torture::part::{Progress, Said, say};
use crate::torture::place::{Link, Place};
use crate::torture::readers::session::life;
use crate::torture::readers::shelf::Shelf;

const AFTER: &str = "
    SELECT position, aggregate_id, version, event_id
    FROM annals.events
    WHERE position > $1
    ORDER BY position
    LIMIT 1000
";

/// Reads for a while.
pub(super) async fn session(
    place: &Place,
    shelf: &mut Shelf,
    random: &mut Rng,
    mut progress: Progress,
) -> Result<bool, Fault> {
    let until = Instant::now() + life(random);
    let mut link = Link::new(place);
    while !shelf.is_done() && Instant::now() < until {
        let query = sqlx::query(AFTER).bind(shelf.position().cast_signed());
        let Ok(rows) = query.fetch_all(link.get().await?).await else {
            link.mend().await;
            continue;
        };
        for row in &rows {
            shelf.add(&Fact::of_row(row)?)?;
        }
        if let Some(last) = rows.last() {
            shelf.reached(&Checkpoint {
                incarnation: Incarnation(Uuid::nil()),
                position: Position::new(last.try_get(0)?)?,
                event_id: Some(EventId::new(last.try_get(3)?)?),
            })?;
        }
        progress.position = shelf.position();
        say(&Said::Read(progress))?;
        sleep(Duration::from_millis(1)).await;
    }
    link.close().await;
    Ok(false)
}
