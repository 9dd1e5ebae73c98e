//! Reading pages of events.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::error::BoxDynError;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::error::{BackendError, ReadError};
use crate::event::{EventId, RecordedEvent};
use crate::filter::Filter;
use crate::limits::{PAGE_BYTES, PageBudget, page_limit};
use crate::position::{After, Checkpoint, Incarnation, Position};
use crate::postgres::connection::pool::{Pool, PooledConnection, Query};
use crate::postgres::connection::server_run::ServerRun;
use crate::postgres::fault::{NoConnection, answer_within, next_within, read_error, sequence_behind};
use crate::postgres::read::copy::Copied;
use crate::postgres::read::horizon::{Final, Horizon, last_before_gap};
use crate::postgres::read::rows::{Columns, Decoder, columns_in_stream, event_columns, position_and_id};
use crate::store::{Page, StreamPage};
use crate::stream::{StreamId, StreamVersion, Tenant};
use crate::time_marks::TimeMarks;

/// The log after a position. Read by COPY, which sends the same bytes with less overhead (measured, see bench/FIGURES.md)
/// but takes no bound values: its two values are numbers.
macro_rules! read_log_from {
    ($from:literal, $limit:literal) => {
        concat!(
            "
    SELECT ",
            event_columns!(),
            "
    FROM annals.events
    WHERE position >= ",
            $from,
            "
    ORDER BY position
    LIMIT ",
            $limit,
            "
"
        )
    };
}

/// The event at `$7`, after which the reader continues, followed by the page. One statement, so that both are of one
/// snapshot.
macro_rules! after_event {
    ($page:literal) => {
        concat!(
            "
    SELECT ",
            event_columns!(),
            "
    FROM (
        (SELECT ",
            event_columns!(),
            "
         FROM annals.events
         WHERE position = $7)
        UNION ALL
        (SELECT ",
            event_columns!(),
            "
         FROM annals.events
         WHERE ",
            $page,
            "
         ORDER BY position
         LIMIT $3)) AS page
    ORDER BY position
"
        )
    };
}

/// A condition that is not set is NULL. The conditions are inside `coalesce`, where no index applies: without statistics
/// the planner would use the index of streams, and sort all events of a tenant for every page.
const READ_LOG_WHERE: &str = after_event!(
    "position > $1 AND position <= $2
           AND coalesce(tenant = $4, true)
           AND coalesce(aggregate_type = ANY ($5), true)
           AND coalesce(event_type = ANY ($6), true)"
);

const READ_CORRELATION_WHERE: &str = after_event!(
    "correlation_id = $8 AND position > $1 AND position <= $2
           AND coalesce(tenant = $4, true)
           AND coalesce(aggregate_type = ANY ($5), true)
           AND coalesce(event_type = ANY ($6), true)"
);

const LOAD_STREAM_AFTER: &str = concat!(
    "
    SELECT ",
    columns_in_stream!(),
    "
    FROM annals.events
    WHERE tenant = $1 AND aggregate_type = $2 AND aggregate_id = $3 AND version > $4
    ORDER BY version
    LIMIT $5
"
);

const LAST_POSITION: &str = "
    SELECT position
    FROM annals.events
    ORDER BY position DESC
    LIMIT 1
";

/// The last visible event, the one at `$1`, and the last allocated position. That one is read after the log, so
/// concurrent appends cause no false alarm.
const LAST_AND_AFTER: &str = "
    SELECT coalesce((SELECT position FROM annals.events ORDER BY position DESC LIMIT 1), 0) AS last,
           (SELECT event_id FROM annals.events WHERE position = $1) AS event_id,
           coalesce(pg_sequence_last_value('annals.events_position'), 0) AS allocated
    ORDER BY last
";

const LAST_BETWEEN: &str = "
    SELECT position, event_id
    FROM annals.events
    WHERE position > $1 AND position <= $2
    ORDER BY position DESC
    LIMIT 1
";

const FIRST_BETWEEN: &str = "
    SELECT position, event_id
    FROM annals.events
    WHERE position > $1 AND position <= $2
    ORDER BY position
    LIMIT 1
";

