//! The run of a reactor: it reads the log, begins handlers as slots are free, and stores how far everything is handled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use annals_eventstore::{After, Backoff, Checkpoint, Clock, EventStore, ReadError, StreamId, StreamPage};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempts, LONGEST_WAIT, Outcome};
use super::keeper::{ASKED, Failing, Kept, Opened};
use super::lanes::{Item, Lanes, Replay};
use super::reactions::{AnyReactor, Held};
use super::reactor::Options;
use super::status::{ReactorState, ReactorStatus};
use super::window::Window;
use crate::batch::Batch;
use crate::database::{Fault, ReadModels};
use crate::error::{StopCause, Stopped};
use crate::fold::panic_text;
use crate::member::chain;
use crate::metrics;
use crate::page_reader::{DecodedPage, PageReader, Wanted};

/// The most events of a page.
const PAGE: usize = 500;

/// The most events behind the checkpoint that are read: handled and held back by one before them, or waiting for their turn.
const MOST_AHEAD: usize = 10_000;

/// The most bytes of payload in memory, and a page.
const MOST_HELD: usize = 32 << 20;

/// The most streams that are parked.
const MOST_PARKED: usize = 10_000;

/// A checkpoint is stored when so many events are handled, or so much time has passed.
const SAVE_EVENTS: u64 = 100;
const SAVE_AFTER: Duration = Duration::from_millis(200);

/// How long it may stay behind where nothing concerned the reactor.
const SAVE_IDLE_AFTER: Duration = Duration::from_secs(1);

/// How often it is asked which parked streams are to be retried, if there are some.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How often the log is looked at although no notification came.
const LOOK_ANYWAY: Duration = Duration::from_secs(5);

/// What a run needs of the runner.
pub(crate) struct Surroundings {
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cancel: CancellationToken,
    pub(crate) database: Arc<dyn ReadModels>,
    /// Somebody here has asked to retry a parked stream.
    pub(crate) asked: Arc<Notify>,
    pub(crate) status: Arc<tokio::sync::watch::Sender<ReactorStatus>>,
}

/// Why a run ends.
enum End {
    Closed,
    Stopped(Stopped),
    Lost,
}

/// A checkpoint that is being stored, with how many events were handled by then.
type Saved = (Checkpoint, u64, Result<Kept, Fault>);

/// Events of a parked stream that are being read.
type Replayed = (StreamId, Replay, Result<StreamPage, ReadError>);

pub(crate) struct Run {
    around: Surroundings,
    reactor: Arc<dyn AnyReactor>,
    attempts: Attempts,
    wanted: Wanted,
    pages: PageReader,
    window: Window,
    lanes: Lanes,
    running: JoinSet<(Item, Outcome)>,
    /// Handlers are begun one after the other, and each try is stored before it is made: runs before this one ended uncleanly.
    careful: Option<u64>,
    held: Arc<AtomicUsize>,
    /// Set at the end of the log: when it is looked at anyway.
    look_at: Option<Instant>,
    replaying: Option<BoxFuture<'static, Replayed>>,
    /// Which parked streams are to be retried, and when that is asked next.
    asking: Option<BoxFuture<'static, Result<Vec<Failing>, Fault>>>,
    ask_at: Instant,
    read_again_at: Option<Instant>,
    backoff: Backoff,
    saved: Checkpoint,
    saving: Option<BoxFuture<'static, Saved>>,
    /// A checkpoint that may be stored or not, as its answer was lost: it is stored again before any other.
    unanswered: Option<Checkpoint>,
    save_again_at: Option<Instant>,
    save_backoff: Backoff,
    unsaved_since: Option<Instant>,
    /// How many events were handled, and how many of them when the checkpoint was last stored.
    handled: u64,
    handled_saved: u64,
    end: Option<End>,
}

