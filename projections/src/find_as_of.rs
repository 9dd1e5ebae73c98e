//! The row of one stream as it was: that stream alone is read and folded.

use std::sync::Arc;

use annals_eventstore::{
    AsOf, Checkpoint, EventStore, Invalid, MAX_PAGE_EVENTS, Position, ReadError, StreamId, StreamVersion, Tenant,
};

use crate::as_of::{AsOfError, Past, typed};
use crate::batch::Batch;
use crate::column::ColumnValue;
use crate::error::EventPlace;
use crate::handle::{Projections, of_another_tenant};
use crate::member::AnyProjection;
use crate::read_model::ReadModel;
use crate::reads::{not_per_tenant, per_tenant};
use crate::stream_key::StreamKey;
use crate::stream_projection::StreamProjection;

/// How many events the first page has at most; each further page has half of what was read before it, if that is more. How far away
/// the end is, is not known.
const FIRST_PAGE: usize = 128;

/// The row of one stream as it was, returned by [`Projections::find_as_of`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RowAsOf<R> {
    /// The row; `None` if there was none.
    pub row: Option<R>,
    /// Up to where the events of the log are in the row. [`AsOf::position`] of it gives the same row for ever. For a version it is the position of its
    /// event, and if that is in the middle of an append, [`AsOf::position`] of it ends before the append.
    pub position: Position,
    /// The event that a stream projection with dead letters could not apply: the row is as it was before it. Why is logged by
    /// `tracing`, at the level `WARN`. Any other projection ends with [`AsOfError::Stopped`].
    pub parked: Option<EventPlace>,
}

type Key<P> = <<P as StreamProjection>::Row as ReadModel>::Key;

