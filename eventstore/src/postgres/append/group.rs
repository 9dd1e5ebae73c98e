//! Stores a group of small appends by one statement, and handles the cases in which the statement failed.

use std::sync::Arc;

use jiff::Timestamp;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::append::{Appended, AppendedStream, CheckedAppend};
use crate::error::{AppendError, BackendError};
use crate::event::EventId;
use crate::position::Position;
use crate::postgres::append::plan::{Carried, Facts, Head, Plan};
use crate::postgres::append::replication::confirm;
use crate::postgres::append::single::{
    EVENTS_BY_IDS, answer_without_look, broken, call_for_next, call_for_one, get, has_standbys, is_plain, lifetime,
    next_appended, remembered, stored_event,
};
use crate::postgres::connection::pool::{Pool, PooledConnection, Query};
use crate::postgres::fault::{
    NoConnection, append_error, has_lost_a_race, is_about_rows, is_answer, was_blocked, was_not_run, would_leave_a_gap,
};
use crate::request::RequestKey;
use crate::stream::{StreamId, StreamVersion};

const APPEND_GROUP: &str = "
    SELECT kind, base_versions, positions, recorded_at, standbys
    FROM annals.append_group($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                             $21, $22, $23, $24, $25)
    ORDER BY 1
";

const HEADS: &str = "
    SELECT h.version, h.event_id, current_setting('synchronous_standby_names') <> ''
    FROM unnest($1, $2, $3) WITH ORDINALITY AS s (tenant, aggregate_type, aggregate_id, n)
    CROSS JOIN LATERAL annals.head_of(s.tenant, s.aggregate_type, s.aggregate_id) AS h
    ORDER BY s.n
";

const REQUESTS_BY_KEYS: &str = "
    SELECT r.n, k.fingerprint, k.result
    FROM unnest($1, $2) WITH ORDINALITY AS r (tenant, request_key, n)
    CROSS JOIN LATERAL (
        SELECT fingerprint, result::text AS result
        FROM annals.request_keys
        WHERE tenant = r.tenant AND request_key = r.request_key AND expires_at > clock_timestamp()
        LIMIT 1) AS k
    ORDER BY r.n
";

/// How often a group is tried as a whole before it is split in half.
const TRIES: usize = 3;

/// How many groups use the checked insert after one has lost a race.
const CHECKED_AFTER_CONFLICT: usize = 64;

type Answer = Result<Appended, AppendError>;

/// Whether an append is stored in groups: small, to one stream. Others run in their own transactions: many rows gain
/// nothing from a group and delay it.
pub(crate) fn is_small(append: &CheckedAppend) -> bool {
    append.parts.len() == 1 && append.event_count <= MOST_EVENTS && append.bytes <= MOST_BYTES
}

const MOST_EVENTS: usize = 16;
const MOST_BYTES: usize = 64 << 10;

/// The connection of one writer, and its state.
pub(crate) struct WriterConnection {
    pool: Pool,
    connection: Option<PooledConnection>,
    /// How many more groups use the checked insert.
    checked_inserts: usize,
    /// Whether the server waits for standbys at each commit, as last reported.
    standbys: bool,
}

/// The result of an append that was tried alone.
enum SingleResult {
    Answered(Answer),
    /// Its ids are stored already, or the reason for the refusal is unknown: the stored state must be read.
    NeedsStoredState,
    /// Blocked by another open transaction.
    Blocked,
}

/// Why a statement gave no rows.
enum Failed {
    /// Nothing was sent.
    Unsent(NoConnection),
    /// Another append was committed first, and the server has rolled back.
    Raced,
    /// Blocked by another open transaction.
    Blocked,
    /// The rows were rejected, so one of the appends is invalid.
    RowRejected,
    /// The server refused for a reason that no append has caused.
    Refused(Arc<sqlx::Error>),
    /// The outcome is unknown.
    Lost(BackendError),
}

impl WriterConnection {
    pub(crate) fn new(pool: Pool) -> Self {
        Self { pool, connection: None, checked_inserts: 0, standbys: false }
    }

    /// Makes sure that the server can be reached, as far as is known.
    pub(crate) async fn reach(&mut self) -> Result<(), NoConnection> {
        self.ready().await.map(drop)
    }

