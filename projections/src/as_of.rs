//! A read model as it was: the log up to there, folded into memory by the code that folds it into a database.

use std::sync::Arc;

use annals_eventstore::{After, AsOf, Backoff, Checkpoint, ErrorFamily, EventStore, Position, ReadError, Tenant};
use tokio::time::sleep;

use crate::changes::RowError;
use crate::column::ColumnValue;
use crate::error::{EventPlace, StopCause, Stopped};
use crate::folding::{Folding, Outcome, Step, Stop};
use crate::member::{AnyProjection, chain, wanted};
use crate::memory_table::MemoryTable;
use crate::page_reader::PageReader;
use crate::parking::{Parked, ParkedStreams, PassedOver};
use crate::projection::Projection;
use crate::read_model::ReadModel;
use crate::rows::read_row;
use crate::slot::Slot;

/// How many rows a read model as of a moment may have by default.
pub(crate) const MOST_ROWS: usize = 100_000;

/// The rows of a read model as they were, returned by [`Projections::as_of`](crate::Projections::as_of).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RowsAsOf<R> {
    /// All rows, in the order of their keys.
    pub rows: Vec<R>,
    /// Up to where the log was folded. [`AsOf::position`] of it gives the same rows for ever.
    pub position: Position,
    /// The events that a stream projection with dead letters could not apply: the row of each one's stream is as it was before it.
    /// Why is logged by `tracing`, at the level `WARN`. Any other projection ends with [`AsOfError::Stopped`].
    pub parked: Vec<EventPlace>,
}

/// Why a read model could not be shown as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AsOfError {
    /// The log cannot be read up to there: a position beyond its end, a time that is not over, or a fault of the store.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The projection cannot apply an event of that part of the log; a projection that runs would stop there too.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// There were more rows than fit. Raise the limit by `ProjectionsBuilder::most_rows_as_of`, or ask a projection of fewer rows.
    #[error("`{read_model}` had more than {limit} rows at position {position}; raise the limit by `most_rows_as_of`")]
    TooManyRows {
        /// The read model's stable name.
        read_model: &'static str,
        /// How many rows it may have.
        limit: usize,
        /// Up to where the log was folded by then.
        position: Position,
    },
    /// No projection of this name was started. Add it by `with`.
    #[error("no projection is called `{name}`; started are {known}; add it by `with`")]
    Unknown {
        /// The name.
        name: String,
        /// The names there are, joined by commas.
        known: String,
    },
}

impl AsOfError {
    /// Which of the five families the error belongs to.
    #[must_use]
    pub fn family(&self) -> ErrorFamily {
        match self {
            Self::Read(error) => error.family(),
            Self::Stopped(stopped) => stopped.family(),
            Self::TooManyRows { .. } | Self::Unknown { .. } => ErrorFamily::Invalid,
        }
    }

    /// Whether the same call may work later without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.family() == ErrorFamily::Transient
    }
}

/// Folds the log as of a moment, or `tenant`'s events of it; gives all rows in the order of their keys, where the log ended, and
/// for which events streams were parked.
pub(crate) async fn rows_as_of(
    store: &Arc<dyn EventStore>,
    projection: &dyn AnyProjection,
    tenant: Option<&Tenant>,
    as_of: AsOf,
    most_rows: usize,
) -> Result<RowsAsOf<Vec<ColumnValue>>, AsOfError> {
    let end = store.log_as_of(as_of).await?;
    let mut past = Past::of(projection, end);
    let mut wanted = wanted(std::iter::once(projection)).map_err(ReadError::from)?;
    if let Some(tenant) = tenant {
        wanted.filter = wanted.filter.tenant(tenant.clone());
    }
    let (mut pages, mut backoff) = (PageReader::of(Arc::clone(store)), Backoff::default());
    while past.progress.position < end.position {
        let page = pages.next(After::from(past.progress), &wanted).await?;
        let Some(checkpoint) = page.checkpoint else {
            // The store has not made known yet that the log is final up to there.
            sleep(backoff.next_wait()).await;
            continue;
        };
        if checkpoint.position < end.position {
            pages.read_ahead(checkpoint.into(), &wanted);
        }
        past.fold(&page.batch)?;
        past.progress = if checkpoint.position < end.position { checkpoint } else { end };
        tracing::debug!(
            projection = projection.model().projection,
            position = past.progress.position.get(),
            of = end.position.get(),
            rows = past.table.len(),
            "a read model is built as it was"
        );
        if past.table.len() > most_rows {
            let (read_model, position) = (projection.model().table.name, past.progress.position);
            return Err(AsOfError::TooManyRows { read_model, limit: most_rows, position });
        }
    }
    // Whether the log has been replaced while it was read.
    store.check_checkpoint(&end).await?;
    Ok(RowsAsOf { rows: past.table.rows(), position: end.position, parked: past.parked })
}