impl Projections {
    /// The row called `key` as it was: that which [`Projections::as_of`] would have, found by reading its stream alone.
    ///
    /// It costs as much as to load the stream up to there, whatever else is in the log; in memory are the row and a page of
    /// events. What became of other streams does not matter, also not that an event of theirs cannot be applied. What a position
    /// and a time mean, [`AsOf`] says; a version is that of the stream. Nothing is stored, and what runs is not asked: events that
    /// were dropped by [`Projections::drop_dead_letter`] are folded as all others.
    ///
    /// If the rows belong to tenants, this does not compile: see [`Projections::find_of_tenant_as_of`]. Where the tenant is in the
    /// key, it is taken from there.
    ///
    /// ```
    /// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
    /// # use till::TillEvent;
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("till.db");
    /// use annals_eventstore::{AsOf, EventStore, EventStoreExt, ExpectedVersion, Recorded, StreamId, Tenant};
    /// use annals_macros::ReadModel;
    /// use annals_projections::{ProjectionError, ProjectionsExt, StreamProjection, StreamRow};
    ///
    /// #[derive(ReadModel, Clone)]
    /// #[read_model(table = "tills", key = "till")]
    /// struct Till {
    ///     till: String,
    ///     cents: i64,
    /// }
    ///
    /// struct Tills;
    ///
    /// impl StreamProjection for Tills {
    ///     type Event = TillEvent;
    ///     type Row = Till;
    ///     const AGGREGATES: &'static [&'static str] = &["till"];
    ///
    ///     fn apply(&self, event: &Recorded<TillEvent>, row: &mut StreamRow<'_, Till>) -> Result<(), ProjectionError> {
    ///         let TillEvent::Sold { cents } = &event.event;
    ///         let till = row.key().clone();
    ///         row.get_or_insert_with(|| Till { till, cents: 0 }).cents += cents;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let store = annals_eventstore::sqlite(&path).await?;
    /// let views = store.projections().with(Tills).start().await?;
    /// let stream = StreamId::new(Tenant::default(), "till", "t-1")?;
    /// let sold = |cents| store.new_event(&TillEvent::Sold { cents });
    /// let first = store.append(&stream, ExpectedVersion::Any, vec![sold(4_50)?]).await?;
    /// store.append(&stream, ExpectedVersion::Any, vec![sold(1_00)?]).await?;
    ///
    /// let key = "t-1".to_owned();
    /// let then = views.find_as_of::<Tills>(&key, AsOf::position(first.position)).await?;
    /// assert_eq!(then.row.map(|row| row.cents), Some(4_50));
    /// let later = views.find_as_of::<Tills>(&key, AsOf::version(2)).await?;
    /// assert_eq!(later.row.map(|row| row.cents), Some(5_50));
    /// # views.close().await;
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// A row of a projection of rows under any keys may be made of any event of the log, so asking for one does not compile:
    ///
    /// ```compile_fail,E0277
    /// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
    /// # async fn found(views: annals_projections::Projections) {
    /// // `PerTill` implements `Projection`; ask for all of its rows by `as_of`.
    /// views.find_as_of::<till::PerTill>(&"t-1".to_owned(), annals_eventstore::AsOf::version(1)).await.unwrap();
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AsOfError::Read`] with [`Invalid`] and the field `position` beyond the log, `time` if it is not over, `version` if it is
    /// negative or the stream has fewer events; with `tenant`, `aggregate_type` or `aggregate_id` if `P` has no row for any stream
    /// that the key could name; [`AsOfError::Read`] if the stream cannot be read; [`AsOfError::Stopped`] naming an event that cannot
    /// be applied, where its position is that of the last event of the stream before it; [`AsOfError::Unknown`] if `P` was not
    /// started.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn find_as_of<P: StreamProjection>(
        &self,
        key: &Key<P>,
        as_of: AsOf,
    ) -> Result<RowAsOf<P::Row>, AsOfError> {
        const { not_per_tenant::<P>() };
        self.find_one_as_of::<P>(None, key, as_of).await
    }

    /// The same of a read model whose rows belong to tenants: the row of this tenant, whatever rows others have by this key.
    ///
    /// # Errors
    /// As of [`Projections::find_as_of`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn find_of_tenant_as_of<P: StreamProjection>(
        &self,
        tenant: &Tenant,
        key: &Key<P>,
        as_of: AsOf,
    ) -> Result<RowAsOf<P::Row>, AsOfError> {
        const { per_tenant::<P>() };
        self.find_one_as_of::<P>(Some(tenant), key, as_of).await
    }

    async fn find_one_as_of<P: StreamProjection>(
        &self,
        tenant: Option<&Tenant>,
        key: &Key<P>,
        as_of: AsOf,
    ) -> Result<RowAsOf<P::Row>, AsOfError> {
        let projection = self.any_as_of::<P>()?;
        let stream = stream_of::<P>(projection.tenant(), tenant, key)?;
        let (row, position, parked) = row_as_of(&self.shared().store, projection, &stream, as_of).await?;
        let row = row.map(|row| typed::<P>(row, position)).transpose()?;
        Ok(RowAsOf { row, position, parked })
    }
}

/// The stream whose row is called `key`; `own` is the only tenant that the projection wants.
fn stream_of<P: StreamProjection>(
    own: Option<&Tenant>,
    asked: Option<&Tenant>,
    key: &Key<P>,
) -> Result<StreamId, ReadError> {
    let name = <P as StreamProjection>::NAME;
    let tenant = asked.or(own).cloned().unwrap_or_default();
    let stream = key.to_stream(&tenant, P::AGGREGATES.first().copied().unwrap_or_default())?;
    if !P::AGGREGATES.contains(&stream.aggregate_type()) {
        let problem = format!("`{}` is not one of those that `{name}` has rows for", stream.aggregate_type());
        return Err(Invalid::new("aggregate_type", problem, format!("ask for one of {:?}", P::AGGREGATES)).into());
    }
    if let Some(own) = own.filter(|own| *own != stream.tenant()) {
        return Err(of_another_tenant(name, own, stream.tenant()));
    }
    if *stream.tenant() != tenant && asked.is_some() {
        let problem = format!("is `{tenant}`, but the key is that of a row of tenant `{}`", stream.tenant());
        return Err(Invalid::new("tenant", problem, "ask for the tenant in the key").into());
    }
    if Key::<P>::of_stream(&stream)? != *key {
        let problem = format!("`{}` of the stream that the key names has another key", stream.aggregate_id());
        return Err(Invalid::new("aggregate_id", problem, "make the key's type display what it reads").into());
    }
    Ok(stream)
}

/// Folds a stream as of a moment; gives its row, where the log ended, and for which event the stream was parked.
async fn row_as_of(
    store: &Arc<dyn EventStore>,
    projection: &dyn AnyProjection,
    stream: &StreamId,
    as_of: AsOf,
) -> Result<(Option<Vec<ColumnValue>>, Position, Option<EventPlace>), AsOfError> {
    let end = end_of(store.as_ref(), stream, as_of).await?;
    let mut past = Past::of(projection, end);
    let (mut after, mut read) = (StreamVersion::NONE, 0);
    // Behind the event for which it is parked, nothing of a stream is applied.
    while past.progress.position < end.position && past.parked.is_empty() {
        let page = store.load_page(stream, after, FIRST_PAGE.max(read / 2).min(MAX_PAGE_EVENTS)).await?;
        read += page.events.len();
        let Some(last) = page.events.last() else { break };
        past.fold(&Batch::decode(&page.events, &[projection.decoder()]))?;
        (after, past.progress) = (last.version, last.checkpoint(end.incarnation));
        if page.end {
            break;
        }
    }
    // Whether the log has been replaced while it was read.
    store.check_checkpoint(&end).await?;
    Ok((past.table.rows().pop(), end.position, past.parked.pop()))
}

/// The last event of the log that may be in the row.
async fn end_of(store: &dyn EventStore, stream: &StreamId, as_of: AsOf) -> Result<Checkpoint, ReadError> {
    let AsOf::Version(version) = as_of else { return store.log_as_of(as_of).await };
    let version = StreamVersion::new(version)?;
    if version == StreamVersion::NONE {
        return Ok(Checkpoint::start(store.incarnation()));
    }
    let page = store.load_page(stream, StreamVersion::new(version.get() - 1)?, 1).await?;
    let beyond =
        || Invalid::new("version", format!("is {version}, but `{stream}` has fewer events"), "ask for an earlier one");
    Ok(page.events.first().ok_or_else(beyond)?.checkpoint(store.incarnation()))
}
