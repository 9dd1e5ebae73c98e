//! A read pass: one reader of the log, and the projections that fold what it reads.

use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{Backoff, Checkpoint, Clock, EventStore, Position, ReadError};
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::batch::Batch;
use crate::column::ColumnValue;
use crate::commit::{Part, commit, move_on};
use crate::database::{Fault, ReadModels};
use crate::error::StopCause;
use crate::folding::{Folding, Outcome, Step, Stop};
use crate::member::{Member, wanted};
use crate::page_reader::{PageReader, Wanted};
use crate::slot::Slot;
use crate::switch::switch;

/// How long a stored checkpoint may stay behind where nothing concerned the projection.
const SAVE_AFTER: Duration = Duration::from_secs(1);

/// The same, in positions.
const SAVE_BEHIND: i64 = 100_000;

/// How often the log is looked at although no notification came: a wake-up that got lost costs this much and no more.
const LOOK_ANYWAY: Duration = Duration::from_secs(5);

/// What every pass of a runner shares.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) database: Arc<dyn ReadModels>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cancel: CancellationToken,
}

impl Shared {
    /// Whether a version with this checkpoint was built from a log that is gone, so that it is no measure for others.
    pub(crate) async fn is_foreign(&self, checkpoint: &Checkpoint) -> bool {
        matches!(self.store.check_checkpoint(checkpoint).await, Err(ReadError::StoreRewound { .. }))
    }
}

/// What becomes of the projections of a pass when they reach the end of the log.
pub(crate) enum Role {
    /// They follow the log. Projections of other passes join them.
    Follow(mpsc::UnboundedReceiver<Vec<Member>>),
    /// They join those that follow the log, and the pass ends.
    CatchUp(mpsc::UnboundedSender<Vec<Member>>),
}

/// Projections that share one reader.
pub(crate) struct Pass {
    shared: Shared,
    role: Role,
    members: Vec<Member>,
    wanted: Wanted,
    pages: PageReader,
    /// Whether the log may have been replaced since it was last looked at.
    recheck: bool,
    backoff: Backoff,
    unsaved_since: Option<Instant>,
}

impl Pass {
    pub(crate) fn new(shared: Shared, role: Role, members: Vec<Member>) -> Self {
        let wanted = all_wanted(&members);
        let pages = PageReader::of(Arc::clone(&shared.store));
        Self { shared, role, members, wanted, pages, recheck: false, backoff: Backoff::default(), unsaved_since: None }
    }

