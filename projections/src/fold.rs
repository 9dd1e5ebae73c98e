//! The fold of one projection over one batch: rounds of `apply` until no row is missing. Pure; the rows come from outside.

use std::any::Any;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use annals_eventstore::{Checkpoint, Incarnation, Position, Recorded, Tenant};
use jiff::Timestamp;
use tracing::{Span, info_span};

use crate::batch::{Batch, Decoded};
use crate::changes::{Changes, RowError};
use crate::column::ColumnValue;
use crate::error::{EventPlace, StopCause};
use crate::known_rows::BadRow;
use crate::parking::{Parked, ParkedStreams, Parking, PassedOver};
use crate::projection::Projection;
use crate::rows::Rows;
use crate::slot::Slot;

/// What one round over the batch came to.
pub(crate) enum Round {
    /// Every event was applied, and every row they asked for was there.
    Done,
    /// The rows of these keys are missing. Supply them and go round again. The event with the number `first` asked for the first.
    Missing { first: usize, keys: Vec<Vec<ColumnValue>> },
    /// The events with these numbers in the batch cannot be applied. Where streams are parked, that is the first of each stream that has
    /// one, up to one that stops the projection; else it is the first of the batch.
    Failed(Vec<(usize, StopCause)>),
}

/// Rows that the table has of the first of the missing keys.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) rows: Vec<Vec<ColumnValue>>,
    /// How many keys were looked up.
    pub(crate) keys: usize,
}

/// All of them were.
impl From<Vec<Vec<ColumnValue>>> for Loaded {
    fn from(rows: Vec<Vec<ColumnValue>>) -> Self {
        Self { rows, keys: usize::MAX }
    }
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
    ///
    /// # Errors
    /// About a row that cannot be read. Then all of them are still missing.
    fn supply(&mut self, loaded: Loaded) -> Result<(), RowError>;

    /// How many lookups the last round has made.
    fn looked_up(&self) -> usize;

    /// How many bytes the rows have that were supplied.
    fn loaded(&self) -> usize;

    /// What the last round made; else all rows that no table can hold or give back, and the numbers of the events that made them.
    fn changes(&mut self) -> Result<Changes, Vec<BadRow>>;

    /// From now on streams can be parked, and those of `parked` are. Their events are passed over.
    fn allow_parking(&mut self, parked: Arc<ParkedStreams>);

    /// Parks the stream of the event with this number: later rounds pass over that event and those behind it.
    ///
    /// # Errors
    /// The cause, if it must stop the projection.
    fn park(&mut self, index: usize, cause: StopCause) -> Result<(), StopCause>;

    /// The streams that were parked at one of the first `events` events, and how many of these were passed over.
    fn take_parked(&mut self, events: usize) -> (Vec<Parked>, Vec<PassedOver>);

    /// Where the event with this number stands.
    fn place(&self, index: usize) -> EventPlace;

    /// When the event with this number was recorded.
    fn recorded_at(&self, index: usize) -> Timestamp;

    /// A span for each event whose trace is kept, as part of that trace.
    fn spans(&self) -> Vec<Span>;

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
    parking: Option<Parking>,
}

