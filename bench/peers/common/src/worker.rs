//! A process in which one store works, by commands on its standard input.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use clap::Parser;
use serde::{Deserialize, Serialize};

use crate::peer::{Built, Fault, Peer, Setup, Totals};
use crate::race::race;
use crate::work::{self, Done};

/// One store, in one database.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// Which store.
    pub peer: String,
    /// Where, as JSON.
    #[arg(value_parser = |text: &str| serde_json::from_str::<Setup>(text))]
    pub setup: Setup,
}

/// A line that comes in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    Append { clients: usize, events: u64, seconds: f64 },
    Fill { streams: usize, length: usize, at_once: usize },
    Load { clients: usize, streams: usize, length: usize, seconds: f64 },
    Read { events: u64 },
    Project { round: usize, streams: u64, events: u64 },
    Race { writers: usize, seconds: f64 },
}

/// A line that goes out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The store is open; on PostgreSQL this is the table of its events.
    Ready {
        table: String,
    },
    Done {
        units: u64,
        seconds: f64,
        refused: u64,
    },
    Raced {
        stored: u64,
        missed: u64,
        repeated: u64,
    },
    /// The store has nothing of the kind.
    Lacking,
    Failed {
        why: String,
    },
}

/// Opens a store, then answers each line from the standard input with one to the standard output.
///
/// # Errors
/// If a line cannot be read. What fails in the store is an answer.
pub async fn serve<P: Peer>(setup: &Setup) -> Result<(), Fault> {
    let peer = match P::open(setup).await {
        Ok(peer) => Arc::new(peer),
        Err(error) => return say(&Answer::Failed { why: error.to_string() }),
    };
    say(&Answer::Ready { table: P::TABLE.to_owned() })?;
    let next = Arc::new(AtomicU64::new(1_000_000_000));
    for line in std::io::stdin().lines() {
        let answer = follow(&peer, &next, serde_json::from_str(&line?)?).await;
        say(&answer.unwrap_or_else(|error| Answer::Failed { why: error.to_string() }))?;
    }
    Ok(())
}

fn say(answer: &Answer) -> Result<(), Fault> {
    println!("{}", serde_json::to_string(answer)?);
    Ok(())
}

async fn follow<P: Peer>(peer: &Arc<P>, next: &Arc<AtomicU64>, order: Order) -> Result<Answer, Fault> {
    let start = Instant::now();
    let done = match order {
        Order::Append { clients, events, seconds } => {
            work::append(peer, next, clients, events, Duration::from_secs_f64(seconds)).await?
        }
        Order::Fill { streams, length, at_once } => work::fill(peer, streams, length, at_once).await?,
        Order::Load { clients, streams, length, seconds } => {
            work::load(peer, clients, streams, length, Duration::from_secs_f64(seconds)).await?
        }
        Order::Read { events } => {
            let units = peer.read().await?;
            if units != events {
                return Err(format!("{units} events were read of {events}").into());
            }
            Done { units, time: start.elapsed(), refused: 0 }
        }
        Order::Project { round, streams, events } => {
            let Some(Built { totals, time }) = peer.project(round, events).await? else {
                return Ok(Answer::Lacking);
            };
            if totals != (Totals { rows: streams, events }) {
                return Err(format!("the read model of {events} events in {streams} streams is {totals:?}").into());
            }
            Done { units: events, time, refused: 0 }
        }
        Order::Race { writers, seconds } => {
            let raced = race(peer, next, writers, Duration::from_secs_f64(seconds)).await?;
            return Ok(raced.map_or(Answer::Lacking, |raced| Answer::Raced {
                stored: raced.stored,
                missed: raced.missed,
                repeated: raced.repeated,
            }));
        }
    };
    Ok(Answer::Done { units: done.units, seconds: done.time.as_secs_f64(), refused: done.refused })
}