impl Run {
    pub(crate) fn new(around: Surroundings, reactor: Arc<dyn AnyReactor>, wanted: Wanted, opened: Opened) -> Self {
        let Opened { keeper, checkpoint, unclean, failing } = opened;
        let mut lanes = Lanes::default();
        for mut failing in failing {
            if failing.next_try_at == ASKED {
                // What is stored says that it was asked for, until the event fails again.
                failing.next_try_at = around.clock.now();
            }
            // The clock may have been changed since, or be that of another machine; no wait is longer than the longest.
            let wait = failing.next_try_at.duration_since(around.clock.now());
            let wait = Duration::try_from(wait).unwrap_or_default().min(LONGEST_WAIT);
            lanes.restore(failing, Instant::now() + wait);
        }
        let clock = Arc::clone(&around.clock);
        let attempts = Attempts { reactor: reactor.name(), options: reactor.options(), keeper, clock };
        let pages = PageReader::with_batches_of(Arc::clone(&around.store), PAGE);
        Self {
            reactor,
            attempts,
            wanted,
            pages,
            window: Window::new(checkpoint),
            lanes,
            running: JoinSet::new(),
            careful: (unclean > 1).then_some(MOST_AHEAD as u64),
            held: Arc::default(),
            look_at: None,
            replaying: None,
            asking: None,
            ask_at: Instant::now(),
            read_again_at: None,
            backoff: Backoff::default(),
            saved: checkpoint,
            saving: None,
            unanswered: None,
            save_again_at: None,
            save_backoff: Backoff::default(),
            unsaved_since: None,
            handled: 0,
            handled_saved: 0,
            end: None,
            around,
        }
    }

    /// Runs until it is cancelled or stops.
    pub(crate) async fn run(mut self) {
        while self.end.is_none() {
            self.lanes.wake(Instant::now());
            self.begin();
            self.begin_saving();
            self.begin_asking();
            self.begin_replay();
            self.step().await;
            self.report();
        }
        self.finish().await;
    }

    fn options(&self) -> Options {
        self.attempts.options
    }

    /// Begins handlers as long as slots are free.
    fn begin(&mut self) {
        let most = if self.careful.is_some() { 1 } else { self.options().streams_at_once };
        while self.running.len() < most && !self.around.cancel.is_cancelled() {
            let Some(turn) = self.lanes.next_turn() else { return };
            let item = turn.item.clone();
            let attempt = self.attempts.clone().run(turn, self.careful.is_some());
            self.running.spawn(async move { (item, attempt.await) });
        }
    }

    /// Waits for one thing to happen, and takes it in.
    async fn step(&mut self) {
        let now = Instant::now();
        let reads = self.wants_page();
        let again = self.read_again_at.filter(|at| *at > now);
        let ask_at = Some(self.ask_at).filter(|_| self.lanes.parked() > 0 && self.asking.is_none());
        let wakes = [self.lanes.next_wake(), again, self.save_due(), self.look_at, ask_at];
        let wake = wakes.into_iter().flatten().min();
        let after = (*self.window.read()).into();
        tokio::select! {
            biased;
            () = self.around.cancel.cancelled() => self.end = Some(End::Closed),
            saved = held(&mut self.saving) => self.was_saved(saved),
            () = self.around.asked.notified() => self.ask_at = Instant::now(),
            asked = held(&mut self.asking) => self.retry(asked),
            replayed = held(&mut self.replaying) => self.take_replayed(replayed).await,
            read = read_on(&mut self.pages, reads, self.look_at.is_some(), after, &self.wanted) => match read {
                Some(page) => self.take_page(page),
                None => self.look_at = None,
            },
            // Behind the others, as there may always be one that has ended.
            Some(joined) = self.running.join_next() => self.ended(joined),
            () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {
                self.look_at = self.look_at.filter(|at| *at > Instant::now());
            }
        }
    }

    /// Whether there is room for a page, and it is time to read one.
    fn wants_page(&self) -> bool {
        let most_ready = if self.careful.is_some() { 1 } else { self.options().streams_at_once };
        self.look_at.is_none()
            && self.read_again_at.is_none_or(|at| at <= Instant::now())
            && self.lanes.ready() < most_ready
            && self.window.len() + PAGE <= MOST_AHEAD
            && self.held.load(Ordering::Relaxed) <= MOST_HELD
    }

    fn take_page(&mut self, page: Result<DecodedPage, ReadError>) {
        let page = match page {
            Ok(page) => page,
            Err(error) => return self.cannot_read(error),
        };
        self.read_again();
        self.look_at = page.end.then(|| Instant::now() + LOOK_ANYWAY);
        let Some(checkpoint) = page.checkpoint else { return };
        let read = *self.window.read();
        if checkpoint.incarnation != read.incarnation {
            let (position, incarnation) = (read.position, read.incarnation);
            let error = ReadError::StoreRewound { position, incarnation };
            return self.stop(None, StopCause::Read(Arc::new(error)));
        }
        let events = self.reactor.page(&page.batch, Held::new(&self.held, page.bytes));
        for at in 0..events.len() {
            let number = self.window.push(events.place(at).position, events.event_id(at));
            let item = Item { page: Arc::clone(&events), at, number: Some(number) };
            if !self.lanes.push(item) {
                self.window.done(number);
            }
        }
        self.window.read_to(checkpoint);
        self.moved();
    }

