//! Writers that use the library: appends that are repeated until their outcome is known, and units of work.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use annals::postgres::PostgresUnitOfWork;
use annals::{
    Append, AppendError, Appended, ErrorFamily, EventStore, ExpectedVersion, NewEvent, PostgresStore, StreamVersion,
    UnitOfWork,
};
use fastrand::Rng;
use sqlx::PgConnection;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::shared::{OwnStreams, Shared};
use super::wait_at_random;
use crate::Fault;
use crate::fact::{Fact, HOT_STREAMS, append_to, new_event, new_id, stream_number};
use crate::run_folder::TIMEOUT;

const BESIDE: &str = "
    INSERT INTO beside (event_id)
    VALUES ($1)
";

/// How many tasks of one writer append at once, so that their appends meet in the queue of the handle.
pub(super) const CALLERS: u32 = 16;

pub(super) struct Appends {
    store: PostgresStore,
    own: OwnStreams,
    /// Whether it waits for readers that are far behind.
    waits_for_readers: bool,
    /// The last version it has seen of streams that many writers append to.
    seen: HashMap<u32, StreamVersion>,
    random: Rng,
}

/// What one append adds to one stream.
struct ToStream {
    stream: u32,
    expected: ExpectedVersion,
    events: Vec<NewEvent>,
}

impl Appends {
    /// One of the callers of a writer.
    pub(super) fn new(store: PostgresStore, writer: u32, caller: u32, random: Rng) -> Self {
        let own = OwnStreams::share(writer, caller, CALLERS);
        Self { store, own, waits_for_readers: caller > 0, seen: HashMap::new(), random }
    }

    pub(super) async fn write(mut self, shared: Arc<Shared>) -> Result<(), Fault> {
        while let Some(_running) =
            if self.waits_for_readers { shared.begin_slowly().await } else { shared.begin().await }
        {
            let parts = self.choose()?;
            let append = append_to(parts.iter().map(|part| (part.stream, part.expected, part.events.clone())))?;
            let Some(append) = append else { continue };
            if let Some(appended) = self.append(append, &shared).await? {
                let streams = shared.acknowledge(&self.appended(&parts, &appended)?)?;
                shared.tally().library += streams;
            }
        }
        Ok(())
    }

    fn choose(&mut self) -> Result<Vec<ToStream>, Fault> {
        let random = &mut self.random;
        let own = |random: &mut Rng| self.own.stream(random.u32(..));
        let mut streams = match random.u8(..10) {
            0 => vec![random.u32(HOT_STREAMS)],
            1 => (0..random.u8(2..5))
                .map(|_| if random.bool() { own(random) } else { random.u32(HOT_STREAMS) })
                .collect(),
            _ => vec![own(random)],
        };
        streams.sort_unstable();
        streams.dedup();
        random.shuffle(&mut streams);
        let mut parts = Vec::new();
        for stream in streams {
            let expected = if self.own.contains(stream) {
                ExpectedVersion::Exact(StreamVersion::new(self.own.known_version(stream))?)
            } else if random.u8(..4) == 0 {
                // Probably out of date.
                ExpectedVersion::Exact(self.seen.get(&stream).copied().unwrap_or_default())
            } else {
                ExpectedVersion::Any
            };
            let count = if random.u8(..4) == 0 { random.u8(2..7) } else { 1 };
            let events = (0..count).map(|_| new_event(stream, new_id())).collect::<Result<_, Fault>>()?;
            parts.push(ToStream { stream, expected, events });
        }
        Ok(parts)
    }

    /// Repeats the append until its outcome is known. None after a conflict.
    async fn append(&mut self, append: Append, shared: &Shared) -> Result<Option<Appended>, Fault> {
        let begun = Instant::now();
        loop {
            let error = match self.store.append_many(append.clone()).await {
                Ok(appended) => {
                    shared.tally().repeated += u64::from(appended.repeated);
                    return Ok(Some(appended));
                }
                Err(error) => error,
            };
            match error.family() {
                ErrorFamily::Conflict => {
                    shared.tally().conflicts += 1;
                    self.check_conflict(error)?;
                    return Ok(None);
                }
                ErrorFamily::OutcomeUnknown if begun.elapsed() < TIMEOUT => shared.tally().unknown += 1,
                ErrorFamily::Transient if begun.elapsed() < TIMEOUT => {}
                _ => return Err(error.into()),
            }
            sleep(Duration::from_millis(self.random.u64(5..50))).await;
        }
    }

    /// No other writer appends to the own streams, so a conflict there is an error.
    fn check_conflict(&mut self, error: AppendError) -> Result<(), Fault> {
        let AppendError::WrongExpectedVersion { stream, actual, .. } = &error else { return Err(error.into()) };
        let number = stream_number(stream.aggregate_id())?;
        if self.own.contains(number) {
            return Err(format!("a conflict on a stream that no other writer appends to: {error}").into());
        }
        self.seen.insert(number, *actual);
        Ok(())
    }