/// The event of a correlation that is `$4` events after the first one after `$2`, if there are so many up to `$3`.
const LAST_OF_CORRELATION: &str = "
    SELECT position, event_id
    FROM annals.events
    WHERE correlation_id = $1 AND position > $2 AND position <= $3
    ORDER BY position
    OFFSET $4
    LIMIT 1
";

const EVENT_ID_AT: &str = "
    SELECT event_id
    FROM annals.events
    WHERE position = $1
    ORDER BY position
";

/// How many positions one filtered read covers, so that no statement runs for long when few events match.
const WINDOW: i64 = 50_000;

/// How many events of a correlation.
const WINDOW_OF_CORRELATION: i64 = 10_000;

/// How long one read waits at a gap for the writers that may fill it. The caller then reads again.
const MAX_WAIT: Duration = Duration::from_millis(200);

/// How long a read of the head waits for running writers.
const MAX_WAIT_FOR_HEAD: Duration = Duration::from_secs(2);

/// Shared by all reads of one handle.
pub(crate) struct Reader {
    pub(crate) pool: Pool,
    pub(crate) incarnation: Incarnation,
    pub(crate) horizon: Arc<Horizon>,
    pub(crate) marks: TimeMarks,
    /// The average bytes per event of the last page, to estimate how many events fit a page.
    bytes_per_event: AtomicUsize,
}

/// The events of one statement, in its order, up to the limit of a page.
struct FetchedEvents {
    events: Vec<RecordedEvent>,
    /// Whether the statement had no more rows.
    whole: bool,
    /// Whether rows were left unread.
    cut: bool,
}

/// Why the rows of a statement could not be read.
enum PageError {
    Statement(sqlx::Error),
    Row(ReadError),
}

impl From<BoxDynError> for PageError {
    fn from(error: BoxDynError) -> Self {
        Self::Statement(sqlx::Error::Decode(error))
    }
}

impl From<PageError> for ReadError {
    fn from(stopped: PageError) -> Self {
        match stopped {
            PageError::Statement(error) => read_error(error),
            PageError::Row(error) => error,
        }
    }
}

impl Reader {
    pub(crate) fn new(pool: Pool, incarnation: Incarnation) -> Self {
        let (horizon, marks) = (Arc::new(Horizon::new(pool.clone())), TimeMarks::default());
        Self { pool, incarnation, horizon, marks, bytes_per_event: AtomicUsize::new(1) }
    }

