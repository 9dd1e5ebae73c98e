//! The keeper of a handle's leases: it says now and then that the process is alive, claims what nobody runs, and sees to it that
//! the processes which are there share the work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_eventstore::BackendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::balance::{free, plan};
use crate::database::{Claimed, Fault, Runner, Survey, UnitId};
use crate::error::StopCause;
use crate::member::{Member, chain};
use crate::pass::{Passes, Shared};
use crate::reactor::Reactors;

/// How many surveys there are in the time of a lease: a late one must not cost it.
const SURVEYS_PER_LEASE: u32 = 3;

/// The owner of a lease that is no runner which is alive.
const NO_RUNNER: &str = "a retry of dead letters, or a process that has ended";

/// What else works on the streams of a projection's slots. It is asked whether it has ended with a slot before the slot is
/// given to another process; as long as it has not, it is asked again at every survey.
pub type MayLeave = Arc<dyn Fn(u32) -> bool + Send + Sync>;

/// Units on their way from passes back to the keeper.
#[derive(Clone)]
pub(crate) struct Returns {
    asked: Arc<Mutex<BTreeSet<UnitId>>>,
    ask: Arc<watch::Sender<()>>,
    asking: watch::Receiver<()>,
    given: mpsc::UnboundedSender<Member>,
}

impl Returns {
    /// The same, and where the keeper finds what is given back.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Member>) {
        let (given, taken) = mpsc::unbounded_channel();
        let (ask, asking) = watch::channel(());
        (Self { asked: Arc::default(), ask: Arc::new(ask), asking, given }, taken)
    }

    /// Asks the passes to end the leases of some units and to give them back.
    fn ask(&self, units: impl IntoIterator<Item = UnitId>) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let before = asked.len();
        asked.extend(units);
        if asked.len() > before {
            self.ask.send_replace(());
        }
    }

    /// Which of these units were asked for.
    pub(crate) fn asked(&self, units: impl Iterator<Item = UnitId>) -> BTreeSet<UnitId> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        units.filter(|unit| asked.remove(unit)).collect()
    }

    /// What came back is asked for no more: the next that runs it would give it back at once.
    fn forget(&self, unit: &UnitId) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(unit);
    }

    /// Waits until some units are asked for, perhaps those of another pass.
    pub(crate) async fn wanted(&mut self) {
        if self.asking.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Gives a unit back.
    pub(crate) fn give(&self, member: Member) {
        if let Err(refused) = self.given.send(member) {
            // The keeper has ended: all are being closed.
            refused.0.close();
        }
    }
}

pub(crate) struct Keeper {
    shared: Shared,
    runner: Runner,
    lease: Duration,
    passes: Passes,
    /// What does not run here.
    idle: BTreeMap<UnitId, Member>,
    /// What runs here, with the number of this owner.
    running: BTreeMap<UnitId, i64>,
    reactors: Reactors,
    may_leave: BTreeMap<&'static str, MayLeave>,
    given: mpsc::UnboundedReceiver<Member>,
    free_before: BTreeSet<UnitId>,
    /// What was asked back so that others can have it.
    given_back: BTreeSet<UnitId>,
    orders: mpsc::UnboundedReceiver<Order>,
    /// What is to be started again if it comes back stopped before the next survey, and who waits for that.
    again: BTreeSet<UnitId>,
    waiting: Vec<oneshot::Sender<()>>,
}

/// What people ask of the keeper.
pub(crate) enum Order {
    /// Look at all leases now.
    Look,
    /// Start the slots of this projection that have stopped, and say when they are stopped no longer.
    StartAgain(&'static str, oneshot::Sender<()>),
}

impl Keeper {
    /// Members whose leases are to be kept.
    pub(crate) fn new(
        passes: Passes,
        runner: Runner,
        lease: Duration,
        members: Vec<Member>,
        reactors: Reactors,
        given: mpsc::UnboundedReceiver<Member>,
        orders: mpsc::UnboundedReceiver<Order>,
    ) -> Self {
        Self {
            shared: passes.shared().clone(),
            runner,
            lease,
            passes,
            idle: members.into_iter().map(|member| (member.unit(), member)).collect(),
            running: BTreeMap::new(),
            reactors,
            may_leave: BTreeMap::new(),
            given,
            free_before: BTreeSet::new(),
            given_back: BTreeSet::new(),
            orders,
            again: BTreeSet::new(),
            waiting: Vec::new(),
        }
    }

