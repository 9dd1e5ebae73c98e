//! One round of appends inside an open transaction: look up, decide in order of arrival, insert.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Row, SqliteConnection};
use uuid::Uuid;

use crate::append::{Appended, AppendedStream, CheckedAppend};
use crate::duplicate::{StoredEvent, find_duplicate};
use crate::error::AppendError;
use crate::event::EventId;
use crate::payload::Payload;
use crate::position::Position;
use crate::sqlite::append::insert::{self, MOST_ROWS, NewRow};
use crate::sqlite::append::requests;
use crate::sqlite::append::writer::GroupCommit;
use crate::stream::{StreamId, StreamVersion, Tenant};

const EVENTS_BY_IDS: &str = "
    SELECT e.event_id, e.tenant, e.aggregate_type, e.aggregate_id, e.version, e.position, e.event_type, e.schema_version,
           e.event_data, e.append_id, e.recorded_at
    FROM json_each(?1) AS asked
    JOIN events AS e ON e.event_id = unhex(asked.value)
    ORDER BY e.position
";

/// One row with the end of every stream that is asked for, as `index:version:event_id`; the id only where column 5 wants
/// it, because the version alone is read from the index. `VALUES` follows.
const HEADS: &str = "
    SELECT group_concat(column1 || ':' || coalesce(iif(column5,
               (SELECT version || ':' || hex(event_id)
                FROM events
                WHERE tenant = column2 AND aggregate_type = column3 AND aggregate_id = column4
                ORDER BY version DESC
                LIMIT 1),
               (SELECT max(version)
                FROM events
                WHERE tenant = column2 AND aggregate_type = column3 AND aggregate_id = column4)), 0))
    FROM (VALUES ";

/// Where a stream ends.
#[derive(Clone, Copy, Default)]
struct Head {
    version: StreamVersion,
    /// Its last event, if an append of the round asks for it.
    last_event: Option<EventId>,
}

type Heads = HashMap<StreamId, Head>;

/// The answers of a round, in the order of its appends.
pub(crate) type Answers = Vec<Result<Appended, AppendError>>;

/// How a round ended that could not be finished.
pub(crate) enum RoundError {
    /// An event id may be stored already: the same round again must look the ids up. Nothing has been inserted.
    LookUpIds,
    /// The database failed or refused; the transaction must be rolled back.
    Failed(sqlx::Error),
}

impl From<sqlx::Error> for RoundError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error)
    }
}

/// How a round begins and ends.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    /// Whether event ids are looked up before versions are compared. Most appends bring new ids, so a round tries
    /// without first; the unique index notices when it was wrong.
    pub(crate) look_up_ids: bool,
    /// Whether the round begins and commits the transaction itself.
    pub(crate) own_transaction: bool,
}

/// Runs a round. In one round no event id and no request key occurs twice (see the queue); a stream may.
///
/// The clock of `group` is read under the write lock of the file. A reader that asks what was true at a time takes that lock
/// once, so what is recorded later has a later time. Without a transaction of its own, the caller holds the lock.
pub(crate) async fn run(
    connection: &mut SqliteConnection,
    appends: &[CheckedAppend],
    group: &GroupCommit,
    round: Round,
) -> Result<Answers, RoundError> {
    let mut heads = heads(connection, appends, round.own_transaction).await?;
    let now = group.now();
    let asked = requests::of(appends);
    let known = requests::find_all(connection, asked, now.as_microsecond(), group.latest()).await?;
    let requests::Known { remembered, begins } = known;
    let stored = if round.look_up_ids { stored_events(connection, appends).await? } else { HashMap::new() };
    let mut answers: Vec<Option<Result<Appended, AppendError>>> = Vec::with_capacity(appends.len());
    let mut rows = Vec::new();
    for (index, append) in appends.iter().enumerate() {
        let answer = if let (Some(found), Some(request)) = (remembered.get(&index), &append.request) {
            Some(found.answer(&append.tenant, request))
        } else {
            match find_duplicate(append, &stored) {
                Ok(Some(repeated)) => Some(Ok(repeated)),
                Ok(None) => match plan(append, &mut heads, &mut rows) {
                    Ok(()) => None,
                    // A wrong expectation is a conflict only if this is not the same append again.
                    Err(_) if !round.look_up_ids => return Err(RoundError::LookUpIds),
                    Err(error) => Some(Err(error)),
                },
                Err(error) => Some(Err(error)),
            }
        };
        answers.push(answer);
    }
    store(connection, appends, answers, &rows, Times { now, begins }, round).await
}

/// The times of a round.
struct Times {
    /// When its events are recorded; whole microseconds.
    now: Timestamp,
    /// When the lifetimes of its request keys begin, in microseconds.
    begins: i64,
}

