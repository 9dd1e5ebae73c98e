//! Units of work of the library: events, and a row of one's own beside each, in one transaction.

use std::sync::Arc;
use std::time::Duration;

use annals::postgres::PostgresUnitOfWork;
use annals::{Append, AppendError, ErrorFamily, ExpectedVersion, PostgresStore, StreamVersion, UnitOfWork};
use fastrand::Rng;
use sqlx::PgConnection;
use tokio::time::sleep;
use uuid::Uuid;

use crate::sample;
use crate::torture::Fault;
use crate::torture::fact::{Fact, new_event, stream_id};
use crate::torture::writers::desk::Desk;
use crate::torture::writers::held::hold;
use crate::torture::writers::own::Own;

const BESIDE: &str = "
    INSERT INTO beside (event_id)
    VALUES ($1)
";

pub(super) struct Units {
    store: PostgresStore,
    own: Own,
    random: Rng,
}

/// How one of them ended.
enum Ended {
    Committed,
    RolledBack,
    /// By a killed backend or a crash: it may have happened or not.
    Unknown,
}

impl Units {
    pub(super) fn new(store: PostgresStore, writer: u32, random: Rng) -> Self {
        Self { store, own: Own::of_units(writer), random }
    }

    pub(super) async fn write(mut self, desk: Arc<Desk>) -> Result<(), Fault> {
        while let Some(_at_work) = desk.enter().await {
            let mut facts = Vec::new();
            match self.unit(&mut facts).await? {
                Ended::Committed => {
                    for fact in &facts {
                        self.own.set(fact.stream, Some(fact.version.into()));
                    }
                    desk.acknowledge(&facts)?;
                    let mut streams: Vec<u32> = facts.iter().map(|fact| fact.stream).collect();
                    streams.sort_unstable();
                    streams.dedup();
                    let mut tally = desk.count();
                    tally.units += 1;
                    tally.library += streams.len() as u64;
                }
                Ended::RolledBack => desk.count().rolled_back += 1,
                Ended::Unknown => {
                    desk.count().unknown += 1;
                    // Which streams it was at is not known if it has failed in the middle.
                    self.own.forget();
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
        Ok(())
    }

    async fn unit(&mut self, facts: &mut Vec<Fact>) -> Result<Ended, Fault> {
        let Ok(mut unit) = self.store.begin().await else { return Ok(Ended::Unknown) };
        for _ in 0..self.random.u8(1..4) {
            if !self.append(&mut unit, facts).await? {
                return Ok(Ended::Unknown);
            }
            if self.random.u8(..3) == 0 {
                hold(&mut self.random).await;
            }
        }
        match self.random.u8(..8) {
            0 => Ok(unit.rollback().await.map_or(Ended::Unknown, |()| Ended::RolledBack)),
            // Whoever drops it has rolled back.
            1 => Ok(Ended::RolledBack),
            _ => match unit.commit().await {
                Ok(()) => Ok(Ended::Committed),
                Err(error) => passing(error).map(|()| Ended::Unknown),
            },
        }
    }

    /// Adds events to some streams. False if the transaction is gone.
    async fn append(&mut self, unit: &mut PostgresUnitOfWork, facts: &mut Vec<Fact>) -> Result<bool, Fault> {
        let mut streams: Vec<u32> = (0..self.random.u8(1..4)).map(|_| self.own.stream(self.random.u32(..))).collect();
        streams.sort_unstable();
        streams.dedup();
        let mut append: Option<Append> = None;
        let mut ids = Vec::new();
        for &stream in &streams {
            // What this unit has added itself comes before what is known to be committed.
            let mine = facts.iter().rev().find(|fact| fact.stream == stream).map(|fact| i64::from(fact.version));
            let version = match mine {
                Some(version) => version,
                None => match self.own.version(stream, &mut *unit).await {
                    Ok(version) => version,
                    Err(_) => return Ok(false),
                },
            };
            let expected = ExpectedVersion::Exact(StreamVersion::new(version)?);
            let id = sample::id();
            let (to, events) = (stream_id(stream)?, vec![new_event(stream, id)?]);
            ids.push(id);
            append = Some(match append {
                None => Append::to(to, expected, events),
                Some(append) => append.and(to, expected, events),
            });
        }
        let Some(append) = append else { return Ok(true) };
        let rows_first = self.random.bool();
        if rows_first && !rows(unit, &ids).await {
            return Ok(false);
        }
        let appended = match unit.append(append).await {
            Ok(appended) => appended,
            Err(error) => return passing(error).map(|()| false),
        };
        for ((&stream, id), done) in streams.iter().zip(&ids).zip(&appended.streams) {
            let position = done.positions.last().ok_or("an append without positions")?;
            facts.push(Fact::new(position.get(), stream, done.version.get(), *id)?);
        }
        Ok(rows_first || rows(unit, &ids).await)
    }
}

/// Writes a row for each event. False if the transaction is gone.
async fn rows(connection: &mut PgConnection, ids: &[Uuid]) -> bool {
    for id in ids {
        if sqlx::query(BESIDE).bind(id).execute(&mut *connection).await.is_err() {
            return false;
        }
    }
    true
}

/// An error that may come when backends are killed and servers crash. A conflict may, if the commit of a unit that was
/// lost comes through only after its streams were looked at again.
fn passing(error: AppendError) -> Result<(), Fault> {
    match error.family() {
        ErrorFamily::Transient | ErrorFamily::OutcomeUnknown | ErrorFamily::Conflict => Ok(()),
        _ => Err(error.into()),
    }
}
