//! The cases, one after the other; within a case the stores take turns, so that a noisy machine hits all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use annals_peers::{Answer, Fault, Order, Place, Setup};
use sqlx::{Connection, PgConnection};

use crate::Options;
use crate::cases::Case;
use crate::holds::hold;
use crate::peers::{Peer, peers};
use crate::place::{Engine, Room};
use crate::worker::Worker;

/// One figure of the table.
#[derive(Clone, Debug)]
pub enum Figure {
    /// What a store did per second, in each of its turns.
    Rates {
        rates: Vec<f64>,
        refused: u64,
    },
    /// What a reader missed of how many.
    Missed {
        missed: u64,
        repeated: u64,
        stored: u64,
    },
    /// The store has nothing of the kind.
    Lacking,
    Failed(String),
}

/// What the turns of a store gave, in units per second.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    pub slowest: f64,
    pub fastest: f64,
}

/// The figures of all stores.
pub type Figures = HashMap<(&'static str, Case), Figure>;

/// Runs what the options ask for.
pub async fn all(engine: Engine, options: &Options) -> Result<Figures, Fault> {
    let mut figures = Figures::new();
    let mut cases = options.cases.iter().copied().peekable();
    while let Some(case) = cases.next() {
        let mut group = vec![case];
        while let Some(next) = cases.next_if(|next| case.shares_its_log_with(*next)) {
            group.push(next);
        }
        run(engine, &group, options, &mut figures).await?;
    }
    Ok(figures)
}

async fn run(engine: Engine, cases: &[Case], options: &Options, figures: &mut Figures) -> Result<(), Fault> {
    let room = Room::new(engine).await?;
    let mut workers = Vec::new();
    for peer in peers(engine, &options.only) {
        eprintln!("{engine}, {}: {} is made ready", cases[0].name(), peer.name);
        match start(&room, peer, cases[0], options).await {
            Ok(worker) => workers.push(worker),
            Err(error) => {
                for case in cases {
                    figures.insert((peer.name, *case), Figure::Failed(error.to_string()));
                }
            }
        }
    }
    for case in cases {
        for worker in &mut workers {
            // The first turn of a store makes connections, statements and plans; what fails in it fails again below.
            if let Some(order) = case.warming(options) {
                let _warm = worker.follow(&order).await;
            }
        }
        for round in 0..case.rounds(options) {
            for worker in &mut workers {
                let key = (worker.peer.name, *case);
                if matches!(figures.get(&key), Some(Figure::Failed(_) | Figure::Lacking)) {
                    continue;
                }
                let answer = worker.follow(&case.order(options, round)).await;
                let figure = figure(answer);
                eprintln!("{engine}, {}, round {round}: {} {figure:?}", case.name(), worker.peer.name);
                match figures.entry(key) {
                    Entry::Occupied(mut entry) => entry.get_mut().add(figure),
                    Entry::Vacant(entry) => drop(entry.insert(figure)),
                }
            }
        }
    }
    Ok(())
}

async fn start(room: &Room, peer: Peer, case: Case, options: &Options) -> Result<Worker, Fault> {
    let setup = Setup { place: room.place(peer.name).await?, connections: case.connections() };
    let mut worker = Worker::start(peer, setup).await?;
    if let Some(filling) = case.filling(options) {
        if let Answer::Failed { why } = worker.follow(&filling).await? {
            return Err(why.into());
        }
        tidy(&worker.setup.place).await?;
    }
    if let Order::Race { .. } = case.order(options, 0) {
        hold(&worker.setup.place, &worker.table).await?;
    }
    Ok(worker)
}

/// Leaves nothing behind of filling that would be done during a turn.
async fn tidy(place: &Place) -> Result<(), Fault> {
    if let Place::Postgres(url) = place {
        let mut connection = PgConnection::connect(url).await?;
        for statement in ["VACUUM ANALYZE", "CHECKPOINT"] {
            sqlx::query(statement).execute(&mut connection).await?;
        }
        connection.close().await?;
    }
    Ok(())
}

fn figure(answer: Result<Answer, Fault>) -> Figure {
    match answer {
        Ok(Answer::Done { units, seconds, refused }) => Figure::Rates { rates: vec![units as f64 / seconds], refused },
        Ok(Answer::Raced { stored, missed, repeated }) => Figure::Missed { missed, repeated, stored },
        Ok(Answer::Lacking) => Figure::Lacking,
        Ok(Answer::Failed { why }) => Figure::Failed(why),
        Ok(Answer::Ready { .. }) => Figure::Failed("the process has answered out of turn".to_owned()),
        Err(error) => Figure::Failed(error.to_string()),
    }
}

impl Figure {
    /// Units per second: the median of the turns, the slowest and the fastest.
    pub fn per_second(&self) -> Option<Spread> {
        let Self::Rates { rates, .. } = self else { return None };
        let mut rates = rates.clone();
        rates.sort_by(f64::total_cmp);
        let (slowest, fastest) = (*rates.first()?, *rates.last()?);
        let median = f64::midpoint(rates[(rates.len() - 1) / 2], rates[rates.len() / 2]);
        Some(Spread { median, slowest, fastest })
    }

    fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Rates { rates, refused }, Self::Rates { rates: more, refused: also }) => {
                rates.extend(more);
                *refused += also;
            }
            (_, other) => *self = other,
        }
    }
}
