//! Appends to a log of many events, beside a short one.

use annals::EventStore;

use super::{Ours, Work, postgres, slice};
use crate::report::Report;
use crate::server::MeasuredServer;
use crate::slices::{Tally, plan, report};
use crate::{Fault, Options, fill};

/// The short log.
const FEW: usize = 100_000;

/// Events of a stream, as the appends of the measurement make it.
const LENGTH: usize = 10;

/// Measures appends of one event; both sides are ours.
pub(crate) async fn measure(options: &Options) -> Result<Report, Fault> {
    let mut server = MeasuredServer::find().await?;
    let mut logs = Vec::new();
    for (name, events) in [("long", options.events()), ("short", FEW)] {
        let url = server.database(name).await?;
        postgres::open(&url, options).await?.close().await;
        fill::on_the_server(&url, events, LENGTH).await?;
        let store = postgres::open(&url, options).await?;
        logs.push((store, Work::from(events as u64, options.clients, 1), Tally::default()));
    }
    let (slices, time) = plan(options.time());
    for _ in 0..slices {
        for (store, work, tally) in &mut logs {
            slice(&Ours(store.clone()), work, time, tally).await?;
        }
    }
    let mut tallies = Vec::new();
    for (store, _, tally) in logs {
        store.close().await;
        tallies.push(tally);
    }
    server.remove().await?;
    let [long, short] = <[Tally; 2]>::try_from(tallies).map_err(|_| "there are two logs")?;
    let name = format!("annals with {FEW} events instead of {}", options.events());
    Ok(report("growth", "postgres", options.clients, long, Some((&name, short))))
}
