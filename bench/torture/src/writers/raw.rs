//! Writers that do not use the library: a hand-written INSERT, and a call of the stored function.

use std::sync::Arc;

use fastrand::Rng;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::shared::{OwnStreams, Shared};
use super::wait_at_random;
use crate::Fault;
use crate::fact::{Fact, HOT_STREAMS, PAYLOAD, aggregate_id, aggregate_type, correlation, event_name, new_id};
use crate::run_folder::{Reconnecting, RunFolder, run};

const INSERT: &str = "
    INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                               event_data, metadata, correlation_id)
    SELECT e.event_id, 'default', e.aggregate_type, e.aggregate_id, e.version, e.event_type, 1, $6::jsonb, '{}',
           e.correlation_id
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $7::text[]) WITH ORDINALITY
         AS e (event_id, aggregate_type, aggregate_id, version, event_type, correlation_id, n)
    ORDER BY e.n
    RETURNING position, aggregate_id, version, event_id
";

const APPEND_ONE: &str = "
    SELECT kind, base_versions[1] + 1, positions[1]
    FROM annals.append_one('default', $1, $2, NULL, $3, $4, 1, $5, '{}', $6, NULL)
    ORDER BY 1
";

/// Appends to many streams in one statement, as fast as it can.
pub(super) struct Group {
    connection: Reconnecting,
    own: OwnStreams,
    random: Rng,
    next: u32,
}

impl Group {
    pub(super) fn new(folder: &RunFolder, writer: u32, random: Rng) -> Self {
        Self { connection: Reconnecting::new(folder), own: OwnStreams::of(writer), random, next: 0 }
    }

    pub(super) async fn write(mut self, shared: Arc<Shared>) -> Result<(), Fault> {
        while let Some(_running) = shared.begin_slowly().await {
            let streams: Vec<u32> =
                (0..self.random.u32(20..80)).map(|n| self.own.stream(self.next.wrapping_add(n))).collect();
            self.next = self.next.wrapping_add(streams.len() as u32);
            match self.commit(&streams).await {
                Ok(facts) => {
                    self.own.commit(&facts);
                    shared.acknowledge(&facts)?;
                }
                Err(_) => {
                    shared.tally().unknown += 1;
                    for stream in streams {
                        self.own.set(stream, None);
                    }
                    self.connection.reset().await;
                }
            }
        }
        self.connection.close().await;
        Ok(())
    }

    async fn commit(&mut self, streams: &[u32]) -> Result<Vec<Fact>, Fault> {
        let connection = self.connection.get().await?;
        let mut events = Vec::new();
        for &stream in streams {
            let version = self.own.version(stream, &[], connection).await?;
            let count = if self.random.u8(..5) == 0 { self.random.i64(2..4) } else { 1 };
            events.extend((1..=count).map(|n| (stream, version + n)));
        }
        insert(connection, &events).await
    }
}

/// Transactions that are slow on purpose: they allocate positions, wait, undo a part or all of it, or commit in two phases.
pub(super) struct Slow {
    connection: Reconnecting,
    /// Ends what the first one has prepared.
    other: Reconnecting,
    own: OwnStreams,
    random: Rng,
    writer: u32,
    prepares: bool,
    transactions: u64,
}

impl Slow {
    pub(super) fn new(folder: &RunFolder, writer: u32, random: Rng, prepares: bool) -> Self {
        let (connection, other) = (Reconnecting::new(folder), Reconnecting::new(folder));
        Self { connection, other, own: OwnStreams::of(writer), random, writer, prepares, transactions: 0 }
    }

    pub(super) async fn write(mut self, shared: Arc<Shared>) -> Result<(), Fault> {
        while let Some(_running) = shared.begin().await {
            let mut facts = Vec::new();
            match self.transaction(&mut facts, &shared).await {
                Ok(true) => {
                    self.own.commit(&facts);
                    shared.acknowledge(&facts)?;
                }
                Ok(false) => shared.tally().rolled_back += 1,
                Err(_) => {
                    // A conflict, a killed backend or a crash: the outcome is unknown.
                    shared.tally().unknown += 1;
                    for fact in &facts {
                        self.own.set(fact.stream, None);
                    }
                    self.connection.reset().await;
                    self.other.reset().await;
                }
            }
        }
        self.connection.close().await;
        self.other.close().await;
        Ok(())
    }