    /// Begins to read on in a parked stream that is tried again.
    fn begin_replay(&mut self) {
        let may = self.replaying.is_none() && self.read_again_at.is_none_or(|at| at <= Instant::now());
        if let Some((stream, replay)) = self.lanes.to_read().filter(|_| may) {
            let store = Arc::clone(&self.around.store);
            let read = async move {
                let page = store.load_page(&stream, replay.read, PAGE).await;
                (stream, replay, page)
            };
            self.replaying = Some(read.boxed());
        }
    }

    /// Takes in the next events of a parked stream that is tried again.
    async fn take_replayed(&mut self, (stream, replay, page): Replayed) {
        let page = match page {
            Ok(page) => page,
            Err(error) => return self.cannot_read(error),
        };
        self.read_again();
        // A stream may be read further than the log, whose later events come from there.
        let known = page.events.partition_point(|event| event.position <= self.window.read().position);
        let events = &page.events[..known];
        let version = events.last().map_or(replay.read, |event| event.version);
        let end = page.end || known < page.events.len();
        let bytes = events.iter().map(|event| event.payload.as_str().len()).sum();
        let batch = Batch::decode(events, &self.wanted.decoders);
        let events = self.reactor.page(&batch, Held::new(&self.held, bytes));
        let items = (0..events.len()).map(|at| Item { page: Arc::clone(&events), at, number: None });
        if self.lanes.push_read(&stream, items.collect(), version, end) {
            self.reopen(&stream).await;
        }
    }

    /// Stores that a stream is not parked any more, and takes its events in again.
    async fn reopen(&mut self, stream: &StreamId) {
        self.ask_later();
        self.finish_saving().await;
        loop {
            match self.attempts.keeper.forget(stream).await {
                Ok(Kept::Done) => {
                    self.lanes.reopened(stream);
                    tracing::info!(reactor = self.attempts.reactor, %stream, "stream reopened");
                }
                Ok(Kept::Lost) => self.end = Some(End::Lost),
                Err(fault) if fault.transient => {
                    self.retrying(&fault.source);
                    tokio::select! {
                        () = self.around.cancel.cancelled() => self.end = Some(End::Closed),
                        () = tokio::time::sleep(self.save_backoff.next_wait()) => continue,
                    }
                }
                Err(fault) => self.stop(None, StopCause::Database(fault.source)),
            }
            return;
        }
    }

    fn cannot_read(&mut self, error: ReadError) {
        if !error.is_transient() {
            return self.stop(None, StopCause::Read(Arc::new(error)));
        }
        self.retrying(&error);
        self.read_again_at = Some(Instant::now() + self.backoff.next_wait());
    }

    /// The log was read.
    fn read_again(&mut self) {
        self.backoff = Backoff::default();
        self.read_again_at = None;
    }

    /// A try is over.
    fn ended(&mut self, joined: Result<(Item, Outcome), JoinError>) {
        let (item, outcome) = match joined {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => {
                let text = panic_text(error.into_panic().as_ref());
                return self.stop(None, StopCause::Runner(text));
            }
            // Nobody but the end of the runtime cancels a try.
            Err(_) => return self.end = Some(End::Closed),
        };
        let stream = &item.place().stream;
        match outcome {
            Outcome::Done => {
                self.lanes.done(stream);
                self.handled += 1;
                metrics::reacted(self.attempts.reactor);
                self.is_done(&item);
                self.careful = self.careful.and_then(|left| left.checked_sub(1));
            }
            Outcome::Failed { failing, wait, part } => {
                metrics::reaction_failed(self.attempts.reactor);
                let error = format!("{}: {}", failing.place, failing.error);
                self.around.status.send_modify(|status| status.last_error = Some(error));
                self.lanes.wait(stream, Instant::now() + wait, Some(failing), part);
            }
            Outcome::NotStored { fault, failing, part } => {
                self.retrying(&fault.source);
                self.lanes.wait(stream, Instant::now() + self.save_backoff.next_wait(), failing, part);
            }
            Outcome::Parked(failing) => {
                metrics::reaction_failed(self.attempts.reactor);
                let error = format!("{}: {}", failing.place, failing.error);
                self.around.status.send_modify(|status| status.last_error = Some(error));
                for item in self.lanes.park(failing) {
                    self.is_done(&item);
                }
                if self.lanes.parked() > MOST_PARKED {
                    let why = format!("more than {MOST_PARKED} streams are parked; find what they have in common");
                    self.stop(None, StopCause::React(why.into()));
                }
            }
            Outcome::Stop(cause) => self.stop(Some(&item), cause),
            Outcome::Lost => self.end = Some(End::Lost),
        }
    }

