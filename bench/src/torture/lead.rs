//! The process that leads a run: starts the others, crashes the server, ends everything in order, and judges.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals::{PostgresOptions, PostgresStore};
use fastrand::Rng;
use futures::TryStreamExt;
use sqlx::Row;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::report::peak_resident_mb;
use crate::torture::Fault;
use crate::torture::board::Board;
use crate::torture::crash::{Cluster, Crashes, How};
use crate::torture::draws::{Draws, append};
use crate::torture::fact::{Fact, LAST_STREAM, id_of_third, tail};
use crate::torture::hosts;
use crate::torture::judge::{Delivery, Judge};
use crate::torture::options::{Options, Reader};
use crate::torture::part::{Part, Progress, ReaderPlan, Way, Word, told};
use crate::torture::place::{PATIENCE, Place, run};
use crate::torture::process::Process;
use crate::torture::pulse::pulse;
use crate::torture::readers::judged;
use crate::torture::readers::waits::{Ages, Waits, look_at_writers};
use crate::torture::readers::watch::read;
use crate::torture::record::Facts;
use crate::torture::report::{Read, Report};
use crate::torture::trouble;

/// How long readers may stand still at the end before they are given up.
const STILL: Duration = Duration::from_secs(60);

/// Crashes without a promotion, in turns, and whether all writers are silent in them.
const CRASHES: [(How, bool); 4] =
    [(How::Stop, false), (How::Stop, true), (How::KilledBackend, false), (How::KilledBackend, true)];

/// One for the transaction that stays open, one for what units of work write beside their events.
const TABLES: &str = "CREATE TABLE unrelated (n int); CREATE TABLE beside (event_id uuid)";

const BESIDE: &str = "
    SELECT event_id
    FROM beside
    ORDER BY event_id
";

const LOG: &str = "
    SELECT position, aggregate_id, version, event_id
    FROM annals.events
    ORDER BY position
";

/// Makes the run and judges it.
pub(crate) async fn lead(options: &Options) -> Result<Report, Fault> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("torture: --seed {seed}");
    let folder = tempfile::tempdir()?;
    let place = Place::new(folder.path());
    let cluster = Cluster::start(&place).await?;
    let store = PostgresOptions::new(place.url()).migrate().connections(2).open().await?;
    run(&mut place.connect("leader").await?, TABLES).await?;
    let mut lead = Lead {
        options,
        seed,
        random: Rng::with_seed(seed),
        place,
        cluster,
        store,
        board: Arc::default(),
        peace: Arc::default(),
        killed: Arc::default(),
        killed_readers: Arc::default(),
        writers: Vec::new(),
        began: Instant::now(),
    };
    let report = lead.run().await;
    let failures = lead.board.failures();
    let cluster = lead.cluster;
    tokio::task::spawn_blocking(move || drop(cluster)).await?;
    // Most likely the run could not go on because another process could not.
    report.map_err(|error| format!("{} {failures:?}", told(&*error)).into())
}

struct Lead<'o> {
    options: &'o Options,
    seed: u64,
    random: Rng,
    place: Place,
    cluster: Cluster,
    store: PostgresStore,
    board: Arc<Board>,
    /// Held for writing while no backend may be killed.
    peace: Arc<RwLock<()>>,
    killed: Arc<AtomicU64>,
    killed_readers: Arc<AtomicU64>,
    writers: Vec<Process>,
    began: Instant,
}