    /// Who is asked before slots of projections are given to others.
    pub(crate) fn asking(self, may_leave: BTreeMap<&'static str, MayLeave>) -> Self {
        Self { may_leave, ..self }
    }

    /// Runs until it is cancelled.
    pub(crate) async fn run(mut self) {
        let mut next = Instant::now() + self.pause();
        loop {
            let look = tokio::select! {
                biased;
                () = self.shared.cancel.cancelled() => break,
                Some(member) = self.given.recv() => {
                    // What comes back together is looked at and claimed together, so that it reads the log together.
                    let mut look = self.take_back(member);
                    while let Ok(member) = self.given.try_recv() {
                        look |= self.take_back(member);
                    }
                    look
                }
                unit = self.reactors.ended() => {
                    self.reactors.take_back(&self.shared, unit).await;
                    false
                }
                Some(order) = self.orders.recv() => {
                    self.follow(order);
                    true
                }
                () = sleep_until(next) => {
                    self.again.clear();
                    self.waiting.clear();
                    true
                }
            };
            if look {
                next = Instant::now() + self.pause();
                self.survey().await;
            }
        }
        self.given.close();
        while let Some(member) = self.given.recv().await {
            member.close();
        }
        for member in self.idle.values() {
            member.close();
        }
        self.reactors.close(&self.shared).await;
        if let Err(fault) = self.shared.database.leave(&self.runner).await {
            tracing::debug!(fault = %fault.source, "others will notice later that this process has ended");
        }
    }

    fn pause(&self) -> Duration {
        self.lease / SURVEYS_PER_LEASE
    }

    /// Takes what does not run here any more. Whether it should be looked at now: it was taken by others, who may have left it again,
    /// or is to be started again.
    fn take_back(&mut self, mut member: Member) -> bool {
        let unit = member.unit();
        self.running.remove(&unit);
        self.shared.returns.forget(&unit);
        let again = self.again.remove(&unit) && member.is_stopped();
        if again {
            member.start_again();
            self.waiting.clear();
        }
        self.idle.insert(unit, member);
        let given_back = self.given_back.remove(&unit);
        again || (!given_back && !self.idle[&unit].is_stopped())
    }

    fn follow(&mut self, order: Order) {
        let Order::StartAgain(projection, done) = order else { return };
        let mut any = false;
        for member in self.idle.values_mut().filter(|m| m.is_stopped() && m.model.projection == projection) {
            member.start_again();
            any = true;
        }
        // The caller is answered when this is dropped.
        if !any {
            self.waiting.push(done);
        }
        // Its pass may not have handed it over yet.
        self.again.extend(self.running.keys().filter(|unit| unit.projection == projection));
    }

    /// Renews the leases, looks at all, and acts.
    pub(crate) async fn survey(&mut self) {
        let stopped = self.idle.values().filter(|member| member.is_stopped()).map(Member::unit);
        self.runner.stopped = stopped.chain(self.reactors.stopped()).collect();
        let survey = tokio::select! {
            biased;
            () = self.shared.cancel.cancelled() => return,
            survey = self.shared.database.survey(&self.runner, self.lease) => survey,
        };
        match survey {
            Ok(survey) => self.act(&survey).await,
            Err(fault) => self.cannot(fault),
        }
    }