    /// The event is handled, or left to a later retry.
    fn is_done(&mut self, item: &Item) {
        if let Some(number) = item.number {
            self.window.done(number);
        }
        self.moved();
    }

    /// It may have come further, or what it has come to may be stored.
    fn moved(&mut self) {
        if self.window.handled() == self.saved {
            self.unsaved_since = None;
        } else {
            self.unsaved_since.get_or_insert_with(Instant::now);
        }
    }

    /// When the checkpoint is to be stored next.
    fn save_due(&self) -> Option<Instant> {
        let since = self.unsaved_since.filter(|_| self.saving.is_none())?;
        let due = match self.handled - self.handled_saved {
            0 => since + SAVE_IDLE_AFTER,
            1..SAVE_EVENTS if self.careful.is_none() => since + SAVE_AFTER,
            _ => since,
        };
        Some(self.save_again_at.map_or(due, |again| again.max(due)))
    }

    /// Begins to store the checkpoint, if it is time.
    fn begin_saving(&mut self) {
        let to = self.unanswered.unwrap_or_else(|| self.window.handled());
        if self.save_due().is_some_and(|due| due <= Instant::now()) && to != self.saved {
            let (keeper, from, handled) = (Arc::clone(&self.attempts.keeper), self.saved, self.handled);
            self.unsaved_since = None;
            self.saving = Some(async move { (to, handled, keeper.save(&from, &to).await) }.boxed());
        }
    }

    /// Lets a save that has begun come to its end. It may hold the database's write lock, so nothing else may be waited for while
    /// nobody polls it.
    async fn finish_saving(&mut self) {
        if let Some(saving) = self.saving.take() {
            let saved = saving.await;
            self.was_saved(saved);
        }
    }

    fn was_saved(&mut self, (to, handled, kept): (Checkpoint, u64, Result<Kept, Fault>)) {
        match kept {
            Ok(Kept::Done) => {
                (self.saved, self.handled_saved) = (to, handled);
                (self.unanswered, self.save_again_at) = (None, None);
                self.save_backoff = Backoff::default();
            }
            Ok(Kept::Lost) => self.end = Some(End::Lost),
            Err(fault) if fault.transient => {
                self.retrying(&fault.source);
                self.unanswered = Some(to);
                self.save_again_at = Some(Instant::now() + self.save_backoff.next_wait());
            }
            Err(fault) => self.stop(None, StopCause::Database(fault.source)),
        }
        self.moved();
    }

    /// Begins to ask which parked streams are to be retried, if it is time.
    fn begin_asking(&mut self) {
        if self.lanes.parked() > 0 && self.asking.is_none() && self.ask_at <= Instant::now() {
            let (database, reactor) = (Arc::clone(&self.around.database), self.attempts.reactor);
            self.asking = Some(async move { database.failing(reactor, true).await }.boxed());
        }
    }

    /// Gives up a question that has begun. It may hold a connection, so nothing else may be waited for while nobody polls it.
    fn ask_later(&mut self) {
        if self.asking.take().is_some() {
            self.ask_at = Instant::now();
        }
    }

    /// Retries the parked streams for which that was asked. If the database did not say, it is asked again.
    fn retry(&mut self, asked: Result<Vec<Failing>, Fault>) {
        self.ask_at = Instant::now() + ASK_AGAIN_AFTER;
        for failing in asked.unwrap_or_default() {
            self.lanes.replay(&failing.place.stream);
        }
    }

    fn stop(&mut self, item: Option<&Item>, cause: StopCause) {
        let stopped = Stopped {
            projection: self.attempts.reactor.into(),
            version: 0,
            position: self.window.handled().position,
            event: item.map(|item| item.place().clone()),
            cause: Arc::new(cause),
        };
        tracing::error!(reactor = self.attempts.reactor, reason = chain(&stopped), "reactor stopped");
        self.end.get_or_insert(End::Stopped(stopped));
    }