    /// Runs until it is cancelled, or until there is nothing left to do for a pass that catches up.
    pub(crate) async fn run(mut self) {
        while !self.shared.cancel.is_cancelled() {
            self.take_in();
            self.members.retain(|member| !member.is_stopped());
            let Some(after) = self.members.iter().map(Member::progress).min_by_key(|at| at.position).copied() else {
                match &self.role {
                    Role::CatchUp(_) => return,
                    Role::Follow(_) => self.wait().await,
                }
                continue;
            };
            if self.recheck && !self.check().await {
                continue;
            }
            let page = tokio::select! {
                biased;
                () = self.shared.cancel.cancelled() => break,
                page = self.pages.next(after.into(), &self.wanted) => page,
            };
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    self.cannot_read(error).await;
                    continue;
                }
            };
            // The read has checked the event of those who are behind all others.
            self.recheck = self.members.iter().any(|member| *member.progress() != after);
            if self.recheck && !self.check().await {
                continue;
            }
            self.backoff = Backoff::default();
            for member in &self.members {
                member.resume();
            }
            match page.checkpoint {
                Some(checkpoint) => {
                    if !page.end {
                        self.pages.read_ahead(checkpoint.into(), &self.wanted);
                    }
                    self.process(&page.batch, after.position, checkpoint).await;
                }
                None => self.compare().await,
            }
            self.save_now_and_then().await;
            let reached = page.checkpoint.map_or(after.position, |checkpoint| checkpoint.position);
            if page.end && self.is_at(reached) {
                if let Role::CatchUp(join) = &self.role {
                    if let Err(refused) = join.send(std::mem::take(&mut self.members)) {
                        // Nobody follows the log any more: the runner is being closed, or has failed and says so itself.
                        self.members = refused.0;
                        break;
                    }
                    return;
                }
                self.caught_up().await;
                if self.is_at(reached) {
                    self.wait().await;
                }
            }
        }
        self.stop_taking_in();
        self.save().await;
        for member in &self.members {
            member.close();
        }
    }

    /// Takes in projections that have caught up.
    fn take_in(&mut self) {
        let Role::Follow(joining) = &mut self.role else { return };
        let mut joined = Vec::new();
        while let Ok(members) = joining.try_recv() {
            joined.extend(members);
        }
        self.join(joined);
    }

    /// Takes in the last ones; later ones learn that the runner has ended.
    fn stop_taking_in(&mut self) {
        if let Role::Follow(joining) = &mut self.role {
            joining.close();
        }
        self.take_in();
    }

    fn join(&mut self, members: Vec<Member>) {
        if members.is_empty() {
            return;
        }
        self.members.extend(members);
        self.members.retain(|member| !member.is_stopped());
        self.wanted = all_wanted(&self.members);
    }

    /// Whether the log is still the one that the projections have read.
    async fn check(&mut self) -> bool {
        for member in &mut self.members {
            match self.shared.store.check_checkpoint(member.progress()).await {
                Ok(()) => {}
                Err(error) if error.is_transient() => {
                    self.pause(&error).await;
                    return false;
                }
                Err(error) => member.stop_for_good(StopCause::Read(Arc::new(error))),
            }
        }
        self.recheck = false;
        // Somebody may have stopped, which changes where to read on.
        self.members.iter().all(|member| !member.is_stopped())
    }

    async fn cannot_read(&mut self, error: ReadError) {
        if error.is_transient() {
            self.recheck = true;
            self.pause(&error).await;
            return;
        }
        let error = Arc::new(error);
        for member in &mut self.members {
            member.stop_for_good(StopCause::Read(Arc::clone(&error)));
        }
    }

    async fn pause(&mut self, error: &ReadError) {
        for member in self.running() {
            member.set_retrying(error);
        }
        let pause = self.backoff.next_wait();
        tokio::select! {
            () = self.shared.cancel.cancelled() => {}
            () = sleep(pause) => {}
        }
    }

    /// Whether every projection is there. Others may have put a checkpoint back; then there is more to read.
    fn is_at(&self, position: Position) -> bool {
        self.running().all(|member| member.position() >= position)
    }

    fn running(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.is_stopped())
    }

    /// Lets every projection apply what it wants of a batch that accounts for the log behind `after` up to `checkpoint`.
    async fn process(&mut self, batch: &Batch, after: Position, checkpoint: Checkpoint) {
        for member in &mut self.members {
            member.look_at(batch);
        }
        loop {
            let shared = &self.shared;
            // A projection that was put back behind the beginning of the batch must read again from there.
            let takes = |member: &Member| {
                !member.is_stopped() && member.position() >= after && member.position() < checkpoint.position
            };
            let behind: Vec<usize> = (0..self.members.len()).filter(|&at| takes(&self.members[at])).collect();
            if behind.is_empty() {
                return;
            }
            let folded = behind.iter().map(|&at| fold(shared, at, &self.members[at], batch, checkpoint));
            let Some(parts) = join_all(folded).await.into_iter().collect() else { return };
            if !move_on(shared, &mut self.members, parts).await || shared.cancel.is_cancelled() {
                return;
            }
        }
    }

    /// Compares every stored checkpoint, though there is nothing to apply.
    async fn compare(&mut self) {
        let running = self.members.iter().enumerate().filter(|(_, member)| !member.is_stopped());
        let parts = running.map(|(at, member)| Part::comparing(at, member)).collect();
        move_on(&self.shared, &mut self.members, parts).await;
    }

    /// The end of the log is reached.
    async fn caught_up(&mut self) {
        let asks = |member: &Member| {
            let due = member.show_after.is_none_or(|after| after <= Instant::now());
            !member.settled && !member.is_stopped() && due
        };
        // Whether a version may be shown is judged by its stored checkpoint.
        if self.members.iter().any(|member| asks(member) && member.unsaved() > 0) {
            self.save().await;
        }
        for member in &mut self.members {
            if asks(member) {
                switch(&self.shared, member).await;
            }
            if !member.is_stopped() {
                member.caught_up();
            }
        }
    }

    /// Waits for something to do.
    async fn wait(&mut self) {
        let save_at = self.unsaved_since.map(|since| since + SAVE_AFTER);
        let show_at = self.members.iter().filter_map(|member| member.show_after).min();
        let joining = async {
            match &mut self.role {
                Role::Follow(joining) => joining.recv().await,
                Role::CatchUp(_) => None,
            }
        };
        let joined = tokio::select! {
            biased;
            () = self.shared.cancel.cancelled() => return,
            Some(joined) = joining => joined,
            Ok(()) = self.pages.changed() => return,
            () = sleep_until(save_at.unwrap_or_else(Instant::now)), if save_at.is_some() => {
                self.save().await;
                return;
            }
            () = sleep_until(show_at.unwrap_or_else(Instant::now)), if show_at.is_some() => return,
            () = sleep(LOOK_ANYWAY) => return,
        };
        self.join(joined);
    }

    async fn save_now_and_then(&mut self) {
        let most = self.members.iter().map(Member::unsaved).max().unwrap_or_default();
        if most == 0 {
            self.unsaved_since = None;
            return;
        }
        // The wait for notifications stores it when the time has come; a catch-up does not wait for notifications.
        self.unsaved_since.get_or_insert_with(Instant::now);
        if most > SAVE_BEHIND {
            self.save().await;
        }
    }

    /// Stores checkpoints that are behind. A failure is left to the next time: nothing but some reading is lost by it.
    async fn save(&mut self) {
        self.unsaved_since = None;
        let behind = self.members.iter().enumerate().filter(|(_, member)| !member.is_stopped() && member.unsaved() > 0);
        let parts: Vec<Part> = behind
            .map(|(at, member)| Part::of(at, member.work(*member.progress(), Default::default()), 0, None))
            .collect();
        commit(&self.shared, &mut self.members, parts).await;
    }
}

