//! Looking for instances for which something is to be done.

use std::sync::Arc;
use std::time::Duration;

use annals_projections::{ProjectionState, QueryError, QueryValue};
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::any_saga::Key;
use super::in_flight::slot_values;
use super::instances::{SagaInstance, SagaInstances};
use super::shared::Shared;
use crate::instance::SagaId;
use crate::plan::after;

/// The instances of a saga for which something is to be done, in the slots that this process has: those that are due longest first,
/// behind the last one of the page before.
pub(crate) const DUE: &str = "
    saga_type = $1 AND wake_at <= $2 AND wake_at >= $19
    AND slot IN ($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
    AND (wake_at > $19 OR (wake_at = $19 AND (tenant > $20 OR (tenant = $20 AND saga_id > $21))))
    ORDER BY wake_at NULLS LAST
    LIMIT 128
";

/// How many rows a page of [`DUE`] has at most.
const PAGE: usize = 128;

/// The next saga by its name of which an instance has something to do now or later.
const NEXT_SAGA: &str = "
    saga_type > $1 AND wake_at IS NOT NULL
    ORDER BY saga_type, wake_at NULLS LAST
    LIMIT 1
";

/// Before every time of an instance.
const FIRST: Timestamp = Timestamp::constant(-62_135_596_800, 0);

/// How often it is looked at most, as long as something is found; the pause doubles up to the longest as long as nothing is.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// How often it is looked for sagas that this process does not have.
const MISSING_EVERY: Duration = Duration::from_secs(60);

/// What a look has found.
#[derive(Default)]
struct Found {
    /// How many instances were taken.
    taken: usize,
    /// When the next one is due.
    next: Option<Timestamp>,
}

/// Looks for instances, and runs what it finds, until `cancel`.
pub(crate) async fn look(shared: Arc<Shared>, cancel: CancellationToken) {
    let mut changes = shared.state.clone();
    let (mut pause, mut missing_at, mut turn) = (SHORTEST_PAUSE, Instant::now(), 0);
    loop {
        changes.mark_unchanged();
        turn += 1;
        let found = match find(&shared, turn).await {
            Ok(found) => {
                shared.looked(None);
                found
            }
            Err(error) => {
                tracing::warn!(%error, "the table of sagas could not be read; it is read again");
                shared.looked(Some(error.to_string()));
                Found::default()
            }
        };
        if missing_at <= Instant::now() {
            look_for_missing(&shared).await;
            missing_at = Instant::now() + MISSING_EVERY;
        }
        let idle = found.taken == 0 && shared.in_flight.count() > 0;
        pause = if idle { (pause * 2).min(LONGEST_PAUSE) } else { SHORTEST_PAUSE };
        let now = Instant::now();
        let wait = found.next.map(|at| Duration::try_from(at.duration_since(shared.clock.now())).unwrap_or_default());
        let latest = now + wait.unwrap_or(shared.look_every).min(shared.look_every);
        let changed = async {
            tokio::select! {
                Ok(()) = changes.changed() => {}
                () = shared.wake.notified() => {}
            }
            sleep_until((now + pause).min(latest)).await;
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = sleep_until(latest) => {}
            () = changed => {}
        }
    }
}

/// Takes what is due, as long as there is room. Each time another saga is the first, so that none takes all the room for ever.
async fn find(shared: &Arc<Shared>, turn: usize) -> Result<Found, QueryError> {
    let slots = shared.slots();
    shared.in_flight.keep(&slots);
    let mut found = Found::default();
    if slots.is_empty() {
        return Ok(found);
    }
    let now = shared.clock.now();
    let until = after(now, shared.look_every);
    let slots = slot_values(&slots);
    let sagas = shared.sagas.len();
    for name in shared.sagas.keys().cycle().skip(turn % sagas.max(1)).take(sagas) {
        let mut behind = (FIRST, String::new(), String::new());
        while shared.in_flight.room() > 0 {
            let mut values: Vec<&dyn QueryValue> = vec![name, &until];
            values.extend(slots.iter().map(|slot| slot as &dyn QueryValue));
            values.extend([&behind.0 as &dyn QueryValue, &behind.1, &behind.2]);
            let rows = shared.views.select::<SagaInstances>(DUE, &values).await?;
            let is_last = rows.len() < PAGE;
            for row in rows {
                let wake_at = row.wake_at.unwrap_or(now);
                behind = (wake_at, row.tenant.to_string(), row.saga_id.clone());
                if wake_at > now {
                    found.next = Some(found.next.map_or(wake_at, |next| next.min(wake_at)));
                } else if take(shared, row) {
                    found.taken += 1;
                }
            }
            if is_last {
                break;
            }
        }
    }
    Ok(found)
}

fn take(shared: &Arc<Shared>, row: SagaInstance) -> bool {
    match SagaId::new(&row.saga_id) {
        Ok(id) => shared.run(Key { tenant: row.tenant, id }, &row.saga_type, Some(row.version)),
        Err(error) => {
            tracing::warn!(saga = row.saga_id, %error, "a row has an id that no saga can have");
            false
        }
    }
}

/// Notes the sagas that this process does not have and that have something to do, so that people learn of it.
async fn look_for_missing(shared: &Shared) {
    let (mut name, mut missing) = (String::new(), Vec::new());
    while let Ok(rows) = shared.views.select::<SagaInstances>(NEXT_SAGA, &[&name]).await {
        let Some(row) = rows.into_iter().next() else { break };
        name = row.saga_type;
        if !shared.sagas.contains_key(&name) {
            tracing::warn!(
                saga = name,
                "instances of this saga have something to do, and this process does not have it"
            );
            missing.push(name.clone());
        }
    }
    shared.set_missing(missing);
}

/// Whether this process has a slot in its hands.
pub(crate) fn has(state: &ProjectionState) -> bool {
    matches!(state, ProjectionState::CatchingUp | ProjectionState::Live | ProjectionState::Retrying { .. })
}