    fn retrying(&self, fault: &(dyn std::error::Error + 'static)) {
        let fault = chain(fault);
        // Not again with each try.
        if !matches!(&self.around.status.borrow().state, ReactorState::Retrying { fault: other } if *other == fault) {
            tracing::warn!(reactor = self.attempts.reactor, %fault, "retrying");
        }
        self.around.status.send_modify(|status| status.set_state(ReactorState::Retrying { fault }));
    }

    /// Lets people see how it fares.
    fn report(&mut self) {
        if self.look_at.is_some() && self.window.len() == 0 {
            self.careful = None;
        }
        let blocked = self.read_again_at.is_some() || self.save_again_at.is_some();
        let (position, in_flight) = (self.window.handled().position, self.running.len());
        let live = self.look_at.is_some();
        self.around.status.send_modify(|status| {
            let handled = usize::try_from(self.handled.saturating_sub(status.handled)).unwrap_or(usize::MAX);
            status.pace.count(handled, Instant::now());
            (status.position, status.handled, status.in_flight) = (position, self.handled, in_flight);
            (status.retrying, status.parked) = (self.lanes.waiting(), self.lanes.parked());
            if status.last_error.is_some() && self.lanes.failing().next().is_none() {
                status.last_error = None;
            }
            let was_live = matches!(status.state, ReactorState::Live);
            if !(blocked && matches!(status.state, ReactorState::Retrying { .. })) {
                status.set_state(if live || was_live { ReactorState::Live } else { ReactorState::CatchingUp });
            }
        });
    }

    /// Waits for the handlers that run, one time limit at most, and stores how far it is.
    async fn finish(mut self) {
        let end = self.end.take().unwrap_or(End::Closed);
        let name = self.attempts.reactor;
        if let End::Stopped(stopped) = &end {
            self.around.status.send_modify(|status| status.set_state(ReactorState::Stopped(stopped.clone())));
        }
        self.ask_later();
        self.replaying = None;
        if !matches!(end, End::Lost) {
            self.finish_saving().await;
            let until = Instant::now() + self.options().time_limit;
            while let Ok(Some(joined)) = timeout_at(until, self.running.join_next()).await {
                self.ended(joined);
            }
            self.save_at_last().await;
        }
        self.running.shutdown().await;
        self.around.status.send_modify(|status| {
            (status.in_flight, status.position) = (0, self.window.handled().position);
            status.owner = None;
            status.set_state(match end {
                End::Stopped(stopped) => ReactorState::Stopped(stopped),
                // It may have been given back to others, and come again. If all are closed, the keeper says so.
                End::Closed | End::Lost => ReactorState::Standby { owner: None },
            });
        });
        tracing::debug!(reactor = name, "reactor ended");
    }

    /// What cannot be stored now is handled again after the next start.
    async fn save_at_last(&mut self) {
        let keeper = Arc::clone(&self.attempts.keeper);
        let mut ended = Ok(Kept::Done);
        for to in self.unanswered.into_iter().chain([self.window.handled()]) {
            if matches!(ended, Ok(Kept::Done)) && to != self.saved {
                ended = keeper.save(&self.saved, &to).await;
                self.saved = to;
            }
        }
        if matches!(ended, Ok(Kept::Done)) {
            ended = keeper.release().await;
        }
        if let Err(fault) = ended {
            let fault = chain(&fault.source);
            tracing::warn!(reactor = self.attempts.reactor, %fault, "its last checkpoint is not stored, so some events are handled again");
        }
    }
}

/// The next page, or `None` when events are announced behind the end; for ever if neither is wanted.
async fn read_on(
    pages: &mut PageReader,
    reads: bool,
    at_end: bool,
    after: After,
    wanted: &Wanted,
) -> Option<Result<DecodedPage, ReadError>> {
    if reads {
        return Some(pages.next(after, wanted).await);
    }
    if at_end && pages.changed().await.is_ok() {
        return None;
    }
    std::future::pending().await
}

/// Waits for what was begun; for ever if nothing was.
async fn held<T>(begun: &mut Option<BoxFuture<'static, T>>) -> T {
    match begun {
        Some(running) => {
            let ended = running.await;
            *begun = None;
            ended
        }
        None => std::future::pending().await,
    }
}
