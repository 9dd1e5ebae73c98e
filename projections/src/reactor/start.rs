//! Starting reactors: where each is, and that it is this process's from now on.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use annals_eventstore::{AsOf, Checkpoint, EventStore, Filter, IdSource, Invalid, ReadError, TimeOrderedIds};
use futures::FutureExt;
use tokio::sync::{mpsc, watch};

use super::engine::{Request, Run, Surroundings};
use super::keeper::{Opened, Opening};
use super::reactions::AnyReactor;
use super::reactor::First;
use super::status::{ReactorState, ReactorStatus};
use crate::commit::check_log;
use crate::error::{StartError, StopCause, Stopped, is_rewind};
use crate::fold::panic_text;
use crate::page_reader::Wanted;
use crate::pass::Shared;
use crate::read_model::{NAME_RULE, is_identifier};

/// A reactor that is this process's.
pub(crate) struct Claimed {
    reactor: Arc<dyn AnyReactor>,
    wanted: Wanted,
    opened: Opened,
}

/// A reactor that runs.
pub(crate) struct RunningReactor {
    pub(crate) name: &'static str,
    pub(crate) status: watch::Receiver<ReactorStatus>,
    pub(crate) requests: mpsc::UnboundedSender<Request>,
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
    if let Some(tenant) = reactor.tenant() {
        filter = filter.tenant(tenant.clone());
    }
    Ok(Wanted { filter, decoders: vec![reactor.decoder()] })
}

/// Makes every reactor this process's. Where nothing is stored yet, where it begins is stored when this returns.
pub(crate) async fn claim(shared: &Shared, reactors: Vec<Box<dyn AnyReactor>>) -> Result<Vec<Claimed>, StartError> {
    let store = shared.store.as_ref();
    // What can be refused is refused before any reactor is taken from another process.
    let mut starts = Vec::with_capacity(reactors.len());
    for reactor in &reactors {
        let start = match shared.database.reactor_checkpoint(reactor.name()).await? {
            Some(stored) => stored,
            None => first(store, reactor.as_ref()).await.map_err(StartError::Store)?,
        };
        check_log(store, &start).await.map_err(|error| refused(reactor.name(), error))?;
        starts.push(start);
    }
    let mut claimed = Vec::with_capacity(reactors.len());
    for (reactor, start) in reactors.into_iter().zip(starts) {
        let mut names = reactor.names();
        names.sort_unstable();
        names.dedup();
        let opening = Opening {
            reactor: reactor.name(),
            events: names.join("\n"),
            tenant: reactor.tenant().cloned(),
            start,
            owner: TimeOrderedIds.next_id(),
            clock: Arc::clone(&shared.clock),
        };
        let opened = shared.database.open_reactor(opening).await?;
        claimed.push(Claimed { wanted: wanted(reactor.as_ref())?, reactor: Arc::from(reactor), opened });
    }
    Ok(claimed)
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

/// Runs a reactor; the future lasts until it ends.
pub(crate) fn start(shared: &Shared, claimed: Claimed) -> (RunningReactor, impl Future<Output = ()> + Send + 'static) {
    let Claimed { reactor, wanted, opened } = claimed;
    let name = reactor.name();
    let status = ReactorStatus {
        name: name.into(),
        position: opened.checkpoint.position,
        handled: 0,
        in_flight: 0,
        retrying: 0,
        parked: opened.failing.iter().filter(|failing| failing.parked).count(),
        last_error: opened.failing.last().map(|failing| format!("{}: {}", failing.place, failing.error)),
        state: ReactorState::CatchingUp,
    };
    let (status, receiver) = watch::channel(status);
    let status = Arc::new(status);
    let (requests, received) = mpsc::unbounded_channel();
    let around = Surroundings {
        store: Arc::clone(&shared.store),
        clock: Arc::clone(&shared.clock),
        cancel: shared.cancel.clone(),
        requests: received,
        status: Arc::clone(&status),
    };
    let run = Run::new(around, reactor, wanted, opened);
    let guarded = async move {
        // Should the engine itself panic, nobody waits in vain.
        let Err(panic) = AssertUnwindSafe(run.run()).catch_unwind().await else { return };
        let text = panic_text(panic.as_ref());
        status.send_modify(|status| {
            status.state = ReactorState::Stopped(Stopped {
                projection: status.name.clone(),
                version: 0,
                position: status.position,
                event: None,
                cause: Arc::new(StopCause::Runner(text)),
            });
        });
    };
    (RunningReactor { name, status: receiver, requests }, guarded)
}
