//! One life of a reader: it opens the store anew, goes on from its checkpoint, and is stopped after a while.

use std::time::Duration;

use annals::engine::Incarnation;
use annals::{
    Checkpoint, EventStore, EventStoreExt, OpenError, Position, PostgresOptions, PostgresStore, ReadError,
    RecordedEvent,
};
use fastrand::Rng;
use futures::TryStreamExt;
use tokio::time::{Instant, sleep, timeout_at};

use crate::torture::Fault;
use crate::torture::fact::Fact;
use crate::torture::part::{Progress, ReaderPlan, Said, Way, say};
use crate::torture::place::Place;
use crate::torture::readers::shelf::Shelf;

/// How long a session lives: some only for a moment. A new handle cannot give out what comes after a missing number before
/// the writers of that time are done, so with short lives alone a reader would get nowhere.
pub(super) fn life(random: &mut Rng) -> Duration {
    Duration::from_millis(if random.u8(..3) == 0 { random.u64(100..800) } else { random.u64(2_000..6_000) })
}

/// How often a session says how far it is.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Reads for a while, and tells whether that was on a standby.
pub(super) async fn session(
    place: &Place,
    plan: ReaderPlan,
    shelf: &mut Shelf,
    random: &mut Rng,
    mut progress: Progress,
) -> Result<bool, Fault> {
    let standby = place.standby_url().filter(|_| random.bool());
    let on_standby = standby.is_some();
    let until = Instant::now() + life(random);
    let Some(store) = open(standby.unwrap_or_else(|| place.url())).await? else { return Ok(on_standby) };
    let Some(from) = start(&store, shelf, on_standby, until).await? else { return Ok(on_standby) };
    if on_standby {
        progress.on_standby += 1;
        say(&Said::Read(Progress { position: shelf.position(), ..progress }))?;
    }
    let mut reading = Reading { plan, shelf, store: &store, at: from, progress, told: Instant::now() };
    // Often somebody else asks too, so that the handle learns how far the log is final while a page is being read.
    let others = random.u8(..3);
    let stopped = timeout_at(until, async {
        let read = async {
            match plan.way {
                Way::Pages => reading.pages().await,
                Way::Subscription => reading.subscription().await,
                _ => reading.read_all().await,
            }
        };
        tokio::select! {
            done = read => done,
            () = ask_for_head(&store), if others > 0 => Ok(()),
        }
    })
    .await;
    // Whether the handle is closed or only dropped must not matter.
    if random.bool() {
        store.close().await;
    }
    match stopped {
        Ok(ended) => ended.map(|()| on_standby),
        Err(_) => Ok(on_standby),
    }
}

/// Asks again and again how far the log is final.
async fn ask_for_head(store: &PostgresStore) {
    loop {
        // It fails on a standby, and while the server is away.
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

/// The checkpoint to go on from, if the store has the event that it names.
async fn start(
    store: &PostgresStore,
    shelf: &Shelf,
    on_standby: bool,
    until: Instant,
) -> Result<Option<Checkpoint>, Fault> {
    let Some(checkpoint) = shelf.checkpoint()? else { return Ok(Some(Checkpoint::start(store.incarnation()))) };
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

struct Reading<'s> {
    plan: ReaderPlan,
    shelf: &'s mut Shelf,
    store: &'s PostgresStore,
    at: Checkpoint,
    progress: Progress,
    told: Instant,
}

impl Reading<'_> {
    async fn pages(&mut self) -> Result<(), Fault> {
        let mut pages = self.store.pages(self.at.position, self.plan.wanted.filter()?);
        while !self.shelf.is_done() {
            let page = pages.next().await?;
            for event in &page.events {
                self.shelf.add(&Fact::of_event(event)?)?;
            }
            if let Some(checkpoint) = page.checkpoint {
                self.reached(checkpoint)?;
            }
        }
        Ok(())
    }

    async fn subscription(&mut self) -> Result<(), Fault> {
        let mut events = self.store.subscribe(self.at.position, self.plan.wanted.filter()?);
        while !self.shelf.is_done() {
            let event = events.try_next().await?.ok_or("a subscription ended")?;
            self.event(&event)?;
        }
        Ok(())
    }

    /// Reads what is there, again and again.
    async fn read_all(&mut self) -> Result<(), Fault> {
        while !self.shelf.is_done() {
            let mut events = self.store.read_all(self.at.position, self.plan.wanted.filter()?);
            loop {
                match events.try_next().await {
                    Ok(Some(event)) => self.event(&event)?,
                    Ok(None) => break,
                    Err(error) if error.is_transient() => break,
                    Err(error) => return Err(error.into()),
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn event(&mut self, event: &RecordedEvent) -> Result<(), Fault> {
        self.shelf.add(&Fact::of_event(event)?)?;
        let incarnation: Incarnation = self.store.incarnation();
        let position: Position = event.position;
        self.reached(Checkpoint { incarnation, position, event_id: Some(event.event_id) })
    }

    fn reached(&mut self, checkpoint: Checkpoint) -> Result<(), Fault> {
        self.at = checkpoint;
        self.shelf.reached(&checkpoint)?;
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            self.progress.position = self.shelf.position();
            say(&Said::Read(self.progress))?;
        }
        Ok(())
    }
}
