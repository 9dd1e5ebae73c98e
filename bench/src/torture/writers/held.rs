//! Transactions that are slow on purpose: they draw numbers, wait, undo a part or all of it, or commit in two phases.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use sqlx::PgConnection;
use tokio::time::sleep;

use crate::torture::Fault;
use crate::torture::fact::{Fact, HOT_STREAMS};
use crate::torture::place::{Link, Place, run};
use crate::torture::writers::desk::Desk;
use crate::torture::writers::insert::{append_one, insert};
use crate::torture::writers::own::Own;

pub(super) struct Held {
    link: Link,
    /// Ends what the first one has prepared.
    other: Link,
    own: Own,
    random: Rng,
    writer: u32,
    prepares: bool,
    transactions: u64,
}

impl Held {
    pub(super) fn new(place: &Place, writer: u32, random: Rng, prepares: bool) -> Self {
        let (link, other) = (Link::new(place), Link::new(place));
        Self { link, other, own: Own::of(writer), random, writer, prepares, transactions: 0 }
    }

    pub(super) async fn write(mut self, desk: Arc<Desk>) -> Result<(), Fault> {
        while let Some(_at_work) = desk.enter().await {
            let mut facts = Vec::new();
            match self.transaction(&mut facts, &desk).await {
                Ok(true) => {
                    for fact in &facts {
                        self.own.set(fact.stream, Some(fact.version.into()));
                    }
                    desk.acknowledge(&facts)?;
                }
                Ok(false) => desk.count().rolled_back += 1,
                Err(_) => {
                    // A rival, a killed backend, a crash: it may have happened or not.
                    desk.count().unknown += 1;
                    for fact in &facts {
                        self.own.set(fact.stream, None);
                    }
                    self.link.mend().await;
                    self.other.mend().await;
                }
            }
        }
        self.link.close().await;
        self.other.close().await;
        Ok(())
    }

    /// Puts into `facts` what the transaction has added, and tells whether it was committed.
    async fn transaction(&mut self, facts: &mut Vec<Fact>, desk: &Desk) -> Result<bool, Fault> {
        let connection = self.link.get().await?;
        run(connection, "BEGIN").await?;
        for _ in 0..self.random.u8(1..5) {
            match self.random.u8(..6) {
                0 => {
                    let before = facts.len();
                    run(connection, "SAVEPOINT here").await?;
                    draw(connection, &mut self.own, &mut self.random, self.prepares, facts).await?;
                    hold(&mut self.random).await;
                    run(connection, "ROLLBACK TO here").await?;
                    facts.truncate(before);
                    desk.count().savepoints += 1;
                }
                1 => {
                    run(connection, "SAVEPOINT here").await?;
                    draw(connection, &mut self.own, &mut self.random, self.prepares, facts).await?;
                    run(connection, "RELEASE here").await?;
                }
                _ => draw(connection, &mut self.own, &mut self.random, self.prepares, facts).await?,
            }
            if self.random.u8(..3) == 0 {
                hold(&mut self.random).await;
            }
        }
        let stays = self.random.u8(..4) > 0;
        if !self.prepares {
            run(connection, if stays { "COMMIT" } else { "ROLLBACK" }).await?;
            return Ok(stays);
        }
        self.transactions += 1;
        let name = format!("torture-{}-{}", self.writer, self.transactions);
        run(connection, format!("PREPARE TRANSACTION '{name}'")).await?;
        desk.count().prepared += 1;
        hold(&mut self.random).await;
        let ends = if self.random.bool() { self.other.get().await? } else { self.link.get().await? };
        run(ends, format!("{} PREPARED '{name}'", if stays { "COMMIT" } else { "ROLLBACK" })).await?;
        Ok(stays)
    }
}

/// Adds some events: to a stream of one's own, or to one that others write to as well.
async fn draw(
    connection: &mut PgConnection,
    own: &mut Own,
    random: &mut Rng,
    alone: bool,
    facts: &mut Vec<Fact>,
) -> Result<(), Fault> {
    let stream = own.stream(random.u32(..));
    match random.u8(..6) {
        // What is prepared may stay for long, and others would wait for it.
        0 if !alone => facts.push(append_one(connection, random.u32(HOT_STREAMS)).await?),
        0 | 1 => facts.push(append_one(connection, stream).await?),
        _ => {
            // What this transaction has added itself comes before what is known to be committed.
            let mine = facts.iter().rev().find(|fact| fact.stream == stream).map(|fact| i64::from(fact.version));
            let version = match mine {
                Some(version) => version,
                None => own.version(stream, connection).await?,
            };
            let events: Vec<_> = (1..=random.i64(1..4)).map(|n| (stream, version + n)).collect();
            facts.extend(insert(connection, &events).await?);
        }
    }
    Ok(())
}

/// Mostly a moment, sometimes long.
pub(super) async fn hold(random: &mut Rng) {
    let most = match random.u8(..100) {
        0 => 400.0,
        1..10 => 50.0,
        _ => 4.0,
    };
    sleep(Duration::from_secs_f64(random.f64() * most / 1_000.0)).await;
}