    /// Stores small appends; none repeats an event id or a request key of another. The answers are in the same order. An
    /// append without an answer must be tried alone, on a connection that may block.
    pub(crate) async fn store(&mut self, appends: &[CheckedAppend]) -> Vec<Option<Answer>> {
        let mut answers = self.store_on_server(appends).await;
        if self.standbys && answers.iter().flatten().any(Result::is_ok) {
            let confirmed = match self.ready().await {
                Ok(connection) => confirm(connection).await,
                Err(error) => Err(BackendError::new(error.into_database())),
            };
            if let Err(source) = confirmed {
                for (answer, append) in answers.iter_mut().zip(appends) {
                    if let Some(answer @ Ok(_)) = answer {
                        let (stream, source) = (append.first_stream(), source.clone());
                        *answer = Err(AppendError::OutcomeUnknown { stream, source });
                    }
                }
            }
        }
        answers
    }

    async fn store_on_server(&mut self, appends: &[CheckedAppend]) -> Vec<Option<Answer>> {
        let mut answers: Vec<Option<Answer>> = appends.iter().map(|_| None).collect();
        let mut read_first = false;
        if let [one] = appends
            && is_plain(one)
        {
            match self.store_one(one).await {
                SingleResult::Answered(answer) => answers[0] = Some(answer),
                SingleResult::Blocked => {}
                // At once, as later appends may wait in the queue.
                SingleResult::NeedsStoredState => read_first = true,
            }
            if !read_first {
                return answers;
            }
        }
        let mut places: Vec<usize> = (0..appends.len()).collect();
        // Groups that write the same streams wait for each other in one order. The sort is stable: appends to one stream
        // stay in the order of their arrival.
        places.sort_by_key(|place| appends[*place].parts[0].stream.parts());
        // Groups that are still to be tried.
        let mut stack = vec![places];
        while let Some(group) = stack.pop() {
            let smaller = self.store_group(appends, group, read_first, &mut answers).await;
            stack.extend(smaller.into_iter().rev());
        }
        answers
    }

    /// One event alone is stored by a smaller function: by an optimistic or by a checked insert.
    async fn store_one(&mut self, one: &CheckedAppend) -> SingleResult {
        let optimistic = if self.checked_inserts == 0 { call_for_next(one) } else { None };
        self.checked_inserts = self.checked_inserts.saturating_sub(1);
        if let Some(call) = optimistic {
            match self.fetch(call).await {
                Ok(rows) => {
                    let Some(row) = rows.first() else { return SingleResult::NeedsStoredState };
                    // If the answer is unreadable, the outcome is unknown.
                    let unknown = |e| Failed::Lost(BackendError::new(e)).answer(|| one.first_stream());
                    match next_appended(one, row).map_err(unknown) {
                        Ok(Some((appended, standbys))) => {
                            self.standbys = standbys;
                            return SingleResult::Answered(Ok(appended));
                        }
                        // The stream ends with another event: read the stored state.
                        Ok(None) => return SingleResult::NeedsStoredState,
                        Err(error) => return SingleResult::Answered(Err(error)),
                    }
                }
                Err(Failed::Raced) => self.checked_inserts = CHECKED_AFTER_CONFLICT,
                Err(Failed::RowRejected) => return SingleResult::NeedsStoredState,
                Err(Failed::Blocked) => return SingleResult::Blocked,
                Err(failed) => return SingleResult::Answered(Err(failed.answer(|| one.first_stream()))),
            }
        }
        match self.fetch(call_for_one(one)).await {
            Ok(rows) => {
                let Some(row) = rows.first() else { return SingleResult::NeedsStoredState };
                self.standbys = has_standbys(row);
                match answer_without_look(one, row) {
                    Ok(Some(answer)) => SingleResult::Answered(Ok(answer)),
                    Ok(None) => SingleResult::NeedsStoredState,
                    Err(error) => SingleResult::Answered(Err(error)),
                }
            }
            Err(Failed::Raced | Failed::RowRejected) => SingleResult::NeedsStoredState,
            Err(Failed::Blocked) => SingleResult::Blocked,
            Err(failed) => SingleResult::Answered(Err(failed.answer(|| one.first_stream()))),
        }
    }

