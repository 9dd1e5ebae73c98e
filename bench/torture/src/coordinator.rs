//! The process that controls a run: starts the other processes, crashes the server, ends everything in order, and checks
//! the result.

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

use crate::check::{Checker, Delivery};
use crate::crash::{Cluster, CrashKind, CrashSetup, Crashes, append};
use crate::fact::{Fact, LAST_STREAM, new_id_of_third, tail};
use crate::progress::{self, Progress, ReaderProgress};
use crate::protocol::{Instruction, Method, Part, Process, ReaderPlan, error_chain};
use crate::readers::delivered_facts;
use crate::readers::waits::{Waits, measure};
use crate::record::Facts;
use crate::report::{Read, Report, peak_resident_mb};
use crate::run_folder::{RunFolder, TIMEOUT, run as execute};
use crate::{Fault, Options, Reader, disturbances};

/// How long readers may make no progress at the end before the run is given up.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// The kinds of crashes without a promotion, in rotation, and whether writers are paused meanwhile.
const CRASHES: [(CrashKind, bool); 4] = [
    (CrashKind::Stop, false),
    (CrashKind::Stop, true),
    (CrashKind::KilledBackend, false),
    (CrashKind::KilledBackend, true),
];

/// One for the transaction that stays open, one for the rows that units of work write beside their events.
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

/// Makes the run and checks it.
pub(crate) async fn run(options: &Options) -> Result<Report, Fault> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("torture: --seed {seed}");
    let directory = tempfile::tempdir()?;
    let folder = RunFolder::new(directory.path());
    let cluster = Cluster::start(&folder).await?;
    let store = PostgresOptions::new(folder.url()).migrate().connections(2).open().await?;
    execute(&mut folder.connect().await?, TABLES).await?;
    let mut coordinator = Coordinator {
        options,
        seed,
        random: Rng::with_seed(seed),
        folder,
        cluster,
        store,
        progress: Arc::default(),
        no_kills: Arc::default(),
        killed_backends: Arc::default(),
        killed_readers: Arc::default(),
        writers: Vec::new(),
        began: Instant::now(),
    };
    let report = coordinator.run().await;
    let failures = coordinator.progress.failures();
    let cluster = coordinator.cluster;
    tokio::task::spawn_blocking(move || drop(cluster)).await?;
    // The failure of another process is the likely cause.
    report.map_err(|error| format!("{} {failures:?}", error_chain(&*error)).into())
}

struct Coordinator<'o> {
    options: &'o Options,
    seed: u64,
    random: Rng,
    folder: RunFolder,
    cluster: Cluster,
    store: PostgresStore,
    progress: Arc<Progress>,
    /// Held for writing while no backend may be killed.
    no_kills: Arc<RwLock<()>>,
    killed_backends: Arc<AtomicU64>,
    killed_readers: Arc<AtomicU64>,
    writers: Vec<Process>,
    began: Instant,
}