impl Lead<'_> {
    async fn run(&mut self) -> Result<Report, Fault> {
        let (ending, ended) = watch::channel(false);
        let plans = self.options.plan();
        let mut readers = hosts::start(&self.place, &plans, self.seed, &self.board, &self.killed_readers, &ended);
        let watching = self.start_watching(&plans);
        self.start_writers()?;
        let mut troubles = self.start_troubles();
        let pulse =
            tokio::spawn(pulse(Arc::clone(&self.board), self.writers.iter().map(Process::words).collect(), self.began));

        self.work(&mut troubles).await?;
        let worked = self.began.elapsed();
        ending.send_replace(true);
        self.end_writers().await?;
        drop(troubles);
        self.append_last_event().await?;
        self.end_readers(&mut readers).await?;
        pulse.abort();
        let waits = match watching {
            Some(watching) => match timeout(STILL, watching).await {
                // If it has failed, the board says why.
                Ok(ended) => ended?.ok(),
                Err(_) => {
                    self.board.failed("the reader that measures stands still".to_owned());
                    None
                }
            },
            None => None,
        };
        self.judge(&plans, worked, waits).await
    }

    fn start_watching(&self, plans: &[ReaderPlan]) -> Option<JoinHandle<Result<Waits, Fault>>> {
        let reader = plans.iter().find(|plan| plan.way == Way::Watch)?.number;
        let (place, board, ages) = (self.place.clone(), Arc::clone(&self.board), Ages::default());
        Some(tokio::spawn(async move {
            let tell = |position| board.read(Progress { reader, position, resumed: 1, ..Progress::default() });
            let done = tokio::select! {
                done = read(place.clone(), reader, ages.clone(), tell) => done,
                failed = look_at_writers(place, ages) => failed.map(|()| Waits::default()),
            };
            if let Err(error) = &done {
                board.failed(format!("the reader that measures: {}", told(&**error)));
            }
            done
        }))
    }

    fn start_writers(&mut self) -> Result<(), Fault> {
        for process in 0..self.options.processes {
            let part = Part::Writers {
                folder: self.place.folder().to_owned(),
                process: process as usize,
                seed: self.seed,
                writers: self.options.writers_of(process),
            };
            self.writers.push(Process::start(&part, process as usize, &self.board)?);
        }
        Ok(())
    }

    fn start_troubles(&mut self) -> JoinSet<Result<(), Fault>> {
        let mut troubles = JoinSet::new();
        let (peace, killed) = (Arc::clone(&self.peace), Arc::clone(&self.killed));
        troubles.spawn(trouble::kill(self.place.clone(), self.random.fork(), peace, killed));
        troubles.spawn(trouble::sweep(self.place.clone(), self.random.fork()));
        troubles.spawn(trouble::stay_open(self.place.clone()));
        troubles
    }

    /// Lets everybody work until it is enough, and crashes the server meanwhile.
    async fn work(&mut self, troubles: &mut JoinSet<Result<(), Fault>>) -> Result<(), Fault> {
        let mut crashes = 0;
        let mut next_crash = self.options.crash_every().map(|every| self.began + every);
        loop {
            tokio::select! {
                _ = sleep(Duration::from_millis(50)) => {}
                ended = troubles.join_next() => {
                    ended.transpose()?.transpose()?;
                    return Err("a trouble has ended by itself".into());
                }
            }
            let enough = crashes >= self.options.crashes
                && (self.options.appends.is_some_and(|appends| self.board.tally().appends >= appends)
                    || self.options.time().is_some_and(|time| self.began.elapsed() >= time));
            if enough || !self.board.failures().is_empty() {
                return Ok(());
            }
            if next_crash.is_some_and(|at| Instant::now() >= at) {
                crashes += 1;
                self.crash(crashes).await?;
                next_crash = self.options.crash_every().map(|every| Instant::now() + every);
            }
        }
    }

    /// The `n`-th crash: in the middle of work, in silence, or with a standby that takes over.
    async fn crash(&mut self, n: u32) -> Result<(), Fault> {
        if self.options.promote_every > 0 && n.is_multiple_of(self.options.promote_every) {
            let standby = self.cluster.attach_standby().await?;
            self.readers_on_standby().await;
            sleep(Duration::from_millis(self.random.u64(500..2_000))).await;
            let _peace = self.make_peace().await;
            self.cluster.promote(standby, &self.store).await
        } else {
            let (how, hushed) = CRASHES[self.cluster.crashes.plain() % CRASHES.len()];
            let _peace = self.make_peace().await;
            if hushed {
                for process in &mut self.writers {
                    process.hush().await?;
                }
            }
            let mut draws = Draws::make(&self.place, &self.store).await?;
            let begun = self.cluster.go_down(how, &mut draws).await?;
            if hushed {
                // Now, so that they come back together with the readers.
                for process in &self.writers {
                    process.say(Word::Go).await?;
                }
            }
            self.cluster.come_up(how, draws, begun, &self.store).await
        }
    }

    /// Waits until readers have come to the standby that there is now, or have had time enough.
    async fn readers_on_standby(&self) {
        let (_, before) = self.board.resumed();
        let come = async {
            while self.board.resumed().1 == before {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(10), come).await.ok();
    }

    async fn make_peace(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.peace).write_owned().await
    }

    async fn end_writers(&mut self) -> Result<(), Fault> {
        for process in &self.writers {
            // Whoever has ended too early has said why.
            process.say(Word::End).await.ok();
        }
        for mut process in self.writers.drain(..) {
            match timeout(PATIENCE, process.ended()).await {
                Ok(ended) => {
                    if !ended? {
                        self.board.failed("a process of writers has failed".to_owned());
                    }
                }
                Err(_) => return Err("writers do not come to an end".into()),
            }
        }
        Ok(())
    }

    /// Ends what is left, and appends the event that every reader waits for.
    async fn append_last_event(&mut self) -> Result<(), Fault> {
        let mut connection = self.place.connect("leader").await?;
        let begun = Instant::now();
        loop {
            match trouble::end_prepared(&mut connection, &mut self.random, Duration::ZERO).await {
                Ok(0) => break,
                Ok(_) => {}
                // Somebody else may just be ending it.
                Err(_) if begun.elapsed() < PATIENCE => sleep(Duration::from_millis(20)).await,
                Err(error) => return Err(error.into()),
            }
        }
        append(&self.store, LAST_STREAM, id_of_third()).await
    }

    /// Waits for the readers, as long as any of them goes on.
    async fn end_readers(&self, readers: &mut JoinSet<Result<(), Fault>>) -> Result<(), Fault> {
        let mut read = 0;
        loop {
            match timeout(STILL, readers.join_next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(ended)) => ended??,
                Err(_) if self.board.read_in_all() > read => read = self.board.read_in_all(),
                Err(_) => {
                    let Progress { reader, position, .. } = self.board.slowest();
                    self.board.failed(format!("readers stand still; reader {reader} at {position}"));
                    // Their processes are killed with their tasks.
                    readers.shutdown().await;
                    return Ok(());
                }
            }
        }
    }

    async fn judge(&self, plans: &[ReaderPlan], worked: Duration, waits: Option<Waits>) -> Result<Report, Fault> {
        eprintln!("torture: {:.0} s of work, judging", worked.as_secs_f64());
        let mut judge = Judge::default();
        let mut connection = self.place.connect("leader").await?;
        let mut log = sqlx::query(LOG).fetch(&mut connection);
        while let Some(row) = log.try_next().await? {
            judge.learn(&Fact::of_row(&row)?);
        }
        let again = self.cluster.drawn.iter().filter(|number| judge.has(**number)).count() as u64;
        let crashes = Crashes { numbers_again: again, ..self.cluster.crashes.clone() };
        let mut lost = 0;
        for process in 0..self.options.processes {
            lost += judge.lost(Facts::all(&self.place.acknowledged(process as usize))?)?;
        }
        let rows = sqlx::query(BESIDE).fetch_all(&mut self.place.connect("leader").await?).await?;
        let torn = judge.torn(rows.iter().map(|row| tail(row.get(0))).collect());
        let mut reads = Vec::new();
        for plan in plans {
            let delivery = judge.delivery(plan.wanted, judged(&self.place, plan.number)?)?;
            reads.push(Read { way: format!("{:?}", plan.way), wanted: format!("{:?}", plan.wanted), delivery });
        }
        let (resumed, on_standby) = self.board.resumed();
        Ok(Report {
            case: "torture",
            store: "postgres",
            reader: if self.options.reader == Reader::Naive { "naive" } else { "ours" },
            seed: self.seed,
            writers: self.options.writers,
            processes: self.options.processes,
            seconds: worked.as_secs_f64(),
            appends_per_second: self.board.tally().appends as f64 / worked.as_secs_f64(),
            tally: self.board.tally(),
            log: judge.log(),
            delivered: reads.iter().fold(Delivery::default(), |sum, read| sum.plus(read.delivery)),
            lost,
            torn,
            reads,
            resumed,
            on_standby,
            killed_backends: self.killed.load(Ordering::Relaxed),
            killed_readers: self.killed_readers.load(Ordering::Relaxed),
            crashes,
            waits: waits.map(Waits::report),
            peak_resident_mb: peak_resident_mb(),
            failures: self.board.failures(),
        })
    }
}
