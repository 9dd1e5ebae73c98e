//! The readers of one process. Each reads in sessions: it opens the store, continues from its checkpoint, and is stopped
//! after a random time.

mod checkpoint_file;
pub(crate) mod waits;

use std::path::Path;
use std::time::Duration;

use annals::engine::Incarnation;
use annals::{
    Checkpoint, EventId, EventStore, EventStoreExt, OpenError, Position, PostgresOptions, PostgresStore, ReadError,
    RecordedEvent,
};
use fastrand::Rng;
use futures::TryStreamExt;
use sqlx::Row;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::Fault;
use crate::fact::Fact;
use crate::progress::ReaderProgress;
use crate::protocol::{Instruction, Message, Method, ReaderPlan, error_chain, send};
use crate::run_folder::{Reconnecting, RunFolder};
use checkpoint_file::CheckpointFile;
pub(crate) use checkpoint_file::delivered_facts;

/// The query of the naive reader.
const AFTER: &str = "
    SELECT position, aggregate_id, version, event_id
    FROM annals.events
    WHERE position > $1
    ORDER BY position
    LIMIT 1000
";

/// How often a session sends its progress.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Runs these readers until each has got the last event of the run.
pub(crate) async fn run(
    folder: &Path,
    seed: u64,
    plans: Vec<ReaderPlan>,
    mut instructions: mpsc::Receiver<Instruction>,
) -> Result<(), Fault> {
    let folder = RunFolder::new(folder);
    let mut tasks = JoinSet::new();
    for plan in plans {
        let random = Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(plan.number as u64));
        let folder = folder.clone();
        tasks.spawn(async move {
            read(&folder, plan, random).await.map_err(|error| -> Fault {
                let ReaderPlan { number, method, wanted } = plan;
                format!("reader {number} ({method:?} of {wanted:?}): {}", error_chain(&*error)).into()
            })
        });
    }
    loop {
        tokio::select! {
            instruction = instructions.recv() => if instruction.is_none() {
                return Err("the coordinator has exited".into());
            },
            ended = tasks.join_next() => match ended {
                Some(ended) => ended??,
                None => return Ok(()),
            },
        }
    }
}

/// One reader: session after session, each from the last saved checkpoint.
async fn read(folder: &RunFolder, plan: ReaderPlan, mut random: Rng) -> Result<(), Fault> {
    let mut progress = ReaderProgress { reader: plan.number, ..ReaderProgress::default() };
    loop {
        let mut file = CheckpointFile::resume(folder, plan.number)?;
        progress.resumed += 1;
        // Some sessions are very short. A new handle cannot deliver what comes after a gap before the writers of that
        // moment have ended, so with short sessions alone a reader would make no progress.
        let millis = if random.u8(..3) == 0 { random.u64(100..800) } else { random.u64(2_000..6_000) };
        let until = Instant::now() + Duration::from_millis(millis);
        if plan.method == Method::Naive {
            naive_session(folder, &mut file, until, progress).await?;
        } else {
            progress = session(folder, plan, &mut file, until, &mut random, progress).await?;
        }
        // What was delivered after the last save is dropped, as if the process had been killed here.
        if random.bool() {
            file.save()?;
        }
        progress.position = file.position();
        send(&Message::Read(progress))?;
        if file.is_complete() {
            return Ok(());
        }
    }
}

/// A session of the control: everything after the last position it has seen. It must miss events.
async fn naive_session(
    folder: &RunFolder,
    file: &mut CheckpointFile,
    until: Instant,
    mut progress: ReaderProgress,
) -> Result<(), Fault> {
    let mut connection = Reconnecting::new(folder);
    while !file.is_complete() && Instant::now() < until {
        let query = sqlx::query(AFTER).bind(file.position().cast_signed());
        let Ok(rows) = query.fetch_all(connection.get().await?).await else {
            connection.reset().await;
            continue;
        };
        for row in &rows {
            file.add(&Fact::of_row(row)?)?;
        }
        if let Some(last) = rows.last() {
            file.set_checkpoint(&Checkpoint {
                incarnation: Incarnation(Uuid::nil()),
                position: Position::new(last.try_get(0)?)?,
                event_id: Some(EventId::new(last.try_get(3)?)?),
            })?;
        }
        progress.position = file.position();
        send(&Message::Read(progress))?;
        sleep(Duration::from_millis(1)).await;
    }
    connection.close().await;
    Ok(())
}

