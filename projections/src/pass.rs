//! A read pass: one reader of the log, and the projections that fold what it reads.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{Backoff, Checkpoint, Clock, EventStore, Position, ReadError};
use futures::FutureExt;
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::batch::Batch;
use crate::column::bytes_of;
use crate::commit::{Part, Seen, commit, move_on};
use crate::database::{Fault, ParkingChanges, ReadModels, UnitId};
use crate::error::{StopCause, Stopped};
use crate::fold::panic_text;
use crate::folding::{Folding, MOST_LOADED, Outcome, Step, Stop};
use crate::keeper::Returns;
use crate::loading::load;
use crate::member::{Member, log_stopped, wanted};
use crate::page_reader::{PageReader, Wanted};
use crate::parking::Parked;
use crate::status::StatusSender;
use crate::switch::switch;
use crate::transaction::{self, MOST_AT_ONCE};

/// How long a stored checkpoint may stay behind where nothing concerned the projection.
const SAVE_AFTER: Duration = Duration::from_secs(1);

/// The same, in positions.
const SAVE_BEHIND: i64 = 100_000;

/// So often an event is begun at most if processes end meanwhile.
pub(crate) const MOST_TRIES: u32 = 5;

/// With so many streams parked in a slot the next one that fails stops the projection.
const MOST_PARKED: usize = 10_000;

/// How often the log is looked at although no notification came: a wake-up that got lost costs this much and no more.
const LOOK_ANYWAY: Duration = Duration::from_secs(5);

/// What every pass of a runner shares.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) database: Arc<dyn ReadModels>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cancel: CancellationToken,
    pub(crate) returns: Returns,
}

impl Shared {
    /// Whether a version with this checkpoint was built from a log that is gone, so that it is no measure for others.
    pub(crate) async fn is_foreign(&self, checkpoint: &Checkpoint) -> bool {
        matches!(self.store.check_checkpoint(checkpoint).await, Err(ReadError::StoreRewound { .. }))
    }
}

/// Projections whose positions differ by at most this share a pass from the start; those further behind catch up first.
const TOGETHER: i64 = 10_000;

/// The passes of a runner: one follows the log, the others lead projections to it.
#[derive(Clone)]
pub(crate) struct Passes {
    shared: Shared,
    join: mpsc::UnboundedSender<Vec<Member>>,
    tracker: TaskTracker,
    status_senders: Vec<Arc<StatusSender>>,
}