/// Inserts the planned rows and the request keys, and fills in the answers that were waiting for positions.
async fn store(
    connection: &mut SqliteConnection,
    appends: &[CheckedAppend],
    answers: Vec<Option<Result<Appended, AppendError>>>,
    rows: &[NewRow<'_>],
    times: Times,
    round: Round,
) -> Result<Answers, RoundError> {
    let now = times.now.as_microsecond();
    let new_requests =
        appends.iter().zip(&answers).any(|(append, answer)| answer.is_none() && append.request.is_some());
    let mut committed = false;
    let mut positions = Vec::with_capacity(rows.len());
    let mut chunks = rows.chunks(MOST_ROWS).peekable();
    while let Some(chunk) = chunks.next() {
        // The last statement commits too, unless request keys are still to come.
        let commit = round.own_transaction && chunks.peek().is_none() && !new_requests;
        let (text, arguments) = insert::statement(chunk, now, commit);
        let done = sqlx::query_with(text, arguments).execute(&mut *connection).await?;
        committed = commit;
        // One writer at a time and AUTOINCREMENT: the rows of one statement have consecutive positions.
        let last = done.last_insert_rowid();
        let count = i64::try_from(chunk.len()).unwrap_or(i64::MAX);
        positions.extend((last - count + 1..=last).map(Position::stored));
    }
    let mut stored = rows.iter().zip(positions);
    let mut new = Vec::new();
    let mut finished: Answers = Vec::with_capacity(appends.len());
    for (append, answer) in appends.iter().zip(answers) {
        finished.push(answer.unwrap_or_else(|| {
            let appended = appended(append, &mut stored, times.now);
            new.push((append, appended.clone()));
            Ok(appended)
        }));
    }
    if new_requests {
        let new = new.iter().filter_map(|(append, answer)| Some((&append.tenant, append.request.as_ref()?, answer)));
        requests::remember(connection, new, times.begins, now).await?;
    }
    if round.own_transaction && !committed {
        sqlx::query("COMMIT").execute(connection).await?;
    }
    Ok(finished)
}

/// The answer to an append whose rows come next in `stored`.
fn appended<'a, 'r: 'a>(
    append: &CheckedAppend,
    stored: &mut impl Iterator<Item = (&'a NewRow<'r>, Position)>,
    now: Timestamp,
) -> Appended {
    let stream = |part: &crate::append::CheckedPart, stored: &mut dyn Iterator<Item = (&'a NewRow<'r>, Position)>| {
        let mut version = StreamVersion::NONE;
        let mut positions = Vec::with_capacity(part.events.len());
        for (row, position) in stored.take(part.events.len()) {
            version = row.version;
            positions.push(position);
        }
        AppendedStream { stream: part.stream.clone(), version, positions }
    };
    let streams = append.parts.iter().map(|part| stream(part, stored)).chain(append.about.iter().cloned());
    Appended::new(streams.collect(), now, false)
}

/// Compares what is expected with what is there, and plans the rows of the append if it holds for all its streams.
fn plan<'a>(append: &'a CheckedAppend, heads: &mut Heads, rows: &mut Vec<NewRow<'a>>) -> Result<(), AppendError> {
    let head_of = |heads: &Heads, stream| heads.get(stream).copied().unwrap_or_default();
    for part in &append.parts {
        let head = head_of(heads, &part.stream);
        part.version_after(head.version, head.last_event)?;
    }
    for part in &append.parts {
        let mut head = head_of(heads, &part.stream);
        for event in &part.events {
            head.version = head.version.plus(1).expect("room for all events was checked above");
            head.last_event = Some(event.event_id);
            rows.push(NewRow { stream: &part.stream, version: head.version, event, append_id: append.append_id });
        }
        heads.insert(part.stream.clone(), head);
    }
    Ok(())
}