    pub(crate) async fn load_stream(
        &self,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<StreamPage, ReadError> {
        let limit = self.statement_limit(limit)?;
        let page = PageBuilder::of(Some(stream), limit);
        let connection = self.pool.take_for(Some(stream.tenant())).await.map_err(NoConnection::into_read)?;
        let fetched = self.fetch_events(connection, load_after(stream, after, limit), page).await?;
        Ok(StreamPage::new(fetched.events, fetched.whole))
    }

    /// The same, inside the transaction that is open on `connection`.
    pub(crate) async fn load_stream_on(
        &self,
        connection: &mut PgConnection,
        stream: &StreamId,
        after: StreamVersion,
        limit: usize,
    ) -> Result<StreamPage, ReadError> {
        let limit = self.statement_limit(limit)?;
        let page = PageBuilder::of(Some(stream), limit);
        let fetched = self.fetch_events_on(connection, load_after(stream, after, limit), page).await?;
        Ok(StreamPage::new(fetched.events, fetched.whole))
    }

    pub(crate) async fn read_log(&self, after: After, filter: &Filter, limit: usize) -> Result<Page, ReadError> {
        let limit = self.statement_limit(limit)?;
        if filter.is_all() {
            self.read_unfiltered(after, limit).await
        } else {
            self.read_filtered(after, filter, limit).await
        }
    }

    async fn read_unfiltered(&self, after: After, limit: i64) -> Result<Page, ReadError> {
        let mut asked = false;
        loop {
            let connection = self.pool.take().await.map_err(NoConnection::into_read)?;
            // Read before the statement and in its server run: what was final then, the statement sees.
            let known = self.horizon.known_in(connection.run());
            let mut fetched = self.copied(connection, after, limit).await?;
            if fetched.events.is_empty() {
                return self.nothing_after(after).await;
            }
            let settled = final_prefix(&fetched.events, after.position.get(), known.position);
            if settled > 0 {
                let end = fetched.whole && settled == fetched.events.len();
                fetched.events.truncate(settled);
                let checkpoint = fetched.events.last().map(|event| self.checkpoint(event.position, event.event_id));
                return Ok(Page::new(fetched.events, checkpoint, end));
            }
            // The page begins at a gap. What is visible now is final once the running writers are done.
            if std::mem::replace(&mut asked, true) {
                return self.nothing_after(after).await;
            }
            let is_final = self.horizon.wait_until_final(after.position.get(), MAX_WAIT).await;
            if is_final.map_err(NoConnection::into_read)?.is_none() {
                return Ok(self.empty_page_before_gap());
            }
        }
    }

    async fn read_filtered(&self, after: After, filter: &Filter, limit: i64) -> Result<Page, ReadError> {
        let tenant = filter.tenant.as_ref();
        let from = after.position.get();
        let mut run = self.pool.run();
        let mut head = self.horizon.known_in(run.as_ref());
        // Catching up needs no look.
        if head.position <= from {
            match self.horizon.wait_until_final(from, MAX_WAIT).await {
                Err(standby @ NoConnection::Standby) => {
                    (run, head) = self.run_after(from, tenant).await?;
                    if head.position <= from {
                        let page = self.nothing_after(after).await?;
                        return if page.end { Ok(page) } else { Err(standby.into_read()) };
                    }
                }
                waited => {
                    if waited.map_err(NoConnection::into_read)?.is_none() {
                        self.horizon.final_without_waiting().await?;
                    }
                    run = self.pool.run();
                    head = self.horizon.known_in(run.as_ref());
                }
            }
        }
        let mut bound = head;
        if head.position <= from {
            return self.nothing_after(after).await;
        }
        // A filter reads a window of the log; a correlation, which its index finds, a window of itself.
        if let Some(id) = &filter.correlation_id {
            if from.saturating_add(WINDOW_OF_CORRELATION) < head.position && !filter.is_correlation_only() {
                let query = sqlx::query(LAST_OF_CORRELATION).bind(id.as_str()).bind(from).bind(head.position);
                let query = query.bind(WINDOW_OF_CORRELATION - 1);
                let rows = self.connection_in(&run, tenant).await?.fetch_all(query).await.map_err(read_error)?;
                bound = rows.first().map_or(head, final_at);
            }
        } else if from.saturating_add(WINDOW) < head.position {
            bound = match self.one_between(&run, tenant, LAST_BETWEEN, from, from.saturating_add(WINDOW)).await? {
                Some(bound) => bound,
                // The gap is longer than the window.
                None => self.one_between(&run, tenant, FIRST_BETWEEN, from, head.position).await?.unwrap_or(head),
            };
        }
        let list = |names: &[String]| (!names.is_empty()).then(|| names.to_vec());
        let text = if filter.correlation_id.is_some() { READ_CORRELATION_WHERE } else { READ_LOG_WHERE };
        let query = sqlx::query(text)
            .bind(from)
            .bind(bound.position)
            .bind(limit)
            .bind(filter.tenant.as_ref().map(|tenant| tenant.as_str()))
            .bind(list(&filter.aggregate_types))
            .bind(list(&filter.names));
        let query = query.bind(after.event_id.map(|_| from));
        let query = match &filter.correlation_id {
            Some(id) => query.bind(id.as_str()),
            None => query,
        };
        let connection = self.connection_in(&run, tenant).await?;
        let fetched = self.fetch_events(connection, query, self.page_after(after, limit)).await?;
        let checkpoint = match (fetched.events.last(), bound.event_id) {
            (Some(last), _) if !fetched.whole => self.checkpoint(last.position, last.event_id),
            (_, Some(id)) => self.checkpoint(Position::stored(bound.position), EventId::stored(id)),
            (_, None) => Checkpoint::start(self.incarnation),
        };
        let end = fetched.whole && bound == head && self.last_position().await? <= head.position;
        Ok(Page::new(fetched.events, Some(checkpoint), end))
    }

    /// The page when there is no final event after `after`.
    async fn nothing_after(&self, after: After) -> Result<Page, ReadError> {
        let rows = self.fetch(sqlx::query(LAST_AND_AFTER).bind(after.position.get())).await?;
        let row = rows.first().ok_or_else(|| read_error(sqlx::Error::RowNotFound))?;
        let found: Option<Uuid> = row.try_get(1).map_err(read_error)?;
        after.check(self.incarnation, found.map(EventId::stored))?;
        let last = Position::stored(row.try_get(0).map_err(read_error)?);
        if last < after.position {
            return Err(ReadError::AheadOfLog { after: after.position, head: last });
        }
        let allocated = row.try_get(2).map_err(read_error)?;
        if last.get() > allocated {
            // Waiting for writers cannot make it final.
            return Err(ReadError::Damaged { position: last, what: sequence_behind(allocated, last.get()) });
        }
        if last > after.position {
            return Ok(self.empty_page_before_gap());
        }
        Ok(Page::new(Vec::new(), None, true))
    }

    /// An empty page: there are more events, but they are not final yet.
    fn empty_page_before_gap(&self) -> Page {
        Page::new(Vec::new(), None, false)
    }

    /// The last final event.
    pub(crate) async fn head(&self) -> Result<Checkpoint, ReadError> {
        let head = match self.horizon.wait_until_final(i64::MAX, MAX_WAIT_FOR_HEAD).await {
            Ok(Some(head)) => head,
            Ok(None) | Err(NoConnection::Standby) => self.horizon.final_without_waiting().await?,
            Err(error) => return Err(error.into_read()),
        };
        Ok(match head.event_id {
            Some(id) => self.checkpoint(Position::stored(head.position), EventId::stored(id)),
            None => Checkpoint::start(self.incarnation),
        })
    }

    /// The position of the last event that is visible, final or not.
    pub(crate) async fn last_position(&self) -> Result<i64, ReadError> {
        let rows = self.fetch(sqlx::query(LAST_POSITION)).await?;
        Ok(rows.first().map_or(0, |row| row.get(0)))
    }

    pub(crate) async fn event_id_at(&self, position: Position) -> Result<Option<EventId>, ReadError> {
        let rows = self.fetch(sqlx::query(EVENT_ID_AT).bind(position.get())).await?;
        Ok(rows.first().map(|row| EventId::stored(row.get(0))))
    }

    async fn one_between(
        &self,
        run: &Option<ServerRun>,
        tenant: Option<&Tenant>,
        text: &'static str,
        after: i64,
        bound: i64,
    ) -> Result<Option<Final>, ReadError> {
        let query = sqlx::query(text).bind(after).bind(bound);
        let rows = self.connection_in(run, tenant).await?.fetch_all(query).await.map_err(read_error)?;
        Ok(rows.first().map(final_at))
    }

    /// The end of the events that follow `after` without a gap, and the run of the server in which it was read.
    async fn run_after(&self, after: i64, tenant: Option<&Tenant>) -> Result<(Option<ServerRun>, Final), ReadError> {
        let mut connection = self.pool.take_for(tenant).await.map_err(NoConnection::into_read)?;
        let end = last_before_gap(&mut connection, after).await?;
        Ok((connection.run().cloned(), end.unwrap_or_default()))
    }

    /// A connection to the server run in which a bound was final.
    pub(crate) async fn connection_in(
        &self,
        run: &Option<ServerRun>,
        tenant: Option<&Tenant>,
    ) -> Result<PooledConnection, ReadError> {
        let connection = self.pool.take_for(tenant).await.map_err(NoConnection::into_read)?;
        if connection.run() != run.as_ref() {
            let why = "the server has restarted, or is another one, since the read began";
            return Err(ReadError::Unavailable { source: BackendError::new(why) });
        }
        Ok(connection)
    }

    async fn fetch(&self, query: Query<'_>) -> Result<Vec<sqlx::postgres::PgRow>, ReadError> {
        let mut connection = self.pool.take().await.map_err(NoConnection::into_read)?;
        connection.fetch_all(query).await.map_err(read_error)
    }

    fn checkpoint(&self, position: Position, event_id: EventId) -> Checkpoint {
        Checkpoint { incarnation: self.incarnation, position, event_id: Some(event_id) }
    }

    /// How many rows a statement requests: not many more than fit a page, judged by the last page.
    fn statement_limit(&self, limit: usize) -> Result<i64, ReadError> {
        let fit = 2 * PAGE_BYTES / self.bytes_per_event.load(Ordering::Relaxed).max(1);
        Ok(i64::try_from(page_limit(limit)?.min(fit.max(16))).unwrap_or(i64::MAX))
    }

    /// Reads the rows of one statement until a page is full; rows contain their stream, unless it is given. Remaining rows
    /// are not read: the connection is closed.
    async fn fetch_events(
        &self,
        mut connection: PooledConnection,
        query: Query<'_>,
        page: PageBuilder<'_>,
    ) -> Result<FetchedEvents, ReadError> {
        let query = connection.begin(query).await.map_err(read_error)?;
        let fetched = self.fetch_events_on(connection.connection(), query, page).await;
        match &fetched {
            Ok(fetched) if fetched.cut => connection.cut(),
            Ok(_) => connection.end(None).await.map_err(read_error)?,
            Err(PageError::Statement(error)) => connection.end(Some(error)).await.map_err(read_error)?,
            Err(PageError::Row(_)) => {}
        }
        Ok(fetched?)
    }

    /// The same for all events after a position.
    async fn copied(
        &self,
        mut connection: PooledConnection,
        after: After,
        limit: i64,
    ) -> Result<FetchedEvents, ReadError> {
        let text = format!(
            concat!("COPY (", read_log_from!("{from}", "{limit}"), ") TO STDOUT (FORMAT binary)"),
            from = after.position.get().saturating_add(i64::from(after.event_id.is_none())),
            limit = limit + i64::from(after.event_id.is_some())
        );
        connection.begin_plain().await.map_err(read_error)?;
        // After an error sqlx may leave an answer unread, so then the connection is closed.
        let fetched = self.copied_on(connection.connection(), &text, self.page_after(after, limit)).await?;
        match fetched.cut {
            true => connection.cut(),
            false => connection.end(None).await.map_err(read_error)?,
        }
        Ok(fetched)
    }

    async fn copied_on(
        &self,
        connection: &mut PgConnection,
        text: &str,
        mut page: PageBuilder<'_>,
    ) -> Result<FetchedEvents, PageError> {
        let mut copied = Copied::default();
        let max_wait = self.pool.answer_timeout();
        let begun = answer_within(max_wait, connection.copy_out_raw(text)).await;
        let mut messages = begun.map_err(PageError::Statement)?;
        while let Some(message) = next_within(max_wait, &mut messages).await.map_err(PageError::Statement)? {
            if !copied.message(&message, |fields| page.try_add(fields))? {
                break;
            }
        }
        if !page.cut {
            copied.end()?;
        }
        page.into_fetched(&self.bytes_per_event)
    }

    async fn fetch_events_on(
        &self,
        connection: &mut PgConnection,
        query: Query<'_>,
        mut page: PageBuilder<'_>,
    ) -> Result<FetchedEvents, PageError> {
        let mut rows = query.fetch(connection);
        let max_wait = self.pool.answer_timeout();
        while let Some(row) = next_within(max_wait, &mut rows).await.map_err(PageError::Statement)? {
            if !page.try_add(&row)? {
                break;
            }
        }
        page.into_fetched(&self.bytes_per_event)
    }

    /// An empty page of the log, for rows that begin with the event of `after`, if it has an id.
    fn page_after(&self, after: After, limit: i64) -> PageBuilder<'static> {
        PageBuilder { after: after.event_id.map(|_| (after, self.incarnation)), ..PageBuilder::of(None, limit) }
    }
}