    /// Puts what the transaction has added into `facts`. Returns whether it was committed.
    async fn transaction(&mut self, facts: &mut Vec<Fact>, shared: &Shared) -> Result<bool, Fault> {
        let connection = self.connection.get().await?;
        run(connection, "BEGIN").await?;
        for _ in 0..self.random.u8(1..5) {
            let savepoint = self.random.u8(..6);
            let before = facts.len();
            if savepoint < 2 {
                run(connection, "SAVEPOINT here").await?;
            }
            add_events(connection, &mut self.own, &mut self.random, self.prepares, facts).await?;
            match savepoint {
                0 => {
                    wait_at_random(&mut self.random).await;
                    run(connection, "ROLLBACK TO here").await?;
                    facts.truncate(before);
                    shared.tally().savepoints += 1;
                }
                1 => run(connection, "RELEASE here").await?,
                _ => {}
            }
            if self.random.u8(..3) == 0 {
                wait_at_random(&mut self.random).await;
            }
        }
        let commits = self.random.u8(..4) > 0;
        let end = if commits { "COMMIT" } else { "ROLLBACK" };
        if !self.prepares {
            run(connection, end).await?;
            return Ok(commits);
        }
        self.transactions += 1;
        let name = format!("torture-{}-{}", self.writer, self.transactions);
        run(connection, format!("PREPARE TRANSACTION '{name}'")).await?;
        shared.tally().prepared += 1;
        wait_at_random(&mut self.random).await;
        let ending = if self.random.bool() { self.other.get().await? } else { self.connection.get().await? };
        run(ending, format!("{end} PREPARED '{name}'")).await?;
        Ok(commits)
    }
}

/// Adds some events: to an own stream, or to one that others write to as well.
async fn add_events(
    connection: &mut PgConnection,
    own: &mut OwnStreams,
    random: &mut Rng,
    only_own: bool,
    facts: &mut Vec<Fact>,
) -> Result<(), Fault> {
    let stream = own.stream(random.u32(..));
    match random.u8(..6) {
        // A prepared transaction may stay for long, and others would wait for it.
        0 if !only_own => facts.push(append_one(connection, random.u32(HOT_STREAMS)).await?),
        0 | 1 => facts.push(append_one(connection, stream).await?),
        _ => {
            let version = own.version(stream, facts, connection).await?;
            let events: Vec<_> = (1..=random.i64(1..4)).map(|n| (stream, version + n)).collect();
            facts.extend(insert(connection, &events).await?);
        }
    }
    Ok(())
}

/// Inserts events of these streams with these versions, in one statement.
async fn insert(connection: &mut PgConnection, events: &[(u32, i64)]) -> Result<Vec<Fact>, Fault> {
    let ids: Vec<Uuid> = events.iter().map(|_| new_id()).collect();
    let streams = || events.iter().map(|(stream, _)| *stream);
    let names: Vec<&str> = ids.iter().map(|id| event_name(*id)).collect();
    let query = sqlx::query(INSERT)
        .bind(ids)
        .bind(streams().map(aggregate_type).collect::<Vec<_>>())
        .bind(streams().map(aggregate_id).collect::<Vec<_>>())
        .bind(events.iter().map(|(_, version)| *version).collect::<Vec<_>>())
        .bind(names)
        .bind(PAYLOAD)
        .bind(streams().map(correlation).collect::<Vec<_>>());
    query.fetch_all(connection).await?.iter().map(Fact::of_row).collect()
}

/// Appends an event to a stream by the stored function, expecting any version.
async fn append_one(connection: &mut PgConnection, stream: u32) -> Result<Fact, Fault> {
    let id = new_id();
    let query = sqlx::query(APPEND_ONE)
        .bind(aggregate_type(stream))
        .bind(aggregate_id(stream))
        .bind(id)
        .bind(event_name(id))
        .bind(PAYLOAD)
        .bind(correlation(stream));
    let row = query.fetch_one(connection).await?;
    match row.get(0) {
        "appended" => Fact::new(row.get(2), stream, row.get(1), id),
        other => Err(format!("`annals.append_one` returned `{other}` although it expected any version").into()),
    }
}