impl Coordinator<'_> {
    async fn run(&mut self) -> Result<Report, Fault> {
        let (ending, ended) = watch::channel(false);
        let plans = self.options.reader_plans();
        let mut readers = self.start_readers(&plans, &ended);
        let measuring = self.start_measuring(&plans);
        self.start_writers()?;
        let mut disturbances = self.start_disturbances();
        let instructions = self.writers.iter().map(Process::instructions).collect();
        let watching = tokio::spawn(progress::watch(Arc::clone(&self.progress), instructions, self.began));

        self.crash_until_enough(&mut disturbances).await?;
        let worked = self.began.elapsed();
        ending.send_replace(true);
        self.end_writers().await?;
        drop(disturbances);
        self.append_last_event().await?;
        self.end_readers(&mut readers).await?;
        watching.abort();
        let waits = match measuring {
            Some(measuring) => match timeout(STALLED_AFTER, measuring).await {
                // Its failure is already in `progress`.
                Ok(ended) => ended?.ok(),
                Err(_) => {
                    self.progress.add_failure("the measuring reader makes no progress");
                    None
                }
            },
            None => None,
        };
        self.check(&plans, worked, waits).await
    }

    /// Starts two processes of readers, one of which is killed again and again. The tasks end when all readers have got the
    /// last event of the run; dropping the tasks kills the processes.
    fn start_readers(&self, plans: &[ReaderPlan], ending: &watch::Receiver<bool>) -> JoinSet<Result<(), Fault>> {
        let mut processes = JoinSet::new();
        for process in 0..2 {
            let of_process = |plan: &ReaderPlan| plan.method != Method::Measure && plan.number % 2 == process;
            let readers: Vec<ReaderPlan> = plans.iter().copied().filter(of_process).collect();
            if readers.is_empty() {
                continue;
            }
            let folder = self.folder.path().to_owned();
            let seed = self.seed.wrapping_add(1_000 + process as u64);
            let part = move |start: u64| Part::Readers {
                folder: folder.clone(),
                seed: seed.wrapping_add(start.wrapping_mul(1_000)),
                readers: readers.clone(),
            };
            let kills = (process == 1).then(|| Arc::clone(&self.killed_readers));
            let progress = Arc::clone(&self.progress);
            processes.spawn(supervise_readers(part, progress, kills, Rng::with_seed(seed), ending.clone()));
        }
        processes
    }

    fn start_measuring(&self, plans: &[ReaderPlan]) -> Option<JoinHandle<Result<Waits, Fault>>> {
        let reader = plans.iter().find(|plan| plan.method == Method::Measure)?.number;
        let (folder, progress) = (self.folder.clone(), Arc::clone(&self.progress));
        Some(tokio::spawn(async move {
            let report = |position| progress.set_reader(ReaderProgress { reader, position, resumed: 1, on_standby: 0 });
            let done = measure(&folder, reader, report).await;
            if let Err(error) = &done {
                progress.add_failure(format!("the measuring reader: {}", error_chain(&**error)));
            }
            done
        }))
    }

    fn start_writers(&mut self) -> Result<(), Fault> {
        for process in 0..self.options.processes {
            let part = Part::Writers {
                folder: self.folder.path().to_owned(),
                process: process as usize,
                seed: self.seed,
                writers: self.options.writers_of(process),
            };
            self.writers.push(Process::start(&part, process as usize, &self.progress)?);
        }
        Ok(())
    }

    fn start_disturbances(&mut self) -> JoinSet<Result<(), Fault>> {
        let mut tasks = JoinSet::new();
        let (no_kills, killed) = (Arc::clone(&self.no_kills), Arc::clone(&self.killed_backends));
        tasks.spawn(disturbances::kill_backends(self.folder.clone(), self.random.fork(), no_kills, killed));
        tasks.spawn(disturbances::end_abandoned(self.folder.clone(), self.random.fork()));
        tasks.spawn(disturbances::stay_open(self.folder.clone()));
        tasks
    }

    /// Lets writers and readers work until the limits of the options, and crashes the server meanwhile.
    async fn crash_until_enough(&mut self, disturbances: &mut JoinSet<Result<(), Fault>>) -> Result<(), Fault> {
        let mut crashes = 0;
        let mut next_crash = self.options.crash_every().map(|every| self.began + every);
        loop {
            tokio::select! {
                _ = sleep(Duration::from_millis(50)) => {}
                ended = disturbances.join_next() => {
                    ended.transpose()?.transpose()?;
                    return Err("a disturbance has ended by itself".into());
                }
            }
            let enough = crashes >= self.options.crashes
                && (self.options.appends.is_some_and(|appends| self.progress.tally().appends >= appends)
                    || self.options.time().is_some_and(|time| self.began.elapsed() >= time));
            if enough || !self.progress.failures().is_empty() {
                return Ok(());
            }
            if next_crash.is_some_and(|at| Instant::now() >= at) {
                crashes += 1;
                self.crash(crashes).await?;
                next_crash = self.options.crash_every().map(|every| Instant::now() + every);
            }
        }
    }

    /// The `n`-th crash: under load, with paused writers, or with the promotion of a standby.
    async fn crash(&mut self, n: u32) -> Result<(), Fault> {
        if self.options.promote_every > 0 && n.is_multiple_of(self.options.promote_every) {
            let standby = self.cluster.attach_standby().await?;
            self.wait_for_readers_on_standby().await;
            sleep(Duration::from_millis(self.random.u64(500..2_000))).await;
            let _no_kills = self.stop_kills().await;
            self.cluster.promote(standby, &self.store).await
        } else {
            let (kind, paused) = CRASHES[self.cluster.crashes.without_promotion() % CRASHES.len()];
            let _no_kills = self.stop_kills().await;
            if paused {
                for process in &mut self.writers {
                    process.pause().await?;
                }
            }
            let mut setup = CrashSetup::make(&self.folder, &self.store).await?;
            let begun = self.cluster.crash(kind, &mut setup).await?;
            if paused {
                // Now, so that writers and readers reconnect at the same time.
                for process in &self.writers {
                    process.instruct(Instruction::Resume).await?;
                }
            }
            self.cluster.recover(kind, setup, begun, &self.store).await
        }
    }

    /// Waits until a reader uses the standby, ten seconds at most.
    async fn wait_for_readers_on_standby(&self) {
        let (_, before) = self.progress.resumed();
        let first = async {
            while self.progress.resumed().1 == before {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(10), first).await.ok();
    }

    async fn stop_kills(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.no_kills).write_owned().await
    }

    async fn end_writers(&mut self) -> Result<(), Fault> {
        for process in &self.writers {
            // A process that has ended too early has sent the reason.
            process.instruct(Instruction::End).await.ok();
        }
        for mut process in self.writers.drain(..) {
            match timeout(TIMEOUT, process.ended()).await {
                Ok(ended) => {
                    if !ended? {
                        self.progress.add_failure("a process of writers has failed");
                    }
                }
                Err(_) => return Err("writers do not end".into()),
            }
        }
        Ok(())
    }

    /// Ends prepared transactions, and appends the event that every reader waits for.
    async fn append_last_event(&mut self) -> Result<(), Fault> {
        let mut connection = self.folder.connect().await?;
        let begun = Instant::now();
        loop {
            match disturbances::end_prepared(&mut connection, &mut self.random, Duration::ZERO).await {
                Ok(0) => break,
                Ok(_) => {}
                // Another session may be ending it.
                Err(_) if begun.elapsed() < TIMEOUT => sleep(Duration::from_millis(20)).await,
                Err(error) => return Err(error.into()),
            }
        }
        append(&self.store, LAST_STREAM, new_id_of_third()).await
    }

    /// Waits for the readers, as long as one of them makes progress.
    async fn end_readers(&self, readers: &mut JoinSet<Result<(), Fault>>) -> Result<(), Fault> {
        let mut before = 0;
        loop {
            match timeout(STALLED_AFTER, readers.join_next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(ended)) => ended??,
                Err(_) if self.progress.sum_of_positions() > before => before = self.progress.sum_of_positions(),
                Err(_) => {
                    let ReaderProgress { reader, position, .. } = self.progress.slowest_reader();
                    self.progress.add_failure(format!("readers make no progress; reader {reader} is at {position}"));
                    // Their processes are killed with their tasks.
                    readers.shutdown().await;
                    return Ok(());
                }
            }
        }
    }

    async fn check(&self, plans: &[ReaderPlan], worked: Duration, waits: Option<Waits>) -> Result<Report, Fault> {
        eprintln!("torture: {:.0} s of work, now checking", worked.as_secs_f64());
        let mut checker = Checker::default();
        let mut connection = self.folder.connect().await?;
        let mut log = sqlx::query(LOG).fetch(&mut connection);
        while let Some(row) = log.try_next().await? {
            checker.add(&Fact::of_row(&row)?);
        }
        let reused = self.cluster.allocated.iter().filter(|position| checker.has(**position)).count() as u64;
        let crashes = Crashes { positions_reused: reused, ..self.cluster.crashes.clone() };
        let mut lost = 0;
        for process in 0..self.options.processes {
            lost += checker.lost(Facts::all(&self.folder.acknowledged(process as usize))?)?;
        }
        let rows = sqlx::query(BESIDE).fetch_all(&mut self.folder.connect().await?).await?;
        let torn = checker.torn(rows.iter().map(|row| tail(row.get(0))).collect());
        let mut reads = Vec::new();
        for plan in plans {
            let delivery = checker.delivery(plan.wanted, delivered_facts(&self.folder, plan.number)?)?;
            reads.push(Read { way: format!("{:?}", plan.method), wanted: format!("{:?}", plan.wanted), delivery });
        }
        let (resumed, on_standby) = self.progress.resumed();
        let tally = self.progress.tally();
        Ok(Report {
            case: "torture",
            store: "postgres",
            reader: if self.options.reader == Reader::Naive { "naive" } else { "ours" },
            seed: self.seed,
            writers: self.options.writers,
            processes: self.options.processes,
            seconds: worked.as_secs_f64(),
            appends_per_second: tally.appends as f64 / worked.as_secs_f64(),
            tally,
            log: checker.log(),
            delivered: reads.iter().fold(Delivery::default(), |sum, read| sum.plus(read.delivery)),
            lost,
            torn,
            reads,
            resumed,
            on_standby,
            killed_backends: self.killed_backends.load(Ordering::Relaxed),
            killed_readers: self.killed_readers.load(Ordering::Relaxed),
            crashes,
            waits: waits.map(Waits::report),
            peak_resident_mb: peak_resident_mb(),
            failures: self.progress.failures(),
        })
    }
}

/// Starts a process of readers, and starts it again after it was killed. `kills` counts the kills; without it the process
/// is never killed.
async fn supervise_readers(
    part: impl Fn(u64) -> Part + Send,
    progress: Arc<Progress>,
    kills: Option<Arc<AtomicU64>>,
    mut random: Rng,
    mut ending: watch::Receiver<bool>,
) -> Result<(), Fault> {
    for start in 0.. {
        let mut process = Process::start(&part(start), 0, &progress)?;
        if let Some(kills) = &kills {
            let kill = tokio::select! {
                _ = process.ended() => false,
                // The last process reads to the end.
                _ = ending.wait_for(|ending| *ending) => false,
                _ = sleep(Duration::from_millis(random.u64(1_000..10_000))) => true,
            };
            if kill {
                process.kill().await?;
                kills.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        }
        if !process.ended().await? {
            progress.add_failure("a process of readers has failed");
        }
        return Ok(());
    }
    Ok(())
}