/// From this many events on, a page reserves room for all that it may get.
const FEW: usize = 64;

/// A page that is being filled.
struct PageBuilder<'s> {
    /// The event that must be in the first row, and is not part of the page.
    after: Option<(After, Incarnation)>,
    /// The stream of all its events, if the rows do not contain it.
    stream: Option<&'s StreamId>,
    limit: usize,
    budget: PageBudget,
    decoder: Decoder,
    events: Vec<RecordedEvent>,
    bytes: usize,
    cut: bool,
}

impl<'s> PageBuilder<'s> {
    fn of(stream: Option<&'s StreamId>, limit: i64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let (budget, decoder) = (PageBudget::of(limit), Decoder::default());
        Self { after: None, stream, limit, budget, decoder, events: Vec::new(), bytes: 0, cut: false }
    }

    /// Adds the event if there is room; returns whether there was.
    fn try_add(&mut self, row: &impl Columns) -> Result<bool, PageError> {
        if let Some((after, incarnation)) = self.after.take() {
            let (position, id) = position_and_id(row).map_err(PageError::Row)?;
            after.check(incarnation, (position == after.position).then_some(id)).map_err(PageError::Row)?;
            return Ok(true);
        }
        let event = match self.stream {
            Some(stream) => self.decoder.event_of(stream, row),
            None => self.decoder.event(row),
        };
        let event = match event {
            // The page ends before the row, and the next one reports it.
            Err(_) if !self.events.is_empty() => {
                self.cut = true;
                return Ok(false);
            }
            event => event.map_err(PageError::Row)?,
        };
        if !self.budget.takes(&event) {
            self.cut = true;
            return Ok(false);
        }
        self.bytes += event.bytes();
        if self.events.len() == FEW {
            // It will most likely be full. Growing step by step would move all events several times.
            self.events.reserve_exact(self.limit - FEW);
        }
        self.events.push(event);
        Ok(true)
    }

