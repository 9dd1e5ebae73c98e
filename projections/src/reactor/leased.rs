//! The reactors of a handle, as their leases come and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_eventstore::BackendError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::start::Member;
use crate::database::{LeaseState, UnitId};
use crate::error::StopCause;
use crate::member::chain;
use crate::pass::{Passes, Shared};

pub(crate) struct Reactors {
    members: BTreeMap<UnitId, Member>,
    /// Those that run here: the number of this owner, and what ends the run.
    running: BTreeMap<UnitId, (i64, CancellationToken)>,
    /// What this process is called.
    runner: Arc<str>,
    end: mpsc::UnboundedSender<UnitId>,
    ended: mpsc::UnboundedReceiver<UnitId>,
}

impl Reactors {
    /// The reactors of a process of some name.
    pub(crate) fn of(members: Vec<Member>, runner: Arc<str>) -> Self {
        let (end, ended) = mpsc::unbounded_channel();
        let members = members.into_iter().map(|member| (member.unit, member)).collect();
        Self { members, running: BTreeMap::new(), runner, end, ended }
    }

    pub(crate) fn has(&self, unit: &UnitId) -> bool {
        self.members.contains_key(unit)
    }

    /// Whether it may be run here and is not.
    pub(crate) fn is_idle(&self, unit: &UnitId) -> bool {
        !self.running.contains_key(unit) && self.members.get(unit).is_some_and(|member| !member.is_stopped())
    }

    /// All that may be run here and are not.
    pub(crate) fn idle(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| self.is_idle(&member.unit))
    }

    /// Those that have stopped here.
    pub(crate) fn stopped(&self) -> impl Iterator<Item = UnitId> {
        self.members.values().filter(|member| member.is_stopped()).map(|member| member.unit)
    }

    /// Runs one that was claimed. If it cannot be, it is left to the next survey.
    pub(crate) async fn start(&mut self, passes: &Passes, unit: UnitId, epoch: i64) {
        let Some(member) = self.members.get(&unit) else { return };
        let shared = passes.shared();
        let cancel = shared.cancel.child_token();
        match member.run(shared, &self.runner, cancel.clone()).await {
            Ok(run) => {
                self.running.insert(unit, (epoch, cancel));
                let end = self.end.clone();
                passes.run_beside(async move {
                    run.await;
                    // The keeper hears of it, unless it has panicked.
                    end.send(unit).ok();
                });
            }
            Err(error) => {
                match error.is_transient() {
                    true => member.set_retrying(chain(&error)),
                    false => member.stop(StopCause::Database(BackendError::new(error))),
                }
                release(shared, unit, epoch).await;
            }
        }
    }

    /// Ends the runs of these, as soon as their handlers have ended.
    pub(crate) fn end(&self, units: &[UnitId]) {
        for (_, cancel) in units.iter().filter_map(|unit| self.running.get(unit)) {
            cancel.cancel();
        }
    }

    /// Looks at what is stored of one: who runs it, and whether another process has taken it.
    pub(crate) fn look_at(&self, state: &LeaseState, owner: Option<&str>) {
        match self.running.get(&state.unit) {
            Some((epoch, cancel)) if *epoch != state.epoch => cancel.cancel(),
            Some(_) => {}
            None => {
                if let Some(member) = self.members.get(&state.unit) {
                    member.set_standby(owner, state.checkpoint.position);
                }
            }
        }
    }

    /// The next whose run has ended.
    pub(crate) async fn ended(&mut self) -> UnitId {
        match self.ended.recv().await {
            Some(unit) => unit,
            None => std::future::pending().await,
        }
    }

    /// Lets others have one whose run has ended.
    pub(crate) async fn take_back(&mut self, shared: &Shared, unit: UnitId) {
        let Some((epoch, _)) = self.running.remove(&unit) else { return };
        if let Some(member) = self.members.get(&unit) {
            member.set_ended();
        }
        release(shared, unit, epoch).await;
    }

    /// Waits for all runs, which have been cancelled.
    pub(crate) async fn close(&mut self, shared: &Shared) {
        while !self.running.is_empty() {
            let unit = self.ended().await;
            if let Some((epoch, _)) = self.running.remove(&unit) {
                release(shared, unit, epoch).await;
            }
        }
        for member in self.members.values() {
            member.close();
        }
    }
}

async fn release(shared: &Shared, unit: UnitId, epoch: i64) {
    if let Err(fault) = shared.database.release(&[(unit, epoch)]).await {
        tracing::debug!(fault = %fault.source, "a lease could not be ended; it will expire");
    }
}
