//! The whole log.

use std::io::Write;

use annals::{EventStore, EventStoreExt, Filter, Position};
use futures::TryStreamExt;
use serde_json::json;

use crate::{Fault, target};

/// Prints `{"final":[{"pos":..,"s":..,"ver":..,"id":..},..]}`.
pub(crate) async fn run(db: &str) -> Result<(), Fault> {
    let store = target::open(db).await?;
    let mut events = store.read_all(Position::START, Filter::all());
    let mut log = Vec::new();
    while let Some(event) = events.try_next().await? {
        log.push(json!({
            "pos": event.position.get(),
            "s": target::shown(&event.stream),
            "ver": event.version.get(),
            "id": event.event_id.to_string(),
        }));
    }
    store.close().await;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", json!({ "final": log }))?;
    Ok(out.flush()?)
}
