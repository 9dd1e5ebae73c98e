//! Runs a projection, for checkers that end the process at any moment.

use std::collections::BTreeSet;
use std::time::Duration;

use annals::projections::{ProjectionState, ProjectionStatus};
use annals::{EventStore, Projections, StreamProjection};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::line::{Line, monotonic, print};
use crate::sum::Sum;
use crate::{Fault, target};

/// How often it looks at which slots this process works on.
const LOOK: Duration = Duration::from_millis(20);

/// Runs until SIGTERM, or until the projection has stopped, which is an error.
pub(crate) async fn run(db: &str, slots: u32, lease: Duration, name: &str) -> Result<(), Fault> {
    // From now on the signal is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let (store, views) = target::open_with_projections(db).await?;
    let views = views.with(Sum.slots(slots)).lease(lease).runner_name(name).start().await?;
    print(&Line::Run { name, projection: "sum", slots, lease_ms: lease.as_millis(), t: monotonic() })?;
    let stopped = tokio::select! {
        _ = terminate.recv() => None,
        stopped = views.stopped() => stopped.err(),
        failed = report(&views, name) => return failed,
    };
    let why = stopped.map(|stopped| chain(&stopped));
    if let Some(why) = &why {
        print(&Line::Stopped { name, why, t: monotonic() })?;
    }
    views.close().await;
    let applied = views.status().iter().map(|status| status.applied).sum();
    print(&Line::End { name, applied, t: monotonic() })?;
    store.close().await;
    why.map_or(Ok(()), |why| Err(why.into()))
}

/// Prints every change of what this process works on. Ends only if it cannot print.
async fn report(views: &Projections, name: &str) -> Result<(), Fault> {
    let mut known = BTreeSet::new();
    loop {
        let owned: BTreeSet<u32> = views.status().iter().flat_map(|status| owned(status, &known)).collect();
        if owned != known {
            let slots: Vec<u32> = owned.iter().copied().collect();
            print(&Line::Own { name, slots: &slots, t: monotonic() })?;
            known = owned;
        }
        sleep(LOOK).await;
    }
}

/// The slots that this process works on. While it retries, it may or may not have a slot, so that it is said as before.
fn owned(status: &ProjectionStatus, known: &BTreeSet<u32>) -> Vec<u32> {
    let is_owned = |slot: &u32, state: &ProjectionState| match state {
        ProjectionState::CatchingUp | ProjectionState::Live => true,
        ProjectionState::Retrying { .. } => known.contains(slot),
        _ => false,
    };
    status.slots.iter().filter(|slot| is_owned(&slot.slot, &slot.state)).map(|slot| slot.slot).collect()
}

/// An error and its sources.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