/// A row of an answer, in its type.
pub(crate) fn typed<P: Projection>(row: Vec<ColumnValue>, position: Position) -> Result<P::Row, Stopped> {
    let unreadable = |source| Stopped {
        projection: P::NAME.into(),
        version: P::VERSION,
        position,
        event: None,
        cause: Arc::new(StopCause::Row(RowError::Unreadable { table: P::Row::TABLE.name, source })),
    };
    read_row::<P::Row>(row).map(|(_, row)| row).map_err(unreadable)
}

/// A read model, or what one stream has of it, on its way from nothing to the end of a prefix of the log.
pub(crate) struct Past<'p> {
    projection: &'p dyn AnyProjection,
    pub(crate) table: MemoryTable,
    /// Everything up to here is applied.
    pub(crate) progress: Checkpoint,
    end: Checkpoint,
    pub(crate) parked: Vec<EventPlace>,
    /// The streams of `parked`.
    passed_over: Arc<ParkedStreams>,
}

impl<'p> Past<'p> {
    pub(crate) fn of(projection: &'p dyn AnyProjection, end: Checkpoint) -> Self {
        let (table, progress) = (MemoryTable::new(projection.model().table), Checkpoint::start(end.incarnation));
        Self { projection, table, progress, end, parked: Vec::new(), passed_over: Arc::default() }
    }

    /// Applies those of the next events that are not after the end.
    pub(crate) fn fold(&mut self, batch: &crate::batch::Batch) -> Result<(), Stopped> {
        while self.fold_on(batch)? {}
        Ok(())
    }

    /// Applies as many of them as one folding takes, which are fewer where it asks for rows over and over. Says whether some are left.
    fn fold_on(&mut self, batch: &crate::batch::Batch) -> Result<bool, Stopped> {
        let fold = self.projection.fold(batch, self.progress.position, Slot::WHOLE);
        let mut folding = Folding::up_to(fold, self.end.position);
        let wanted = folding.limit();
        if self.projection.parks() {
            folding = folding.parking(Arc::clone(&self.passed_over));
        }
        let outcome = loop {
            match folding.step() {
                Step::Ready(outcome) => break *outcome,
                Step::Load(keys) => folding.supply(self.table.load(&keys)),
            }
        };
        let Outcome { applied, changes, stop, parked, passed_over } = outcome;
        self.table.write(&changes);
        if applied > 0 {
            self.progress = folding.fold().checkpoint(self.end.incarnation, applied);
        }
        drop(folding);
        for Parked { event, cause } in parked {
            let projection = self.projection.model().projection;
            tracing::warn!(projection, %event, reason = chain(&cause), "stream parked");
            Arc::make_mut(&mut self.passed_over).insert(event.stream.clone(), event.position);
            self.parked.push(event);
        }
        for PassedOver { stream, events } in passed_over {
            tracing::debug!(%stream, events, "events of a parked stream were passed over");
        }
        match stop {
            Some(stop) => Err(self.stopped(stop)),
            None => Ok(applied < wanted),
        }
    }

    fn stopped(&self, stop: Stop) -> Stopped {
        let model = self.projection.model();
        Stopped {
            projection: model.projection.into(),
            version: model.version,
            position: self.progress.position,
            event: stop.event,
            cause: Arc::new(stop.cause),
        }
    }
}