/// A session through the library, sometimes on a standby. Returns the progress.
async fn session(
    folder: &RunFolder,
    plan: ReaderPlan,
    file: &mut CheckpointFile,
    until: Instant,
    random: &mut Rng,
    mut progress: ReaderProgress,
) -> Result<ReaderProgress, Fault> {
    let standby = folder.standby_url().filter(|_| random.bool());
    let on_standby = standby.is_some();
    progress.on_standby += u64::from(on_standby);
    let Some(store) = open(standby.unwrap_or_else(|| folder.url())).await? else { return Ok(progress) };
    let Some(after) = start(&store, file, on_standby, until).await? else { return Ok(progress) };
    if on_standby {
        send(&Message::Read(ReaderProgress { position: file.position(), ..progress }))?;
    }
    let mut session = Session { plan, file, store: &store, after, progress, reported: Instant::now() };
    // Often another task uses the handle too, so that the handle learns how far the log is final during a read.
    let ask = random.u8(..3) > 0;
    let stopped = timeout_at(until, async {
        let read = async {
            match plan.method {
                Method::Pages => session.pages().await,
                Method::Subscription => session.subscription().await,
                _ => session.read_all().await,
            }
        };
        tokio::select! {
            done = read => done,
            () = ask_for_head(&store), if ask => Ok(()),
        }
    })
    .await;
    // Whether the handle is closed or only dropped must not matter.
    if random.bool() {
        store.close().await;
    }
    // A timeout is the usual end.
    stopped.unwrap_or(Ok(()))?;
    Ok(progress)
}

/// Asks again and again how far the log is final.
async fn ask_for_head(store: &PostgresStore) {
    loop {
        // It fails on a standby, and while the server is unreachable.
        store.head().await.ok();
        sleep(Duration::from_millis(3)).await;
    }
}

/// A new handle; none if the server cannot be reached now.
async fn open(url: String) -> Result<Option<PostgresStore>, Fault> {
    let options = PostgresOptions::new(url).connections(2).connection_timeout(Duration::from_secs(1));
    match options.open().await {
        Ok(store) => Ok(Some(store)),
        Err(OpenError::Unavailable { .. }) => {
            sleep(Duration::from_millis(20)).await;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The checkpoint to continue from; none if the store does not have its event in time.
async fn start(
    store: &PostgresStore,
    file: &CheckpointFile,
    on_standby: bool,
    until: Instant,
) -> Result<Option<Checkpoint>, Fault> {
    let Some(checkpoint) = file.checkpoint()? else { return Ok(Some(Checkpoint::start(store.incarnation()))) };
    while Instant::now() < until {
        match store.check_checkpoint(&checkpoint).await {
            Ok(()) => return Ok(Some(checkpoint)),
            // A standby may not have replayed the event yet.
            Err(ReadError::StoreRewound { .. }) if on_standby => {}
            Err(error) if error.is_transient() => {}
            Err(error) => return Err(error.into()),
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(None)
}

struct Session<'s> {
    plan: ReaderPlan,
    file: &'s mut CheckpointFile,
    store: &'s PostgresStore,
    after: Checkpoint,
    progress: ReaderProgress,
    reported: Instant,
}

impl Session<'_> {
    async fn pages(&mut self) -> Result<(), Fault> {
        let mut pages = self.store.pages(self.after.position, self.plan.wanted.filter()?);
        while !self.file.is_complete() {
            let page = pages.next().await?;
            for event in &page.events {
                self.file.add(&Fact::of_event(event)?)?;
            }
            if let Some(checkpoint) = page.checkpoint {
                self.set_checkpoint(checkpoint)?;
            }
        }
        Ok(())
    }

    async fn subscription(&mut self) -> Result<(), Fault> {
        let mut events = self.store.subscribe(self.after.position, self.plan.wanted.filter()?);
        while !self.file.is_complete() {
            let event = events.try_next().await?.ok_or("a subscription ended")?;
            self.add(&event)?;
        }
        Ok(())
    }

    /// Reads to the end of the log, again and again.
    async fn read_all(&mut self) -> Result<(), Fault> {
        while !self.file.is_complete() {
            let mut events = self.store.read_all(self.after.position, self.plan.wanted.filter()?);
            loop {
                match events.try_next().await {
                    Ok(Some(event)) => self.add(&event)?,
                    Ok(None) => break,
                    Err(error) if error.is_transient() => break,
                    Err(error) => return Err(error.into()),
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn add(&mut self, event: &RecordedEvent) -> Result<(), Fault> {
        self.file.add(&Fact::of_event(event)?)?;
        let (incarnation, event_id) = (self.store.incarnation(), Some(event.event_id));
        self.set_checkpoint(Checkpoint { incarnation, position: event.position, event_id })
    }

    fn set_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), Fault> {
        self.after = checkpoint;
        self.file.set_checkpoint(&checkpoint)?;
        if self.reported.elapsed() >= REPORT_EVERY {
            self.reported = Instant::now();
            self.progress.position = self.file.position();
            send(&Message::Read(self.progress))?;
        }
        Ok(())
    }
}
