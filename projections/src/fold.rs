//! The fold of one projection over one batch: rounds of `apply` until no row is missing. Pure; the rows come from outside.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use annals_eventstore::{Checkpoint, Incarnation, Position, Recorded, Tenant};

use crate::batch::{Batch, Decoded};
use crate::changes::{Changes, RowError};
use crate::column::ColumnValue;
use crate::error::{EventPlace, StopCause};
use crate::known_rows::BadRow;
use crate::projection::Projection;
use crate::rows::Rows;

/// What one round over the batch came to.
pub(crate) enum Round {
    /// Every event was applied, and every row they asked for was there.
    Done,
    /// The rows of these keys are missing. Supply them and go round again.
    Missing(Vec<Vec<ColumnValue>>),
    /// The event with this number in the batch cannot be applied; those before it can.
    Failed(usize, StopCause),
}

/// A fold whose types are hidden from the runner.
///
/// `round` until it is `Done`, supplying what is missing in between; then `changes`. Every round begins anew, so nothing of a
/// failed one is left.
pub(crate) trait AnyFold: Send {
    /// How many events of the batch the projection wants.
    fn len(&self) -> usize;

    /// Applies the first `limit` events, from the rows as the table has them.
    fn round(&mut self, limit: usize) -> Round;

    /// Takes the rows that the table has of those missing after the last round.
    fn supply(&mut self, rows: Vec<Vec<ColumnValue>>) -> Result<(), RowError>;

    /// What the last round made; else a row that no table can hold or give back, and the number of the event that made it.
    fn changes(&mut self) -> Result<Changes, BadRow>;

    /// Where the event with this number stands.
    fn place(&self, index: usize) -> EventPlace;

    /// The checkpoint of having applied the first `events` events, 1 at least.
    fn checkpoint(&self, incarnation: Incarnation, events: usize) -> Checkpoint;
}

/// The fold of `P` over the events of a batch that it wants and has not applied yet.
pub(crate) struct Fold<P: Projection> {
    projection: Arc<P>,
    events: Arc<Vec<Decoded<P::Event>>>,
    /// The numbers of those events in `events`.
    wanted: Vec<u32>,
    rows: Rows<P::Row>,
}

impl<P: Projection> Fold<P> {
    pub(crate) fn new(projection: Arc<P>, tenant: Option<&Tenant>, batch: &Batch, after: Position) -> Self {
        let events = batch.of::<P::Event>();
        let wanted = (0_u32..)
            .zip(events.iter())
            .filter(|(_, event)| event.position() > after)
            .filter(|(_, event)| tenant.is_none_or(|tenant| event.place.stream.tenant() == tenant))
            .map(|(index, _)| index)
            .collect();
        Self { projection, events, wanted, rows: Rows::new() }
    }

    fn event(&self, index: usize) -> &Decoded<P::Event> {
        &self.events[self.wanted[index] as usize]
    }
}

impl<P: Projection> AnyFold for Fold<P> {
    fn len(&self) -> usize {
        self.wanted.len()
    }

    fn round(&mut self, limit: usize) -> Round {
        self.rows.reset();
        let mut first_missing = None;
        for (index, &at) in self.wanted.iter().enumerate().take(limit) {
            let event = &self.events[at as usize];
            self.rows.begin(index, event.place.stream.tenant());
            // All parts of a stored event are applied in one go, so that no batch and no checkpoint comes between them.
            let failed = match &event.parts {
                Ok(parts) => {
                    let mut failed = None;
                    for part in parts {
                        let cause = apply(self.projection.as_ref(), part, &mut self.rows).err();
                        failed = failed.or(cause);
                    }
                    failed
                }
                Err(unreadable) => Some(unreadable.clone().into()),
            };
            if let Some((by, error)) = self.rows.take_failed()
                && first_missing.is_none_or(|first| by < first)
            {
                return Round::Failed(by, StopCause::Row(error));
            }
            if first_missing.is_none() && self.rows.is_missing_any() {
                first_missing = Some(index);
            }
            // Behind a missing row failures mean nothing: the round only continues to find what else is missing.
            if let (Some(cause), None) = (failed, first_missing) {
                return Round::Failed(index, cause);
            }
        }
        let Some(first_missing) = first_missing else { return Round::Done };
        match self.rows.missing() {
            Ok(keys) => Round::Missing(keys),
            Err(error) => Round::Failed(first_missing, StopCause::Row(error)),
        }
    }

    fn supply(&mut self, rows: Vec<Vec<ColumnValue>>) -> Result<(), RowError> {
        self.rows.supply(rows)
    }

    fn changes(&mut self) -> Result<Changes, BadRow> {
        self.rows.changes()
    }

    fn place(&self, index: usize) -> EventPlace {
        self.event(index).place.clone()
    }

    fn checkpoint(&self, incarnation: Incarnation, events: usize) -> Checkpoint {
        let last = self.event(events - 1);
        Checkpoint { incarnation, position: last.position(), event_id: Some(last.event_id) }
    }
}

/// Applies one event; a panic is an error like any other.
fn apply<P: Projection>(projection: &P, event: &Recorded<P::Event>, rows: &mut Rows<P::Row>) -> Result<(), StopCause> {
    // Whatever a panic leaves half-done in the rows is thrown away with the round.
    match catch_unwind(AssertUnwindSafe(|| projection.apply(event, rows))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.into()),
        Err(panic) => Err(StopCause::Panicked(panic_text(panic.as_ref()))),
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