impl<P: Projection> Fold<P> {
    pub(crate) fn new(projection: Arc<P>, tenant: Option<&Tenant>, batch: &Batch, after: Position, slot: Slot) -> Self {
        let events = batch.of::<P::Event>();
        let wanted = (0_u32..)
            .zip(events.iter())
            .filter(|(_, event)| event.position() > after)
            .filter(|(_, event)| tenant.is_none_or(|tenant| event.place.stream.tenant() == tenant))
            .filter(|(_, event)| slot.holds(&event.place.stream))
            .map(|(index, _)| index)
            .collect();
        Self { projection, events, wanted, rows: Rows::new(tenant.is_some()), parking: None }
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
        let (mut failed, mut failed_streams) = (Vec::new(), HashSet::new());
        for (index, &at) in self.wanted.iter().enumerate().take(limit) {
            let event = &self.events[at as usize];
            let stream = &event.place.stream;
            if let Some(parking) = &self.parking
                && (parking.passes_over(index, &event.place) || failed_streams.contains(stream))
            {
                continue;
            }
            self.rows.begin(index, stream.tenant());
            // All parts of a stored event are applied in one go, so that no batch and no checkpoint comes between them.
            let cause = match &event.parts {
                Ok(parts) => {
                    let mut cause = None;
                    for part in parts {
                        let failed = apply(self.projection.as_ref(), part, &mut self.rows).err();
                        cause = cause.or(failed);
                    }
                    cause
                }
                Err(unreadable) => Some(unreadable.clone().into()),
            };
            let bad = self.rows.take_failed().filter(|(by, _)| first_missing.is_none_or(|first| *by < first));
            if bad.is_none() && first_missing.is_none() && self.rows.is_missing_any() {
                first_missing = Some(index);
            }
            // Behind a missing row failures mean nothing: the round only continues to find what else is missing.
            let failure = match (bad, cause, first_missing) {
                (Some((by, error)), ..) => (by, StopCause::Row(error)),
                (None, Some(cause), None) => (index, cause),
                _ => continue,
            };
            let goes_on = self.parking.is_some() && failure.1.is_of_one_stream();
            failed.push(failure);
            if !goes_on {
                return Round::Failed(failed);
            }
            failed_streams.insert(stream);
        }
        if let Some(first_missing) = first_missing {
            match self.rows.missing() {
                Ok(keys) => return Round::Missing { first: first_missing, keys },
                Err(error) => failed.push((first_missing, StopCause::Row(error))),
            }
        }
        if failed.is_empty() { Round::Done } else { Round::Failed(failed) }
    }

    fn supply(&mut self, loaded: Loaded) -> Result<(), RowError> {
        self.rows.supply(loaded)
    }

    fn looked_up(&self) -> usize {
        self.rows.looked_up()
    }

    fn loaded(&self) -> usize {
        self.rows.loaded()
    }

    fn changes(&mut self) -> Result<Changes, Vec<BadRow>> {
        self.rows.changes()
    }

    fn allow_parking(&mut self, parked: Arc<ParkedStreams>) {
        self.parking = Some(Parking::of(parked));
    }

    fn park(&mut self, index: usize, cause: StopCause) -> Result<(), StopCause> {
        let stream = self.event(index).place.stream.clone();
        match &mut self.parking {
            Some(parking) if cause.is_of_one_stream() => parking.park(index, stream, cause),
            _ => return Err(cause),
        }
        Ok(())
    }

    fn take_parked(&mut self, events: usize) -> (Vec<Parked>, Vec<PassedOver>) {
        let places: Vec<_> = self.wanted[..events].iter().map(|&at| &self.events[at as usize].place).collect();
        self.parking.as_mut().map(|parking| parking.take(&places)).unwrap_or_default()
    }

    fn place(&self, index: usize) -> EventPlace {
        self.event(index).place.clone()
    }

    fn recorded_at(&self, index: usize) -> Timestamp {
        self.event(index).recorded_at
    }

    fn spans(&self) -> Vec<Span> {
        (0..self.len()).filter_map(|index| span_of(P::NAME, self.event(index))).collect()
    }

    fn checkpoint(&self, incarnation: Incarnation, events: usize) -> Checkpoint {
        let last = self.event(events - 1);
        Checkpoint { incarnation, position: last.position(), event_id: Some(last.event_id) }
    }
}

/// A span for the event, as part of its trace, if that is kept.
pub(crate) fn span_of<E>(projection: &'static str, event: &Decoded<E>) -> Option<Span> {
    let trace_parent = event.trace_parent()?;
    let EventPlace { position, stream, name, .. } = &event.place;
    let event = &**name;
    Some(info_span!("project", projection, position = position.get(), %stream, event, trace_parent))
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