impl Passes {
    /// Starts the pass that follows the log, with no projections yet.
    pub(crate) fn follow(shared: Shared, tracker: TaskTracker, status_senders: Vec<Arc<StatusSender>>) -> Self {
        let (join, joining) = mpsc::unbounded_channel();
        let passes = Self { shared, join, tracker, status_senders };
        passes.spawn(Role::Follow(joining), Vec::new());
        passes
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Starts a pass for each group of projections that are close to each other, and for each transaction projection.
    pub(crate) fn start(&self, members: Vec<Member>) {
        let (alone, mut members): (Vec<_>, _) =
            members.into_iter().partition(|member| member.model.is_in_transaction());
        for member in alone {
            self.spawn(Role::Alone, vec![member]);
        }
        members.sort_by_key(|member| std::cmp::Reverse(member.position()));
        while !members.is_empty() {
            let apart = members
                .windows(2)
                .position(|pair| pair[0].position().get() - pair[1].position().get() > TOGETHER)
                .map_or(members.len(), |at| at + 1);
            let behind = members.split_off(apart);
            self.spawn(Role::CatchUp(self.join.clone()), members);
            members = behind;
        }
    }

    /// Runs something else that ends with the handle.
    pub(crate) fn run_beside(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    fn spawn(&self, role: Role, members: Vec<Member>) {
        let pass = Pass::new(self.clone(), role, members);
        self.tracker.spawn(guard(pass, self.status_senders.clone(), self.shared.cancel.clone()));
    }
}

/// Runs a pass. Should it panic, which no projection can make it do, nobody waits in vain: everything stops and says so.
async fn guard(pass: Pass, status_senders: Vec<Arc<StatusSender>>, cancel: CancellationToken) {
    let Err(panic) = AssertUnwindSafe(pass.run()).catch_unwind().await else { return };
    let what = panic_text(panic.as_ref());
    for status_sender in status_senders {
        status_sender.send_modify(|status| {
            let stopped = Stopped {
                projection: Arc::clone(&status.name),
                version: status.version,
                position: status.position,
                event: None,
                cause: Arc::new(StopCause::Runner(what.clone())),
            };
            if status.state.is_running() {
                log_stopped(&stopped);
                status.stop_all(&stopped);
            }
        });
    }
    cancel.cancel();
}

/// What becomes of the projections of a pass when they reach the end of the log.
pub(crate) enum Role {
    /// They follow the log. Projections of other passes join them.
    Follow(mpsc::UnboundedReceiver<Vec<Member>>),
    /// They join those that follow the log, and the pass ends.
    CatchUp(mpsc::UnboundedSender<Vec<Member>>),
    /// It is a transaction projection, and follows the log by itself: how long its SQL takes is its own matter.
    Alone,
}

/// Projections that share one reader.
pub(crate) struct Pass {
    shared: Shared,
    passes: Passes,
    role: Role,
    members: Vec<Member>,
    wanted: Wanted,
    pages: PageReader,
    /// Whether the log may have been replaced since it was last looked at.
    recheck: bool,
    /// Whether the log could not be read lately.
    paused: bool,
    backoff: Backoff,
    unsaved_since: Option<Instant>,
}

impl Pass {
    fn new(passes: Passes, role: Role, members: Vec<Member>) -> Self {
        let shared = passes.shared.clone();
        let wanted = all_wanted(&members);
        let pages = match role {
            Role::Alone => PageReader::with_batches_of(Arc::clone(&shared.store), MOST_AT_ONCE),
            _ => PageReader::of(Arc::clone(&shared.store)),
        };
        let (recheck, paused, backoff, unsaved_since) = (false, false, Backoff::default(), None);
        Self { shared, passes, role, members, wanted, pages, recheck, paused, backoff, unsaved_since }
    }

    /// Runs until it is cancelled, or until there is nothing left to do for a pass that catches up.
    pub(crate) async fn run(mut self) {
        while !self.shared.cancel.is_cancelled() {
            self.take_in();
            self.give_back_what_is_asked_for().await;
            self.hand_over().await;
            self.part_with_the_blocked();
            let Some(after) = self.members.iter().map(Member::progress).min_by_key(|at| at.position).copied() else {
                match &self.role {
                    Role::CatchUp(_) | Role::Alone => return,
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
            if std::mem::take(&mut self.paused) {
                self.members.iter().for_each(Member::resume);
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
                // What has stopped is handed over first.
                if self.is_at(reached) && self.members.iter().all(Member::is_running) {
                    self.wait().await;
                }
            }
        }
        self.stop_taking_in();
        self.save().await;
        self.release(|_| true).await;
        for member in &self.members {
            member.close();
        }
    }

    /// Gives up what other processes are to have.
    async fn give_back_what_is_asked_for(&mut self) {
        let asked = self.shared.returns.asked(self.members.iter().map(Member::unit));
        if asked.is_empty() {
            return;
        }
        self.save().await;
        self.release(|member| asked.contains(&member.unit())).await;
    }

    /// Ends the leases of some of the projections that run here.
    async fn release(&mut self, of: impl Fn(&Member) -> bool) {
        let given_up = self.members.iter_mut().filter(|member| member.is_running() && of(member));
        let held = given_up.map(|member| {
            member.given_up();
            member.held()
        });
        let held: Vec<(UnitId, i64)> = held.collect();
        end_leases(&self.shared, &held).await;
    }

    /// Hands over to the keeper what does not run here any more.
    async fn hand_over(&mut self) {
        if self.members.iter().all(Member::is_running) {
            return;
        }
        let (running, ended): (Vec<Member>, _) =
            std::mem::take(&mut self.members).into_iter().partition(Member::is_running);
        self.members = running;
        self.wanted = all_wanted(&self.members);
        let stopped: Vec<(UnitId, i64)> = ended.iter().filter(|member| member.is_stopped()).map(Member::held).collect();
        end_leases(&self.shared, &stopped).await;
        for member in ended {
            self.shared.returns.give(member);
        }
    }

    /// Gives what others must not wait for a pass of its own. It comes back when it has caught up.
    fn part_with_the_blocked(&mut self) {
        let (blocked, others): (Vec<Member>, _) = std::mem::take(&mut self.members)
            .into_iter()
            .partition(|member| member.is_running() && member.is_blocked());
        self.members = others;
        if blocked.is_empty() {
            return;
        }
        self.wanted = all_wanted(&self.members);
        for member in blocked {
            self.passes.spawn(Role::CatchUp(self.passes.join.clone()), vec![member.apart()]);
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
        self.members.iter().all(Member::is_running)
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
        self.paused = true;
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
        self.members.iter().filter(|member| member.is_running())
    }

    /// Lets every projection apply what it wants of a batch that accounts for the log behind `after` up to `checkpoint`.
    async fn process(&mut self, batch: &Batch, after: Position, checkpoint: Checkpoint) {
        for member in &mut self.members {
            member.look_at(batch);
        }
        if let Role::Alone = self.role {
            return transaction::process(&self.shared, &mut self.members, batch, checkpoint).await;
        }
        loop {
            let shared = &self.shared;
            // A projection that was put back behind the beginning of the batch must read again from there.
            let takes = |member: &Member| {
                let is_there = member.position() >= after && member.position() < checkpoint.position;
                member.is_running() && !member.is_blocked() && is_there
            };
            let mut behind: Vec<usize> = (0..self.members.len()).filter(|&at| takes(&self.members[at])).collect();
            leave_one_alone(&mut behind, &self.members, batch);
            if behind.is_empty() {
                return;
            }
            let beside_others = self.running().count() > 1;
            let folded = behind.iter().map(|&at| fold(shared, at, &self.members[at], batch, checkpoint, beside_others));
            let (mut parts, mut blocked) = (Vec::new(), Vec::new());
            for (folded, at) in join_all(folded).await.into_iter().zip(behind) {
                match folded {
                    Some(Ok(part)) => parts.push(part),
                    Some(Err(fault)) => blocked.push((at, fault)),
                    None => return,
                }
            }
            blocked.iter().for_each(|(at, fault)| self.members[*at].block(fault));
            if parts.is_empty() {
                return;
            }
            if !move_on(shared, &mut self.members, parts).await || shared.cancel.is_cancelled() {
                return;
            }
        }
    }

    /// Compares every stored checkpoint, though there is nothing to apply.
    async fn compare(&mut self) {
        let running = self.members.iter().enumerate().filter(|(_, member)| member.is_running());
        let parts = running.map(|(at, member)| Part::comparing(at, member)).collect();
        move_on(&self.shared, &mut self.members, parts).await;
    }

    /// The end of the log is reached.
    async fn caught_up(&mut self) {
        let asks = |member: &Member| {
            let due = member.show_after.is_none_or(|after| after <= Instant::now());
            !member.settled && member.is_running() && due
        };
        // Whether a version may be shown is judged by its stored checkpoint.
        if self.members.iter().any(|member| asks(member) && member.unsaved() > 0) {
            self.save().await;
        }
        for member in &mut self.members {
            if asks(member) {
                switch(&self.shared, member).await;
            }
            if member.is_running() {
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
                Role::CatchUp(_) | Role::Alone => None,
            }
        };
        let joined = tokio::select! {
            biased;
            () = self.shared.cancel.cancelled() => return,
            Some(joined) = joining => joined,
            Ok(()) = self.pages.changed() => return,
            () = self.shared.returns.wanted() => return,
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
        let behind = self.members.iter().enumerate().filter(|(_, member)| member.is_running() && member.unsaved() > 0);
        let parts: Vec<Part> = behind
            .map(|(at, member)| Part::of(at, member.work(*member.progress(), Default::default()), 0, None))
            .collect();
        commit(&self.shared, &mut self.members, parts).await;
    }
}

/// Lets other processes claim units at once. If the database cannot be asked, their leases end by themselves.
async fn end_leases(shared: &Shared, held: &[(UnitId, i64)]) {
    if held.is_empty() {
        return;
    }
    if let Err(fault) = shared.database.release(held).await {
        tracing::debug!(fault = %fault.source, "leases could not be ended; they will expire");
    }
}

fn all_wanted(members: &[Member]) -> Wanted {
    wanted(members.iter().map(|member| member.projection.as_ref())).expect("the names were checked at the start")
}

/// Leaves one of those that apply an event alone, the one furthest behind: if the process ends, it was that event.
fn leave_one_alone(behind: &mut Vec<usize>, members: &[Member], batch: &Batch) {
    let is_alone = |at: &usize| members[*at].is_careful() && folding(&members[*at], batch).fold().len() > 0;
    let all: Vec<usize> = behind.iter().copied().filter(is_alone).collect();
    let first = all.iter().copied().min_by_key(|&at| members[at].position());
    behind.retain(|at| Some(*at) == first || !all.contains(at));
}

/// Folds what a projection wants of a batch, loading rows as they are missed; `None` if it was cancelled meanwhile.
///
/// # Errors
/// The fault, if others block it by their locks and it would keep projections beside it waiting.
async fn fold(
    shared: &Shared,
    at: usize,
    member: &Member,
    batch: &Batch,
    checkpoint: Checkpoint,
    beside_others: bool,
) -> Option<Result<Part, Fault>> {
    if let Some(cause) = other_log(member, checkpoint) {
        return Some(Ok(part(at, member, None, Outcome::stopped(cause), checkpoint)));
    }
    let mut folding = folding(member, batch);
    let seen = match member.is_live() && folding.fold().len() > 0 {
        true => Seen { first: Some(folding.fold().recorded_at(0)), _spans: folding.fold().spans() },
        false => Seen::default(),
    };
    if member.is_careful() && folding.fold().len() > 0 {
        folding = folding.at_most(1);
        let first = folding.fold().place(0).position;
        match begin_try(shared, member, first).await? {
            Ok(Some(tries)) if tries > MOST_TRIES => folding.refuse_first(StopCause::ProcessEnded(MOST_TRIES)),
            Ok(Some(_)) => {}
            Ok(None) => return Some(Ok(Part::comparing(at, member))),
            Err(fault) => {
                let stopped = Outcome::stopped(StopCause::Database(fault.source));
                return Some(Ok(part(at, member, Some(&folding), stopped, checkpoint)));
            }
        }
    }
    let mut backoff = Backoff::default();
    let outcome = loop {
        let keys = match folding.step() {
            Step::Ready(outcome) => break *outcome,
            Step::Load(keys) => keys,
        };
        let loaded = loop {
            match load(shared.database.as_ref(), member, &keys, folding.room()).await {
                Err(fault) if fault.transient && !(fault.blocked && beside_others) => {
                    member.set_retrying(&fault.source);
                    tokio::select! {
                        () = shared.cancel.cancelled() => return None,
                        () = sleep(backoff.next_wait()) => {}
                    }
                }
                loaded => break loaded,
            }
        };
        match loaded {
            Ok(Some(loaded)) => folding.supply(loaded),
            // Rows of another place in the log are nothing to fold on.
            Ok(None) => return Some(Ok(Part::comparing(at, member))),
            Err(fault) if fault.transient => return Some(Err(fault)),
            Err(fault) => break Outcome::stopped(StopCause::Database(fault.source)),
        }
    };
    if outcome.applied > 0 {
        member.written_size().note(outcome.applied, bytes_of(&outcome.changes.written));
    }
    Some(Ok(part(at, member, Some(&folding), outcome, checkpoint).seen(seen)))
}

/// Why a projection cannot go on to a checkpoint, if that is of another log than its own.
pub(crate) fn other_log(member: &Member, checkpoint: Checkpoint) -> Option<StopCause> {
    let Checkpoint { position, incarnation, .. } = *member.progress();
    let rewound = || StopCause::Read(Arc::new(ReadError::StoreRewound { position, incarnation }));
    (incarnation != checkpoint.incarnation).then(rewound)
}

/// What is folded of a batch for a slot of a projection.
fn folding(member: &Member, batch: &Batch) -> Folding {
    let fold = member.projection.fold(batch, member.position(), member.slot());
    let most = member.written_size().rows_within(MOST_LOADED, fold.len());
    let folding = Folding::of(fold).at_most(most);
    // Where too many streams fail, the fold is to blame and not the streams.
    let parks = member.projection.parks() && member.parked().len() < MOST_PARKED;
    if parks { folding.parking(Arc::clone(member.parked())) } else { folding }
}

/// Counts that an event is about to be applied alone; `None` if the wait for a fault that may pass was cancelled.
pub(crate) async fn begin_try(
    shared: &Shared,
    member: &Member,
    position: Position,
) -> Option<Result<Option<u32>, Fault>> {
    let (mut backoff, (unit, epoch)) = (Backoff::default(), member.held());
    loop {
        match shared.database.begin_try(unit, epoch, position).await {
            Err(fault) if fault.transient => {
                member.set_retrying(&fault.source);
                tokio::select! {
                    () = shared.cancel.cancelled() => return None,
                    () = sleep(backoff.next_wait()) => {}
                }
            }
            begun => return Some(begun),
        }
    }
}

/// How far an outcome brings a projection.
fn part(at: usize, member: &Member, folding: Option<&Folding>, outcome: Outcome, checkpoint: Checkpoint) -> Part {
    let Outcome { applied, changes, stop, parked, passed_over } = outcome;
    let park = parked.into_iter().map(|Parked { event, cause }| (event, cause.reason())).collect();
    let parking = ParkingChanges { park, passed_over, ..ParkingChanges::default() };
    let to = match folding {
        Some(folding) if stop.is_none() && applied == folding.fold().len() => checkpoint,
        Some(folding) if applied > 0 => folding.fold().checkpoint(checkpoint.incarnation, applied),
        _ => *member.progress(),
    };
    Part::of(at, member.work_with(to, changes, parking), applied, stop)
}

impl Outcome {
    fn stopped(cause: StopCause) -> Self {
        Self { stop: Some(Stop::of(cause)), ..Self::default() }
    }
}
