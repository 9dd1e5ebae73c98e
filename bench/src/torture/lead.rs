//! The process that leads a run: starts the others, crashes the server, ends everything in order, and judges.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals::{Append, EventStore, ExpectedVersion, PostgresOptions, PostgresStore};
use fastrand::Rng;
use futures::TryStreamExt;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::report::peak_resident_mb;
use crate::torture::Fault;
use crate::torture::board::Board;
use crate::torture::crash::Cluster;
use crate::torture::fact::{Fact, LAST_STREAM, id_of_third, new_event, stream_id};
use crate::torture::judge::{Delivery, Judge};
use crate::torture::options::{Options, Reader};
use crate::torture::part::{Part, Progress, ReaderPlan, Way, Word, told};
use crate::torture::place::{PATIENCE, Place, run};
use crate::torture::process::Process;
use crate::torture::readers::judged;
use crate::torture::readers::watch::{Ages, Waits, look_at_writers, read};
use crate::torture::record::Facts;
use crate::torture::report::{Read, Report};
use crate::torture::trouble;

/// Who writes most waits while the slowest reader is this many positions behind: a reader that is far behind meets no
/// numbers that may still come.
const FAR_BEHIND: u64 = 30_000;

/// How long readers may stand still at the end before they are given up.
const STILL: Duration = Duration::from_secs(60);

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
    run(&mut place.connect("leader").await?, "CREATE TABLE unrelated (n int)").await?;
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
    let cluster = lead.cluster;
    tokio::task::spawn_blocking(move || drop(cluster)).await?;
    report
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
        let mut readers = self.start_readers(&plans, &ended);
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
                Ok(ended) => Some(ended??),
                Err(_) => return Err("the reader that measures stands still".into()),
            },
            None => None,
        };
        self.judge(&plans, worked, waits).await
    }

    /// Two processes of readers; the second is killed every now and then.
    fn start_readers(&self, plans: &[ReaderPlan], ending: &watch::Receiver<bool>) -> JoinSet<Result<(), Fault>> {
        let mut hosts = JoinSet::new();
        for host in 0..2 {
            let readers: Vec<ReaderPlan> =
                plans.iter().copied().filter(|p| p.way != Way::Watch && p.number % 2 == host).collect();
            if !readers.is_empty() {
                let folder = self.place.folder().to_owned();
                let seed = self.seed.wrapping_add(1_000 + host as u64);
                let (board, killed) = (Arc::clone(&self.board), Arc::clone(&self.killed_readers));
                let ending = ending.clone();
                hosts.spawn(async move {
                    let part = |life: u64| Part::Readers {
                        folder: folder.clone(),
                        seed: seed.wrapping_add(life.wrapping_mul(1_000)),
                        readers: readers.clone(),
                    };
                    host_readers(part, board, (host == 1).then_some(killed), seed, ending).await
                });
            }
        }
        hosts
    }

    fn start_watching(&self, plans: &[ReaderPlan]) -> Option<JoinHandle<Result<Waits, Fault>>> {
        let reader = plans.iter().find(|plan| plan.way == Way::Watch)?.number;
        let (place, board, ages) = (self.place.clone(), Arc::clone(&self.board), Ages::default());
        Some(tokio::spawn(async move {
            let tell = |position, _: &Waits| {
                board.read(Progress { reader, position, resumed: 1, ..Progress::default() });
            };
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
            let enough = self.options.appends.is_some_and(|appends| self.board.tally().appends >= appends)
                || self.options.time().is_some_and(|time| self.began.elapsed() >= time);
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
            sleep(Duration::from_millis(self.random.u64(500..1_500))).await;
            let _peace = self.make_peace().await;
            self.cluster.promote(standby, &self.store).await
        } else if n.is_multiple_of(2) {
            let _peace = self.make_peace().await;
            for process in &mut self.writers {
                process.hush().await?;
            }
            self.cluster.crash(&self.store, true).await?;
            self.tell_writers(Word::Go).await
        } else {
            self.cluster.crash(&self.store, false).await
        }
    }

    async fn make_peace(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.peace).write_owned().await
    }

    async fn tell_writers(&self, word: Word) -> Result<(), Fault> {
        for process in &self.writers {
            process.say(word).await?;
        }
        Ok(())
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
        while trouble::end_prepared(&mut connection, &mut self.random, Duration::ZERO).await? > 0 {}
        let event = new_event(LAST_STREAM, id_of_third())?;
        let append = Append::to(stream_id(LAST_STREAM)?, ExpectedVersion::Any, vec![event]);
        let begun = Instant::now();
        while let Err(error) = self.store.append_many(append.clone()).await {
            if begun.elapsed() > PATIENCE {
                return Err(error.into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
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
        let mut lost = 0;
        for process in 0..self.options.processes {
            lost += judge.lost(Facts::all(&self.place.acknowledged(process as usize))?)?;
        }
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
            reads,
            resumed,
            on_standby,
            killed_backends: self.killed.load(Ordering::Relaxed),
            killed_readers: self.killed_readers.load(Ordering::Relaxed),
            crashes: self.cluster.crashes.clone(),
            longest_wait: waits.map(|waits| waits.longest),
            most_over_writer: waits.and_then(|waits| waits.most_over),
            peak_resident_mb: peak_resident_mb(),
            failures: self.board.failures(),
        })
    }
}

/// One process of readers, started again whenever it was killed.
async fn host_readers(
    part: impl Fn(u64) -> Part,
    board: Arc<Board>,
    kills: Option<Arc<AtomicU64>>,
    seed: u64,
    mut ending: watch::Receiver<bool>,
) -> Result<(), Fault> {
    let mut random = Rng::with_seed(seed);
    for life in 0.. {
        let mut process = Process::start(&part(life), 0, &board)?;
        let spared = kills.is_none() || *ending.borrow();
        let killed = tokio::select! {
            ended = process.ended() => {
                if !ended? {
                    board.failed("a process of readers has failed".to_owned());
                }
                return Ok(());
            }
            _ = sleep(Duration::from_millis(random.u64(500..4_000))), if !spared => true,
            _ = ending.wait_for(|ending| *ending), if !spared => false,
        };
        if killed && let Some(kills) = &kills {
            process.kill().await?;
            kills.fetch_add(1, Ordering::Relaxed);
        } else {
            // At the end it may come to its own.
            if !process.ended().await? {
                board.failed("a process of readers has failed".to_owned());
            }
            return Ok(());
        }
    }
    Ok(())
}

/// Holds writers back while readers are far behind, and says every ten seconds how things stand.
async fn pulse(board: Arc<Board>, writers: Vec<mpsc::Sender<Word>>, began: Instant) {
    let (mut slow, mut told, mut appends) = (false, Instant::now(), 0);
    loop {
        sleep(Duration::from_millis(50)).await;
        let tally = board.tally();
        let slowest = board.slowest();
        let behind = tally.head.saturating_sub(slowest.position);
        if slow != (behind > FAR_BEHIND) {
            slow = !slow;
            for writer in &writers {
                writer.send(if slow { Word::Slow } else { Word::Fast }).await.ok();
            }
        }
        if told.elapsed() >= Duration::from_secs(10) {
            let rate = (tally.appends - appends) as f64 / told.elapsed().as_secs_f64();
            eprintln!(
                "torture: {:>5.0} s  {:>9} appends  {rate:>6.0}/s  position {:>9}  reader {} {behind} behind",
                began.elapsed().as_secs_f64(),
                tally.appends,
                tally.head,
                slowest.reader,
            );
            (told, appends) = (Instant::now(), tally.appends);
        }
    }
}
