//! Starting reactors: where each is, and that it is this process's from now on.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use annals_eventstore::{AsOf, Checkpoint, EventStore, Filter, IdSource, Invalid, Position, ReadError, TimeOrderedIds};
use futures::FutureExt;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::engine::{Run, Surroundings};
use super::keeper::{Opening, checkpoint_name};
use super::reactions::AnyReactor;
use super::reactor::First;
use super::status::{ReactorState, ReactorStatus};
use crate::commit::check_log;
use crate::database::UnitId;
use crate::error::{StartError, StopCause, Stopped, is_rewind};
use crate::fold::panic_text;
use crate::member::log_stopped;
use crate::page_reader::Wanted;
use crate::pass::Shared;
use crate::read_model::{NAME_RULE, is_identifier};

/// A reactor of a handle, whether it runs here or not.
pub(crate) struct Member {
    pub(crate) unit: UnitId,
    reactor: Arc<dyn AnyReactor>,
    wanted: Wanted,
    start: Checkpoint,
    status: Arc<watch::Sender<ReactorStatus>>,
    asked: Arc<Notify>,
}

/// What the handle knows of a reactor.
pub(crate) struct KnownReactor {
    pub(crate) name: &'static str,
    pub(crate) status: watch::Receiver<ReactorStatus>,
    /// To be told when somebody has asked to retry a parked stream.
    pub(crate) asked: Arc<Notify>,
}

/// Checks everything that can be checked without a database.
pub(crate) fn check(reactors: &[Box<dyn AnyReactor>]) -> Result<(), StartError> {
    for (at, reactor) in reactors.iter().enumerate() {
        let name = reactor.name();
        if !is_identifier(name) {
            let problem = format!("of a reactor is `{}`, which cannot be used in SQL", name.escape_debug());
            return Err(Invalid::new("NAME", problem, NAME_RULE).into());
        }
        if reactors[..at].iter().any(|earlier| earlier.name() == name) {
            let problem = format!("`{name}` is that of two reactors");
            return Err(Invalid::new("NAME", problem, "give each a name of its own").into());
        }
        if reactor.names().is_empty() {
            let problem = format!("of reactor `{name}` has no event");
            return Err(Invalid::new("Event", problem, "give the type at least one event").into());
        }
        reactor.options().check(name)?;
        wanted(reactor.as_ref())?;
    }
    Ok(())
}

fn wanted(reactor: &dyn AnyReactor) -> Result<Wanted, Invalid> {
    let mut filter = Filter::all();
    for name in reactor.names() {
        filter = filter.event_name(name).map_err(|why| {
            let problem = format!("of reactor `{}` names an event that {}", reactor.name(), why.problem);
            Invalid::new("Event", problem, why.fix)
        })?;
    }
    for aggregate_type in reactor.aggregate_types().unwrap_or_default() {
        filter = filter.aggregate_type(aggregate_type)?;
    }
    if let Some(tenant) = reactor.tenant() {
        filter = filter.tenant(tenant.clone());
    }
    Ok(Wanted { filter, decoders: vec![reactor.decoder()] })
}

/// Prepares every reactor to be run, here or by another process. Where nothing is stored yet, where it begins is stored when this
/// returns.
pub(crate) async fn prepare(shared: &Shared, reactors: Vec<Box<dyn AnyReactor>>) -> Result<Vec<Member>, StartError> {
    let store = shared.store.as_ref();
    // What can be refused is refused before anything is stored.
    let mut starts = Vec::with_capacity(reactors.len());
    for reactor in &reactors {
        let start = match shared.database.reactor_checkpoint(reactor.name()).await? {
            Some(stored) => stored,
            None => first(store, reactor.as_ref()).await.map_err(StartError::Store)?,
        };
        check_log(store, &start).await.map_err(|error| refused(reactor.name(), error))?;
        starts.push(start);
    }
    let mut members = Vec::with_capacity(reactors.len());
    for (reactor, start) in reactors.into_iter().zip(starts) {
        let name = reactor.name();
        shared.database.prepare_reactor(&opening(shared, reactor.as_ref(), start)).await?;
        let status = watch::Sender::new(ReactorStatus::new(name, start.position));
        members.push(Member {
            unit: unit_of(name),
            wanted: wanted(reactor.as_ref())?,
            reactor: Arc::from(reactor),
            start,
            status: Arc::new(status),
            asked: Arc::default(),
        });
    }
    Ok(members)
}

fn opening(shared: &Shared, reactor: &dyn AnyReactor, start: Checkpoint) -> Opening {
    let mut names = reactor.names();
    names.sort_unstable();
    names.dedup();
    Opening {
        reactor: reactor.name(),
        events: names.join("\n"),
        tenant: reactor.tenant().cloned(),
        start,
        owner: TimeOrderedIds.next_id(),
        clock: Arc::clone(&shared.clock),
    }
}