    /// Tries to store the appends at `places` together. Returns the smaller groups that must be tried.
    async fn store_group(
        &mut self,
        appends: &[CheckedAppend],
        places: Vec<usize>,
        read_first: bool,
        answers: &mut [Option<Answer>],
    ) -> Vec<Vec<usize>> {
        let (mut open, mut read_first, mut tries) = (places, read_first, 0);
        while tries < TRIES && !open.is_empty() {
            match self.try_group(appends, &open, read_first).await {
                Ok(Tried { answered, deferred }) => {
                    for (place, answer) in answered {
                        answers[place] = Some(answer);
                    }
                    // Postponed appends are decided by the stored state.
                    (open, read_first, tries) = (deferred, true, 0);
                }
                Err(Failed::Raced) => (read_first, tries) = (true, tries + 1),
                // The cause may be a full stream, which the stored state shows.
                Err(Failed::RowRejected) if open.len() == 1 && !read_first => (read_first, tries) = (true, tries + 1),
                Err(Failed::RowRejected) => break,
                // Later appends must not wait for the blocking transaction, nor those of tenants that it does not block.
                Err(Failed::Blocked) => {
                    let of_one = |one: &usize, other: &usize| appends[*one].tenant == appends[*other].tenant;
                    let tenants: Vec<_> = open.chunk_by(of_one).map(<[usize]>::to_vec).collect();
                    return if tenants.len() > 1 { tenants } else { Vec::new() };
                }
                Err(failed) => {
                    for place in open {
                        answers[place] = Some(Err(failed.answer(|| appends[place].first_stream())));
                    }
                    return Vec::new();
                }
            }
        }
        if open.len() < 2 {
            return Vec::new();
        }
        let (first, second) = open.split_at(open.len() / 2);
        vec![first.to_vec(), second.to_vec()]
    }

    /// One statement for the appends at `places`, and with `read_first` the statements that read the stored state first.
    async fn try_group(
        &mut self,
        appends: &[CheckedAppend],
        places: &[usize],
        read_first: bool,
    ) -> Result<Tried, Failed> {
        let mut facts = if read_first { Some(self.read_stored_state(appends, places).await?) } else { None };
        let plan = Plan::of(appends, places, facts.as_mut());
        let mut answered = Vec::with_capacity(places.len());
        if !plan.rows.is_empty() {
            let result = self.fetch(call(appends, &plan, read_first || self.checked_inserts > 0)).await;
            self.checked_inserts = match &result {
                Err(Failed::Raced) => CHECKED_AFTER_CONFLICT,
                _ => self.checked_inserts.saturating_sub(1),
            };
            let rows = result?;
            self.standbys = rows.first().is_none_or(|row| get::<Option<bool>>(row, 4).ok().flatten().unwrap_or(true));
            // If the answer is unreadable, what was stored is unknown.
            let stored = outcome(appends, &plan, &rows).map_err(|e| Failed::Lost(BackendError::new(e)))?;
            answered.extend(stored.ok_or(Failed::Raced)?);
        }
        answered.extend(plan.answered);
        Ok(Tried { answered, deferred: plan.deferred })
    }