    async fn act(&mut self, survey: &Survey) {
        self.look_at_others(survey);
        let plan = plan(self.runner.id, survey, &self.free_before);
        self.free_before = free(survey);
        let (reactors, give_back): (Vec<_>, Vec<_>) =
            plan.give_back.into_iter().partition(|unit| self.reactors.has(unit));
        self.reactors.end(&reactors);
        let leaves = |unit: &UnitId| self.may_leave.get(unit.projection).is_none_or(|may_leave| may_leave(unit.slot));
        let give_back: Vec<UnitId> = give_back.into_iter().filter(leaves).collect();
        self.given_back.extend(&give_back);
        self.shared.returns.ask(give_back);
        let is_idle = |unit: &UnitId| {
            self.idle.get(unit).is_some_and(|member| !member.is_stopped()) || self.reactors.is_idle(unit)
        };
        let claims: Vec<UnitId> = plan.claim.into_iter().filter(is_idle).collect();
        if claims.is_empty() {
            return;
        }
        match self.shared.database.claim(&self.runner, &claims, self.lease).await {
            Ok(claimed) => self.start(claimed).await,
            Err(fault) => self.cannot(fault),
        }
    }

    /// Notes how far others are with what does not run here, and whether they have taken what does.
    fn look_at_others(&mut self, survey: &Survey) {
        let name = |id| {
            let runner = survey.runners.iter().find(|runner| runner.id == id);
            runner.map_or(NO_RUNNER, |runner| runner.name.as_str())
        };
        let mut missing: BTreeSet<UnitId> = self.idle.keys().copied().collect();
        let mut lost = Vec::new();
        for state in &survey.units {
            self.reactors.look_at(state, state.owner.map(name));
            missing.remove(&state.unit);
            match self.idle.get_mut(&state.unit) {
                Some(member) if !member.is_stopped() => member.look_at_lease(state, state.owner.map(name)),
                Some(_) => {}
                None => lost
                    .extend(self.running.get(&state.unit).filter(|epoch| **epoch != state.epoch).map(|_| state.unit)),
            }
        }
        self.shared.returns.ask(lost);
        for unit in missing {
            if let Some(member) = self.idle.get_mut(&unit).filter(|member| !member.is_stopped()) {
                member.stop_for_good(StopCause::CheckpointRemoved);
            }
        }
    }

    /// Runs what was claimed: those close to each other together, each from where it is to the end of the log, where they join
    /// those that follow it.
    async fn start(&mut self, claimed: Vec<Claimed>) {
        let mut members = Vec::with_capacity(claimed.len());
        for claimed in claimed {
            let Claimed { unit, epoch, .. } = claimed;
            if self.reactors.has(&unit) {
                self.reactors.start(&self.passes, unit, epoch).await;
                continue;
            }
            let Some(mut member) = self.idle.remove(&unit) else { continue };
            if member.projection.parks() {
                // From now on nobody else parks or reopens a stream of the unit without taking it.
                match self.shared.database.parked(unit).await {
                    Ok(parked) => member.set_parked(parked.into_iter().map(|parked| parked.event).collect()),
                    Err(fault) => {
                        match fault.transient {
                            true => member.set_retrying(&fault.source),
                            false => member.stop_by(fault),
                        }
                        self.idle.insert(unit, member);
                        self.shared.database.release(&[(unit, epoch)]).await.ok();
                        continue;
                    }
                }
            }
            member.claimed(&claimed);
            self.running.insert(unit, epoch);
            members.push(member);
        }
        self.passes.start(members);
    }

    /// The database did not answer, which may pass; or it refused, and what does not run here stops.
    fn cannot(&mut self, fault: Fault) {
        let source = Arc::new(fault.source);
        let refused = || StopCause::Database(BackendError::new(Arc::clone(&source)));
        for member in self.idle.values_mut().filter(|member| !member.is_stopped()) {
            match fault.transient {
                true => member.set_retrying(source.as_ref()),
                false => member.stop_for_good(refused()),
            }
        }
        for reactor in self.reactors.idle() {
            match fault.transient {
                true => reactor.set_retrying(chain(source.as_ref())),
                false => reactor.stop(refused()),
            }
        }
    }
}