/// The unit whose lease a reactor needs: that of its checkpoint.
pub(crate) fn unit_of(reactor: &str) -> UnitId {
    UnitId { projection: interned(&checkpoint_name(reactor)), version: 1, slot: 0 }
}

/// The same text for as long as the program runs. There is one for each name of a reactor, which are few.
fn interned(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known;
    }
    let new: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.insert(new);
    new
}

/// Where a reactor begins when it is started for the first time.
async fn first(store: &dyn EventStore, reactor: &dyn AnyReactor) -> Result<Checkpoint, ReadError> {
    match reactor.options().first {
        First::Head => store.head().await,
        First::After(position) if position == annals_eventstore::Position::START => {
            Ok(Checkpoint::start(store.incarnation()))
        }
        First::After(position) => store.log_as_of(AsOf::position(position)).await,
    }
}

fn refused(reactor: &'static str, error: ReadError) -> StartError {
    if is_rewind(&error) {
        return StartError::ReactorRewound { reactor, source: error };
    }
    StartError::Store(error)
}

impl Member {
    pub(crate) fn known(&self) -> KnownReactor {
        KnownReactor { name: self.reactor.name(), status: self.status.subscribe(), asked: Arc::clone(&self.asked) }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.status.borrow().state, ReactorState::Stopped(_))
    }

    /// What is known of it while it does not run here.
    pub(crate) fn set_standby(&self, owner: Option<&str>, position: Position) {
        if !self.is_stopped() {
            self.status.send_modify(|status| {
                (status.in_flight, status.retrying, status.parked, status.last_error) = (0, 0, 0, None);
                (status.position, status.owner) = (position, owner.map(Into::into));
                status.set_state(ReactorState::Standby { owner: owner.map(Into::into) });
            });
        }
    }

    /// Its run here has ended.
    pub(crate) fn set_ended(&self) {
        if !self.is_stopped() {
            self.status.send_modify(|status| {
                status.owner = None;
                status.set_state(ReactorState::Standby { owner: None });
            });
        }
    }

    /// It goes no further in this process.
    pub(crate) fn stop(&self, cause: StopCause) {
        stop(&self.status, cause);
    }

    pub(crate) fn set_retrying(&self, fault: String) {
        self.status.send_modify(|status| status.set_state(ReactorState::Retrying { fault }));
    }

    pub(crate) fn close(&self) {
        if !self.is_stopped() {
            self.status.send_modify(|status| status.set_state(ReactorState::Closed));
        }
    }

    /// Takes it from the process that ran it before; the future that is given runs it, until it ends or `cancel` ends it.
    pub(crate) async fn run(
        &self,
        shared: &Shared,
        runner: &Arc<str>,
        cancel: CancellationToken,
    ) -> Result<impl Future<Output = ()> + Send + 'static, StartError> {
        let opened = shared.database.open_reactor(opening(shared, self.reactor.as_ref(), self.start)).await?;
        let parked = opened.failing.iter().filter(|failing| failing.parked).count();
        let last_error = opened.failing.last().map(|failing| format!("{}: {}", failing.place, failing.error));
        self.status.send_modify(|status| {
            (status.position, status.parked, status.last_error) = (opened.checkpoint.position, parked, last_error);
            status.owner = Some(Arc::clone(runner));
            status.set_state(ReactorState::CatchingUp);
        });
        let around = Surroundings {
            store: Arc::clone(&shared.store),
            clock: Arc::clone(&shared.clock),
            cancel,
            database: Arc::clone(&shared.database),
            asked: Arc::clone(&self.asked),
            status: Arc::clone(&self.status),
        };
        let run = Run::new(around, Arc::clone(&self.reactor), self.wanted.clone(), opened);
        let status = Arc::clone(&self.status);
        Ok(async move {
            let ended = AssertUnwindSafe(run.run()).catch_unwind().await;
            // Should the engine itself panic, nobody waits in vain.
            let Err(panic) = ended else { return };
            let text = panic_text(panic.as_ref());
            stop(&status, StopCause::Runner(text));
        })
    }
}

fn stop(status: &watch::Sender<ReactorStatus>, cause: StopCause) {
    status.send_modify(|status| {
        let stopped = Stopped {
            projection: Arc::clone(&status.name),
            version: 0,
            position: status.position,
            event: None,
            cause: Arc::new(cause),
        };
        log_stopped(&stopped);
        status.set_state(ReactorState::Stopped(stopped));
    });
}