    fn into_fetched(self, bytes_per_event: &AtomicUsize) -> Result<FetchedEvents, PageError> {
        if let Some((after, incarnation)) = self.after {
            after.check(incarnation, None).map_err(PageError::Row)?;
        }
        if let Some(mean) = self.bytes.checked_div(self.events.len()) {
            bytes_per_event.store(mean, Ordering::Relaxed);
        }
        let whole = !self.cut && self.events.len() < self.limit;
        Ok(FetchedEvents { events: self.events, whole, cut: self.cut })
    }
}

fn final_at(row: &PgRow) -> Final {
    Final { position: row.get(0), event_id: Some(row.get::<Uuid, _>(1)) }
}

fn load_after(stream: &StreamId, after: StreamVersion, limit: i64) -> Query<'_> {
    sqlx::query(LOAD_STREAM_AFTER)
        .bind(stream.tenant().as_str())
        .bind(stream.aggregate_type())
        .bind(stream.aggregate_id())
        .bind(after.get())
        .bind(limit)
}

/// How many of the events, the next ones after `after`, are final: those before the first gap, as each position is
/// allocated once, and those that were final before they were read.
fn final_prefix(events: &[RecordedEvent], after: i64, known: i64) -> usize {
    let before = std::iter::once(after).chain(events.iter().map(|event| event.position.get()));
    let is_final = |(event, before): &(&RecordedEvent, i64)| {
        let position = event.position.get();
        position - 1 == *before || position <= known
    };
    events.iter().zip(before).take_while(is_final).count()
}