/// Where every stream of the round ends; begins the transaction in the same call if the round has its own.
async fn heads(
    connection: &mut SqliteConnection,
    appends: &[CheckedAppend],
    begin: bool,
) -> Result<Heads, sqlx::Error> {
    let mut heads = Heads::new();
    let mut streams: Vec<StreamId> = Vec::new();
    let mut wanted: HashSet<&StreamId> = HashSet::new();
    for part in appends.iter().flat_map(|append| &append.parts) {
        if heads.insert(part.stream.clone(), Head::default()).is_none() {
            streams.push(part.stream.clone());
        }
        if part.expected.last_event().is_some() {
            wanted.insert(&part.stream);
        }
    }
    if streams.is_empty() {
        if begin {
            sqlx::query("BEGIN IMMEDIATE").execute(connection).await?;
        }
        return Ok(heads);
    }
    for (number, chunk) in streams.chunks(MOST_ASKED).enumerate() {
        let (text, size) = heads_text(chunk.len(), begin && number == 0);
        let mut arguments = SqliteArguments::default();
        arguments.reserve(size * 5, 0);
        for index in 0..size {
            let parts = chunk.get(index).map(StreamId::parts);
            let (tenant, aggregate_type, aggregate_id) =
                parts.map_or((None, None, None), |(t, y, i)| (Some(t), Some(y), Some(i)));
            let bound = arguments
                .add(tenant.is_some().then_some(i64::try_from(index).unwrap_or(i64::MAX)))
                .and_then(|()| arguments.add(tenant))
                .and_then(|()| arguments.add(aggregate_type))
                .and_then(|()| arguments.add(aggregate_id))
                .and_then(|()| arguments.add(chunk.get(index).is_some_and(|stream| wanted.contains(stream))));
            bound.expect("numbers and text always encode");
        }
        let answered = sqlx::query_with(AssertSqlSafe(text), arguments).fetch_all(&mut *connection).await?;
        let packed = answered.first().and_then(|row| row.get::<Option<&str>, _>(0)).unwrap_or_default();
        for entry in packed.split(',') {
            let found = entry.split_once(':').and_then(|(index, end)| {
                let stream = chunk.get(index.parse::<usize>().ok()?)?;
                let (version, id) = end.split_once(':').unwrap_or((end, ""));
                let last_event = Uuid::try_parse(id).ok().map(EventId::stored);
                Some((stream, Head { version: StreamVersion::stored(version.parse().ok()?), last_event }))
            });
            if let Some((stream, head)) = found {
                heads.insert(stream.clone(), head);
            }
        }
    }
    Ok(heads)
}

/// The most streams that one statement asks for.
const MOST_ASKED: usize = 1024;

/// The text for so many streams, rounded up to a power of two, and its size; each is made once.
fn heads_text(streams: usize, begin: bool) -> (Arc<str>, usize) {
    type Texts = [OnceLock<Arc<str>>; 11];
    static PLAIN: Texts = [const { OnceLock::new() }; 11];
    static BEGINNING: Texts = [const { OnceLock::new() }; 11];
    let size = streams.next_power_of_two();
    let texts = if begin { &BEGINNING } else { &PLAIN };
    let text = texts[size.trailing_zeros() as usize].get_or_init(|| {
        let mut text = if begin { format!("BEGIN IMMEDIATE; {HEADS}") } else { HEADS.to_owned() };
        for row in 0..size {
            let comma = if row == 0 { "" } else { ", " };
            write!(text, "{comma}(?, ?, ?, ?, ?)").expect("writing to a string never fails");
        }
        text.push_str(") WHERE column1 IS NOT NULL ORDER BY 1");
        text.into()
    });
    (Arc::clone(text), size)
}

/// Every stored event that has an id of the round.
async fn stored_events(
    connection: &mut SqliteConnection,
    appends: &[CheckedAppend],
) -> Result<HashMap<EventId, StoredEvent>, sqlx::Error> {
    let asked: Vec<String> = appends
        .iter()
        .flat_map(CheckedAppend::events)
        .map(|(_, event)| event.event_id.get().simple().to_string())
        .collect();
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    let rows =
        sqlx::query(EVENTS_BY_IDS).bind(serde_json::Value::from(asked).to_string()).fetch_all(connection).await?;
    Ok(rows.iter().map(stored_event).collect())
}

fn stored_event(row: &SqliteRow) -> (EventId, StoredEvent) {
    // Text that is no UTF-8 was not written by annals, so it differs from what is appended. It must not stop the writer.
    let text = |column: usize| String::from_utf8_lossy(row.get::<&[u8], _>(column)).into_owned();
    let uuid = |column: usize| row.get::<Option<&[u8]>, _>(column).and_then(|bytes| Uuid::from_slice(bytes).ok());
    let tenant = Tenant::stored(text(1).into());
    let stored = StoredEvent {
        stream: StreamId::stored(tenant, text(2).into(), text(3).into()),
        version: StreamVersion::stored(row.get(4)),
        position: Position::stored(row.get(5)),
        name: text(6).into(),
        schema_version: u32::try_from(row.get::<i64, _>(7)).unwrap_or_default(),
        payload: Payload::trusted(text(8)),
        append_id: uuid(9),
        recorded_at: Timestamp::from_microsecond(row.get(10)).unwrap_or_default(),
    };
    (EventId::stored(uuid(0).unwrap_or_default()), stored)
}

/// The reads that must never scan, for the golden file of their plans.
#[cfg(test)]
pub(crate) fn hot_reads() -> Vec<(&'static str, String)> {
    vec![("EVENTS_BY_IDS", EVENTS_BY_IDS.to_owned()), ("HEADS", heads_text(2, false).0.to_string())]
}