fn all_wanted(members: &[Member]) -> Wanted {
    wanted(members.iter().map(|member| member.projection.as_ref())).expect("the names were checked at the start")
}

/// Folds what a projection wants of a batch, loading rows as they are missed; `None` if it was cancelled meanwhile.
async fn fold(shared: &Shared, at: usize, member: &Member, batch: &Batch, checkpoint: Checkpoint) -> Option<Part> {
    let progress = member.progress();
    if progress.incarnation != checkpoint.incarnation {
        let (position, incarnation) = (progress.position, progress.incarnation);
        let cause = StopCause::Read(Arc::new(ReadError::StoreRewound { position, incarnation }));
        return Some(part(at, member, None, Outcome::stopped(cause), checkpoint));
    }
    let mut folding = folding(member, batch);
    let outcome = loop {
        let keys = match folding.step() {
            Step::Ready(outcome) => break *outcome,
            Step::Load(keys) => keys,
        };
        match load(shared, member, &keys).await? {
            Ok(Some(rows)) => {
                if let Err(error) = folding.supply(rows) {
                    break Outcome::stopped(StopCause::Row(error));
                }
            }
            // Rows of another place in the log are nothing to fold on.
            Ok(None) => return Some(Part::comparing(at, member)),
            Err(fault) => break Outcome::stopped(StopCause::Database(fault.source)),
        }
    };
    Some(part(at, member, Some(&folding), outcome, checkpoint))
}

/// What is folded of a batch for a projection.
///
/// There are no members for single slots yet, so each folds all streams. No database keeps parked streams yet, so none is parked: the
/// first event that cannot be applied stops the projection, also one with dead letters, and nothing is lost.
fn folding(member: &Member, batch: &Batch) -> Folding {
    Folding::of(member.projection.fold(batch, member.position(), Slot::WHOLE))
}

/// Loads rows as they are where the projection's checkpoint was last seen; `Ok(None)` if it is elsewhere by now, `None` if
/// the wait for a fault that may pass was cancelled.
async fn load(
    shared: &Shared,
    member: &Member,
    keys: &[Vec<ColumnValue>],
) -> Option<Result<Option<Vec<Vec<ColumnValue>>>, Fault>> {
    let mut backoff = Backoff::default();
    loop {
        match shared.database.load(&member.model, member.saved(), keys).await {
            Err(fault) if fault.transient => {
                member.set_retrying(&fault.source);
                tokio::select! {
                    () = shared.cancel.cancelled() => return None,
                    () = sleep(backoff.next_wait()) => {}
                }
            }
            loaded => return Some(loaded),
        }
    }
}

/// How far an outcome brings a projection.
fn part(at: usize, member: &Member, folding: Option<&Folding>, outcome: Outcome, checkpoint: Checkpoint) -> Part {
    let Outcome { applied, changes, stop, .. } = outcome;
    let to = match folding {
        Some(folding) if stop.is_none() && applied == folding.fold().len() => checkpoint,
        Some(folding) if applied > 0 => folding.fold().checkpoint(checkpoint.incarnation, applied),
        _ => *member.progress(),
    };
    Part::of(at, member.work(to, changes), applied, stop)
}

impl Outcome {
    fn stopped(cause: StopCause) -> Self {
        Self { stop: Some(Stop::of(cause)), ..Self::default() }
    }
}
