//! Transaction projections whose types are hidden from the runner, and the events of a batch on their way to one.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use annals_eventstore::__private::aggregate_types;
use annals_eventstore::{Checkpoint, Incarnation, Position, Tenant};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tracing::Span;

use super::connection::ProjectionTransaction;
use super::projection::TransactionProjection;
use crate::batch::{Batch, Decoded, Decoder};
use crate::database::Model;
use crate::error::{EventPlace, ProjectionError, StopCause};
use crate::fold::{AnyFold, panic_text, span_of};
use crate::member::{AnyProjection, events_of, names_of, strike_seen};
use crate::read_model::TableSpec;
use crate::shape::Shape;
use crate::slot::Slot;
use crate::stream_options::Kind;

/// In the place of a table, as nothing is known of its tables.
pub(crate) const NO_TABLE: &TableSpec =
    &TableSpec { name: "", columns: &[], key: &[], indexes: &[], per_tenant: false };

/// What is stored as the shape of its rows. It never changes.
const SHAPE: &str = "transaction";

/// What only transaction projections do.
pub(crate) trait AnyTransaction: Send + Sync {
    /// Makes the tables.
    fn set_up<'a>(&'a self, tx: &'a mut ProjectionTransaction<'_>) -> BoxFuture<'a, Result<(), ProjectionError>>;

    /// The events of `batch` behind `after` that it wants.
    fn events(&self, batch: &Batch, after: Position) -> Box<dyn TransactionEvents>;
}

/// The events of a batch, by their numbers.
pub(crate) trait TransactionEvents: Send + Sync {
    fn len(&self) -> usize;

    fn place(&self, index: usize) -> EventPlace;

    /// The checkpoint of having applied the first `events` events, 1 at least.
    fn checkpoint(&self, incarnation: Incarnation, events: usize) -> Checkpoint;

    /// When the event was recorded.
    fn recorded_at(&self, index: usize) -> Timestamp;

    /// A span for the event, as part of its trace, if that is kept.
    fn span(&self, index: usize) -> Option<Span>;

    /// Applies all parts of one event.
    fn apply<'a>(
        &'a self,
        index: usize,
        tx: &'a mut ProjectionTransaction<'_>,
    ) -> BoxFuture<'a, Result<(), NotApplied>>;
}

/// Why an event was not applied.
pub(crate) enum NotApplied {
    /// What the projection said. It may pass, if it is a fault of the database.
    Error(ProjectionError),
    Cause(StopCause),
}

pub(crate) struct TypedTransaction<T> {
    projection: Arc<T>,
    tenant: Option<Tenant>,
}

impl<T: TransactionProjection> TypedTransaction<T> {
    pub(crate) fn new(projection: T) -> Self {
        let tenant = projection.tenant();
        Self { projection: Arc::new(projection), tenant }
    }
}

impl<T: TransactionProjection> AnyProjection for TypedTransaction<T> {
    fn model(&self) -> Model {
        Model { projection: T::NAME, version: T::VERSION, table: NO_TABLE }
    }

    fn names(&self) -> Vec<&'static str> {
        names_of::<T::Event>()
    }

    fn aggregate_types(&self) -> Option<Vec<&'static str>> {
        aggregate_types::<T::Event>()
    }

    fn event_lines(&self) -> Vec<String> {
        events_of::<T::Event>()
    }

    fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    fn across_tenants(&self) -> bool {
        // Its SQL is its own, and nobody looks at which rows that writes.
        false
    }

    fn set_tenant(&mut self, tenant: Tenant) {
        self.tenant = Some(tenant);
    }

    fn decoder(&self) -> Decoder {
        Decoder::of::<T::Event>()
    }

    fn other_tenant(&self, _: &Batch, _: &mut Option<Tenant>) -> Option<Tenant> {
        None
    }

    fn strike_seen(&self, batch: &Batch, names: &mut Vec<&'static str>) {
        strike_seen::<T::Event>(batch, self.tenant.as_ref(), names);
    }

    fn shape(&self) -> Shape {
        Shape { table: SHAPE.to_owned(), ..Shape::of(NO_TABLE, self.event_lines(), self.tenant()) }
    }

    fn kind(&self) -> Kind {
        Kind::ROWS
    }

    fn fold(&self, _: &Batch, _: Position, _: Slot) -> Box<dyn AnyFold> {
        unreachable!("it runs in a pass of its own, and only projections with rows are asked for their fold")
    }

    fn in_transaction(&self) -> Option<&dyn AnyTransaction> {
        Some(self)
    }
}

impl<T: TransactionProjection> AnyTransaction for TypedTransaction<T> {
    fn set_up<'a>(&'a self, tx: &'a mut ProjectionTransaction<'_>) -> BoxFuture<'a, Result<(), ProjectionError>> {
        self.projection.set_up(tx).boxed()
    }

    fn events(&self, batch: &Batch, after: Position) -> Box<dyn TransactionEvents> {
        let events = batch.of::<T::Event>();
        let is_wanted = |event: &Decoded<T::Event>| {
            let of_tenant = |tenant: &Tenant| event.place.stream.tenant() == tenant;
            event.position() > after && self.tenant.as_ref().is_none_or(of_tenant)
        };
        let wanted = (0..events.len()).filter(|&at| is_wanted(&events[at])).collect();
        Box::new(Wanted { projection: Arc::clone(&self.projection), events, wanted })
    }
}

struct Wanted<T: TransactionProjection> {
    projection: Arc<T>,
    events: Arc<Vec<Decoded<T::Event>>>,
    /// The numbers of those that it wants in `events`.
    wanted: Vec<usize>,
}

impl<T: TransactionProjection> Wanted<T> {
    fn event(&self, index: usize) -> &Decoded<T::Event> {
        &self.events[self.wanted[index]]
    }
}

impl<T: TransactionProjection> TransactionEvents for Wanted<T> {
    fn len(&self) -> usize {
        self.wanted.len()
    }

    fn place(&self, index: usize) -> EventPlace {
        self.event(index).place.clone()
    }

    fn checkpoint(&self, incarnation: Incarnation, events: usize) -> Checkpoint {
        let last = self.event(events - 1);
        Checkpoint { incarnation, position: last.position(), event_id: Some(last.event_id) }
    }

    fn recorded_at(&self, index: usize) -> Timestamp {
        self.event(index).recorded_at
    }

    fn span(&self, index: usize) -> Option<Span> {
        span_of(T::NAME, self.event(index))
    }

    fn apply<'a>(
        &'a self,
        index: usize,
        tx: &'a mut ProjectionTransaction<'_>,
    ) -> BoxFuture<'a, Result<(), NotApplied>> {
        let applied = async move {
            let parts = self.event(index).parts.as_ref();
            let parts = parts.map_err(|unreadable| NotApplied::Cause(unreadable.clone().into()))?;
            for part in parts {
                // Whatever a panic leaves half-done is rolled back with the transaction.
                let applying = AssertUnwindSafe(async { self.projection.apply(part, &mut *tx).await });
                match applying.catch_unwind().await {
                    Ok(applied) => applied.map_err(NotApplied::Error)?,
                    Err(panic) => {
                        return Err(NotApplied::Cause(StopCause::Panicked(panic_text(panic.as_ref()))));
                    }
                }
            }
            Ok(())
        };
        applied.boxed()
    }
}