    /// Reads all stored state that the answers depend on: versions first, ids last.
    async fn read_stored_state(&mut self, appends: &[CheckedAppend], places: &[usize]) -> Result<Facts, Failed> {
        let mut facts = Facts::default();
        let streams: Vec<_> = places.iter().map(|place| &appends[*place].parts[0].stream).collect();
        let query = sqlx::query(HEADS)
            .bind(streams.iter().map(|stream| stream.tenant().as_str()).collect::<Vec<_>>())
            .bind(streams.iter().map(|stream| stream.aggregate_type()).collect::<Vec<_>>())
            .bind(streams.iter().map(|stream| stream.aggregate_id()).collect::<Vec<_>>());
        let rows = self.read(query).await?;
        self.standbys = rows.first().is_none_or(|row| get(row, 2).unwrap_or(true));
        for (stream, row) in streams.into_iter().zip(&rows) {
            let version = get(row, 0).map_err(|_| Failed::RowRejected)?;
            let last_event = get::<Option<Uuid>>(row, 1).map_err(|_| Failed::RowRejected)?.map(EventId::stored);
            facts.heads.insert(stream.clone(), Head { version, last_event });
        }
        let requests: Vec<(usize, &RequestKey)> =
            places.iter().filter_map(|place| Some((*place, appends[*place].request.as_ref()?))).collect();
        if !requests.is_empty() {
            let query = sqlx::query(REQUESTS_BY_KEYS)
                .bind(requests.iter().map(|(place, _)| appends[*place].tenant.as_str()).collect::<Vec<_>>())
                .bind(requests.iter().map(|(_, request)| request.key()).collect::<Vec<_>>());
            for row in self.read(query).await? {
                let asked: i64 = get(&row, 0).map_err(|_| Failed::RowRejected)?;
                let Some((place, request)) = usize::try_from(asked - 1).ok().and_then(|n| requests.get(n)) else {
                    continue;
                };
                let found = get(&row, 1).and_then(|print| Ok((print, get::<&str>(&row, 2)?)));
                let answer =
                    found.and_then(|(print, result)| remembered(&appends[*place].tenant, request, print, result));
                facts.remembered.insert(*place, answer);
            }
        }
        let ids = places.iter().flat_map(|place| appends[*place].events()).map(|(_, event)| event.event_id.get());
        let ids: Vec<_> = ids.collect();
        for row in self.read(sqlx::query(EVENTS_BY_IDS).bind(ids)).await? {
            // An append whose row cannot be read gets the error when it is tried alone.
            let (id, stored) = stored_event(&row).map_err(|_| Failed::RowRejected)?;
            facts.stored.insert(id, stored);
        }
        Ok(facts)
    }

    /// A connection that is alive as far as is known.
    async fn ready(&mut self) -> Result<&mut PooledConnection, NoConnection> {
        let alive = match &mut self.connection {
            Some(connection) => connection.is_alive().await,
            None => false,
        };
        if !alive {
            self.connection = None;
        }
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => Ok(none.insert(self.pool.own().await?)),
        }
    }

    /// Runs a statement that stores nothing, so that its outcome is never unknown.
    async fn read(&mut self, query: Query<'_>) -> Result<Vec<PgRow>, Failed> {
        self.fetch(query).await.map_err(|failed| match failed {
            Failed::Lost(source) => Failed::Unsent(NoConnection::Unavailable(source)),
            failed => failed,
        })
    }

    async fn fetch(&mut self, query: Query<'_>) -> Result<Vec<PgRow>, Failed> {
        let connection = self.ready().await.map_err(Failed::Unsent)?;
        connection.fetch_all(query).await.map_err(|error| {
            if was_not_run(&error) {
                Failed::Unsent(NoConnection::Unavailable(BackendError::new(error)))
            } else if has_lost_a_race(&error) || would_leave_a_gap(&error) {
                Failed::Raced
            } else if was_blocked(&error) {
                Failed::Blocked
            } else if is_about_rows(&error) {
                Failed::RowRejected
            } else if is_answer(&error) {
                Failed::Refused(Arc::new(error))
            } else {
                Failed::Lost(BackendError::new(error))
            }
        })
    }
}

/// The result of one statement.
struct Tried {
    answered: Vec<(usize, Answer)>,
    deferred: Vec<usize>,
}

impl Failed {
    /// The error for one of the appends.
    fn answer(&self, stream: impl FnOnce() -> StreamId) -> AppendError {
        match self {
            Self::Unsent(error) => error.clone().into_append(),
            Self::Refused(error) => append_error(error, stream),
            Self::Lost(source) => AppendError::OutcomeUnknown { stream: stream(), source: source.clone() },
            Self::Raced | Self::RowRejected | Self::Blocked => unreachable!("the appends are tried again"),
        }
    }
}