    /// The facts of an append that succeeded.
    fn appended(&mut self, parts: &[ToStream], appended: &Appended) -> Result<Vec<Fact>, Fault> {
        let mut facts = Vec::new();
        for (part, done) in parts.iter().zip(&appended.streams) {
            if done.positions.len() != part.events.len() {
                return Err(format!("{} positions for {} events", done.positions.len(), part.events.len()).into());
            }
            let first = done.version.get() - part.events.len() as i64 + 1;
            for ((event, position), version) in part.events.iter().zip(&done.positions).zip(first..) {
                facts.push(Fact::new(position.get(), part.stream, version, event.event_id.get())?);
            }
            self.seen.insert(part.stream, done.version);
        }
        self.own.commit(&facts);
        Ok(facts)
    }
}

/// Units of work: events and a row beside each, in one transaction.
pub(super) struct Units {
    store: PostgresStore,
    own: OwnStreams,
    random: Rng,
}

/// How a unit of work ended.
enum Outcome {
    Committed,
    RolledBack,
    /// After a killed backend or a crash.
    Unknown,
}

impl Units {
    pub(super) fn new(store: PostgresStore, writer: u32, random: Rng) -> Self {
        Self { store, own: OwnStreams::of_units(writer), random }
    }

    pub(super) async fn write(mut self, shared: Arc<Shared>) -> Result<(), Fault> {
        while let Some(_running) = shared.begin().await {
            let mut facts = Vec::new();
            match self.unit(&mut facts).await? {
                Outcome::Committed => {
                    self.own.commit(&facts);
                    let streams = shared.acknowledge(&facts)?;
                    let mut tally = shared.tally();
                    tally.units += 1;
                    tally.library += streams;
                }
                Outcome::RolledBack => shared.tally().rolled_back += 1,
                Outcome::Unknown => {
                    shared.tally().unknown += 1;
                    // `facts` lacks the streams of an append that failed.
                    self.own.forget();
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
        Ok(())
    }

    async fn unit(&mut self, facts: &mut Vec<Fact>) -> Result<Outcome, Fault> {
        let Ok(mut unit) = self.store.begin().await else { return Ok(Outcome::Unknown) };
        for _ in 0..self.random.u8(1..4) {
            if !self.append(&mut unit, facts).await? {
                return Ok(Outcome::Unknown);
            }
            if self.random.u8(..3) == 0 {
                wait_at_random(&mut self.random).await;
            }
        }
        match self.random.u8(..8) {
            0 => Ok(unit.rollback().await.map_or(Outcome::Unknown, |()| Outcome::RolledBack)),
            // Dropping it rolls back.
            1 => Ok(Outcome::RolledBack),
            _ => match unit.commit().await {
                Ok(()) => Ok(Outcome::Committed),
                Err(error) => expect_unknown(error).map(|()| Outcome::Unknown),
            },
        }
    }

    /// Adds events to some streams. Returns false if the transaction has failed.
    async fn append(&mut self, unit: &mut PostgresUnitOfWork, facts: &mut Vec<Fact>) -> Result<bool, Fault> {
        let mut streams: Vec<u32> = (0..self.random.u8(1..4)).map(|_| self.own.stream(self.random.u32(..))).collect();
        streams.sort_unstable();
        streams.dedup();
        let ids: Vec<Uuid> = streams.iter().map(|_| new_id()).collect();
        let mut parts = Vec::new();
        for (&stream, id) in streams.iter().zip(&ids) {
            let Ok(version) = self.own.version(stream, facts, &mut *unit).await else { return Ok(false) };
            let expected = ExpectedVersion::Exact(StreamVersion::new(version)?);
            parts.push((stream, expected, vec![new_event(stream, *id)?]));
        }
        let Some(append) = append_to(parts)? else { return Ok(true) };
        let rows_first = self.random.bool();
        if rows_first && !insert_rows(unit, &ids).await {
            return Ok(false);
        }
        let appended = match unit.append(append).await {
            Ok(appended) => appended,
            Err(error) => return expect_unknown(error).map(|()| false),
        };
        for ((&stream, id), done) in streams.iter().zip(&ids).zip(&appended.streams) {
            let position = done.positions.last().ok_or("an append without positions")?;
            facts.push(Fact::new(position.get(), stream, done.version.get(), *id)?);
        }
        Ok(rows_first || insert_rows(unit, &ids).await)
    }
}

/// Inserts a row for each event. Returns false if the transaction has failed.
async fn insert_rows(connection: &mut PgConnection, ids: &[Uuid]) -> bool {
    for id in ids {
        if sqlx::query(BESIDE).bind(id).execute(&mut *connection).await.is_err() {
            return false;
        }
    }
    true
}

/// Accepts the errors of killed backends and crashes. A conflict is one of them: the commit of a lost unit may succeed
/// after the versions of its streams were queried.
fn expect_unknown(error: AppendError) -> Result<(), Fault> {
    match error.family() {
        ErrorFamily::Transient | ErrorFamily::OutcomeUnknown | ErrorFamily::Conflict => Ok(()),
        _ => Err(error.into()),
    }
}