/// The statements that read events, with values, for the golden files.
#[cfg(test)]
pub(crate) fn hot_reads() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        ("READ_LOG_FROM", read_log_from!("$1", "$2"), "(100, 500)"),
        ("READ_LOG_WHERE", READ_LOG_WHERE, "(100, 15000, 500, 'default', '{type-1}', '{event-1,event-2}', 100)"),
        (
            "READ_CORRELATION_WHERE",
            READ_CORRELATION_WHERE,
            "(100, 15000, 500, 'default', '{type-1}', '{event-1,event-2}', 100, 'correlation-1-1')",
        ),
        ("LOAD_STREAM_AFTER", LOAD_STREAM_AFTER, "('default', 'type-1', 'id-1', 0, 500)"),
        ("LAST_POSITION", LAST_POSITION, ""),
        ("LAST_AND_AFTER", LAST_AND_AFTER, "(100)"),
        ("LAST_BETWEEN", LAST_BETWEEN, "(100, 15000)"),
        ("FIRST_BETWEEN", FIRST_BETWEEN, "(100, 15000)"),
        ("LAST_OF_CORRELATION", LAST_OF_CORRELATION, "('correlation-1-1', 100, 15000, 9999)"),
        ("EVENT_ID_AT", EVENT_ID_AT, "(100)"),
    ]
}