fn call<'q>(appends: &'q [CheckedAppend], plan: &Plan<'q>, check: bool) -> Query<'q> {
    // If no stream is checked, their names are not needed.
    let named = check || plan.slots.iter().any(|slot| slot.head.is_none());
    let slots = || plan.slots.iter().filter(move |_| named);
    let rows = || plan.rows.iter();
    let place_of = |slot: usize| i32::try_from(slot + 1).unwrap_or(i32::MAX);
    let stream_of = |slot: usize| plan.slots[slot].stream;
    let requests: Vec<_> = plan
        .carried
        .iter()
        .filter_map(|carried| Some((carried, &appends[carried.place].tenant, appends[carried.place].request.as_ref()?)))
        .collect();
    sqlx::query(APPEND_GROUP)
        .bind(check)
        .bind(slots().map(|slot| slot.stream.tenant().as_str()).collect::<Vec<_>>())
        .bind(slots().map(|slot| slot.stream.aggregate_type()).collect::<Vec<_>>())
        .bind(slots().map(|slot| slot.stream.aggregate_id()).collect::<Vec<_>>())
        .bind(plan.slots.iter().map(|slot| slot.head).collect::<Vec<_>>())
        .bind(rows().map(|row| place_of(row.slot)).collect::<Vec<_>>())
        .bind(rows().map(|row| row.above).collect::<Vec<_>>())
        .bind(rows().map(|row| stream_of(row.slot).tenant().as_str()).collect::<Vec<_>>())
        .bind(rows().map(|row| stream_of(row.slot).aggregate_type()).collect::<Vec<_>>())
        .bind(rows().map(|row| stream_of(row.slot).aggregate_id()).collect::<Vec<_>>())
        .bind(rows().map(|row| row.event.event_id.get()).collect::<Vec<_>>())
        .bind(rows().map(|row| &*row.event.name).collect::<Vec<_>>())
        .bind(rows().map(|row| i64::from(row.event.schema_version)).collect::<Vec<_>>())
        .bind(rows().map(|row| row.event.payload.as_str()).collect::<Vec<_>>())
        .bind(rows().map(|row| &*row.event.metadata).collect::<Vec<_>>())
        .bind(rows().map(|row| row.event.correlation_id.as_ref().map(|id| id.as_str())).collect::<Vec<_>>())
        .bind(rows().map(|row| row.event.causation_id.as_ref().map(|id| id.as_str())).collect::<Vec<_>>())
        .bind(rows().map(|row| row.append_id).collect::<Vec<_>>())
        .bind(rows().map(|row| row.last_event.map(EventId::get)).collect::<Vec<_>>())
        .bind(requests.iter().map(|(_, tenant, _)| tenant.as_str()).collect::<Vec<_>>())
        .bind(requests.iter().map(|(_, _, request)| request.key()).collect::<Vec<_>>())
        .bind(requests.iter().map(|(_, _, request)| request.fingerprint().get()).collect::<Vec<_>>())
        .bind(requests.iter().map(|(_, _, request)| lifetime(request)).collect::<Vec<_>>())
        .bind(requests.iter().map(|(carried, _, _)| place_of(carried.first_row)).collect::<Vec<_>>())
        .bind(requests.iter().map(|(carried, _, _)| place_of(carried.last_row)).collect::<Vec<_>>())
}

/// The answers of a statement that was carried out; `None` if an expected version did not hold, and nothing was stored.
fn outcome(
    appends: &[CheckedAppend],
    plan: &Plan<'_>,
    rows: &[PgRow],
) -> Result<Option<Vec<(usize, Answer)>>, AppendError> {
    let row = rows.first().ok_or_else(|| broken("the function `annals.append_group` gave no row".to_owned()))?;
    match get::<&str>(row, 0)? {
        "stale" => return Ok(None),
        "appended" => {}
        other => return Err(broken(format!("the function `annals.append_group` gave `{other}`"))),
    }
    let heads: Vec<i64> = get(row, 1)?;
    let positions: Vec<i64> = get(row, 2)?;
    let recorded_at = Timestamp::from_microsecond(get(row, 3)?).map_err(|e| broken(format!("the time: {e}")))?;
    if heads.len() != plan.slots.len() || positions.len() != plan.rows.len() {
        return Err(broken(format!("{} positions for {} events", positions.len(), plan.rows.len())));
    }
    let answer = |carried: &Carried| {
        let part = &appends[carried.place].parts[0];
        let last = &plan.rows[carried.last_row];
        let stream = AppendedStream {
            stream: part.stream.clone(),
            version: StreamVersion::stored(heads[last.slot] + last.above),
            positions: positions[carried.first_row..=carried.last_row].iter().copied().map(Position::stored).collect(),
        };
        (carried.place, Ok(Appended::new(vec![stream], recorded_at, false)))
    };
    Ok(Some(plan.carried.iter().map(answer).collect()))
}

/// The statements that read events, with values, for the golden files.
#[cfg(test)]
pub(crate) fn hot_reads() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![("REQUESTS_BY_KEYS", REQUESTS_BY_KEYS, "('{default,default}', '{key-1,key-2}')")]
}
