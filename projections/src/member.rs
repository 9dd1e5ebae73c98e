//! One projection in the hands of a runner: how far it is, what of that is saved, and what it says about itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals_eventstore::__private::aggregate_types;
use annals_eventstore::{Checkpoint, Clock, Event, Filter, Invalid, Position, Tenant};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::batch::{Batch, Decoded, Decoder};
use crate::database::{Claimed, Fault, LeaseState, Model, ParkingChanges, Paused, Place, Prepared, UnitId, Work};
use crate::error::{EventPlace, StopCause, Stopped};
use crate::fold::{AnyFold, Fold};
use crate::folding::Stop;
use crate::loading::RowSize;
use crate::metrics;
use crate::page_reader::Wanted;
use crate::parking::ParkedStreams;
use crate::projection::Projection;
use crate::read_model::{ReadModel, TENANT};
use crate::shape::Shape;
use crate::slot::Slot;
use crate::status::{LastError, ProjectionState, ProjectionStatus, SlotStatus, StatusSender};
use crate::stream_options::Kind;
use crate::transaction::AnyTransaction;

/// A projection whose types are hidden from the runner.
pub(crate) trait AnyProjection: Send + Sync {
    fn model(&self) -> Model;

    /// The stored names of the events it wants.
    fn names(&self) -> Vec<&'static str>;

    /// The aggregate types of the events that it wants, if all of them are of one.
    fn aggregate_types(&self) -> Option<Vec<&'static str>>;

    /// The events that it wants, as [`Shape::events`] has them.
    fn event_lines(&self) -> Vec<String>;

    fn tenant(&self) -> Option<&Tenant>;

    /// Whether it merges tenants on purpose.
    fn across_tenants(&self) -> bool;

    /// From now on it wants the events of this tenant alone.
    fn set_tenant(&mut self, tenant: Tenant);

    fn decoder(&self) -> Decoder;

    /// A tenant of events of `batch` that it wants other than `known`, which is the first of them if there was none before.
    fn other_tenant(&self, batch: &Batch, known: &mut Option<Tenant>) -> Option<Tenant>;

    /// Takes the names that events of `batch` have, as far as it wants them, out of `names`.
    fn strike_seen(&self, batch: &Batch, names: &mut Vec<&'static str>);

    fn shape(&self) -> Shape {
        Shape { slots: self.slots(), ..Shape::of(self.model().table, self.event_lines(), self.tenant()) }
    }

    fn kind(&self) -> Kind;

    /// How many slots its streams are divided into; 1 if they are not.
    fn slots(&self) -> u32 {
        self.kind().slots()
    }

    /// Whether it parks a stream whose event it cannot apply.
    fn parks(&self) -> bool {
        self.kind().parks()
    }

    /// What it does beside the rest, if it is a transaction projection. Then it has no fold.
    fn in_transaction(&self) -> Option<&dyn AnyTransaction> {
        None
    }

    /// Its fold over the events of `batch` behind `after`, of the streams in `slot`.
    fn fold(&self, batch: &Batch, after: Position, slot: Slot) -> Box<dyn AnyFold>;
}

pub(crate) struct Typed<P> {
    projection: Arc<P>,
    tenant: Option<Tenant>,
}

impl<P: Projection> Typed<P> {
    pub(crate) fn new(projection: P) -> Self {
        let tenant = projection.tenant();
        Self { projection: Arc::new(projection), tenant }
    }
}

impl<P: Projection> AnyProjection for Typed<P> {
    fn model(&self) -> Model {
        Model { projection: P::NAME, version: P::VERSION, table: P::Row::TABLE }
    }

    fn names(&self) -> Vec<&'static str> {
        names_of::<P::Event>()
    }

    fn aggregate_types(&self) -> Option<Vec<&'static str>> {
        aggregate_types::<P::Event>()
    }

    fn event_lines(&self) -> Vec<String> {
        events_of::<P::Event>()
    }

    fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    fn across_tenants(&self) -> bool {
        P::ACROSS_TENANTS
    }

    fn set_tenant(&mut self, tenant: Tenant) {
        self.tenant = Some(tenant);
    }

    fn decoder(&self) -> Decoder {
        Decoder::of::<P::Event>()
    }

    fn other_tenant(&self, batch: &Batch, known: &mut Option<Tenant>) -> Option<Tenant> {
        let events = batch.of::<P::Event>();
        let mut tenants = events.iter().map(|event| event.place.stream.tenant());
        let known = match known {
            Some(known) => known,
            None => known.insert(tenants.next()?.clone()),
        };
        tenants.find(|tenant| *tenant != known).cloned()
    }

    fn strike_seen(&self, batch: &Batch, names: &mut Vec<&'static str>) {
        strike_seen::<P::Event>(batch, self.tenant.as_ref(), names);
    }

    fn kind(&self) -> Kind {
        self.projection.__kind()
    }

    fn fold(&self, batch: &Batch, after: Position, slot: Slot) -> Box<dyn AnyFold> {
        Box::new(Fold::new(Arc::clone(&self.projection), self.tenant.as_ref(), batch, after, slot))
    }
}

/// The stored names of an event type.
pub(crate) fn names_of<E: Event>() -> Vec<&'static str> {
    E::READS.iter().map(|shape| shape.name).collect()
}

/// The same with the aggregate type that each is of, if it is of one.
pub(crate) fn events_of<E: Event>() -> Vec<String> {
    let of = |name: &str| E::OF.iter().find(|of| of.events.iter().any(|shape| shape.name == name));
    let line = |name: &'static str| match of(name) {
        Some(of) => format!("{name}\t{}", of.aggregate_type),
        None => name.to_owned(),
    };
    names_of::<E>().into_iter().map(line).collect()
}

/// Whether rows of several tenants may meet. A stream projection does not take those of several.
fn may_merge_tenants(projection: &dyn AnyProjection) -> bool {
    let table = projection.model().table;
    let of_many =
        projection.tenant().is_none() && projection.kind().0.is_none() && projection.in_transaction().is_none();
    of_many && !projection.across_tenants() && !table.per_tenant && !table.key.contains(&TENANT)
}

/// Takes the names that events of `batch` have, of the tenant, out of `names`.
pub(crate) fn strike_seen<E: Event>(batch: &Batch, tenant: Option<&Tenant>, names: &mut Vec<&'static str>) {
    let events = batch.of::<E>();
    let is_ours = |event: &&Decoded<E>| tenant.is_none_or(|tenant| tenant == event.place.stream.tenant());
    names.retain(|name| !events.iter().filter(is_ours).any(|event| *event.place.name == **name));
}

/// What all of `projections` want together.
pub(crate) fn wanted<'a>(projections: impl Iterator<Item = &'a dyn AnyProjection>) -> Result<Wanted, Invalid> {
    let mut names: Vec<&'static str> = Vec::new();
    let mut decoders = Vec::new();
    let mut tenants: Vec<Option<&Tenant>> = Vec::new();
    let mut aggregate_types = Some(Vec::new());
    for projection in projections {
        names.extend(projection.names());
        decoders.push(projection.decoder());
        tenants.push(projection.tenant());
        aggregate_types = aggregate_types.zip(projection.aggregate_types()).map(|(all, own)| [all, own].concat());
    }
    names.sort_unstable();
    names.dedup();
    let mut filter = Filter::all();
    for name in names {
        filter = filter.event_name(name)?;
    }
    let mut aggregate_types = aggregate_types.unwrap_or_default();
    aggregate_types.sort_unstable();
    aggregate_types.dedup();
    for aggregate_type in aggregate_types {
        filter = filter.aggregate_type(aggregate_type)?;
    }
    if let Some(Some(tenant)) = tenants.first()
        && tenants.iter().all(|other| *other == Some(tenant))
    {
        filter = filter.tenant((*tenant).clone());
    }
    Ok(Wanted { filter, decoders })
}

/// How many events are applied one by one after a process has ended without saying so. If it was a later one that ended it, the
/// next process gets so much closer to it.
const CAREFUL: usize = 100;

/// Whether a process may work on a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It owns it, as far as it knows.
    Owned,
    /// Another process owns it, or none.
    Elsewhere,
    /// It has stopped for good.
    Stopped,
}

/// A slot of a projection, in one process.
pub(crate) struct Member {
    pub(crate) projection: Arc<dyn AnyProjection>,
    pub(crate) model: Model,
    /// What this process is called.
    runner: Arc<str>,
    clock: Arc<dyn Clock>,
    slot: u32,
    /// The number of this owner.
    epoch: i64,
    standing: Standing,
    /// So many of the next events are applied one by one, as one of them may have ended a process.
    careful: usize,
    /// Whether the database refuses its work for a while, and not that of others, so that it goes on by itself.
    blocked: bool,
    row_size: RowSize,
    /// What an event wrote lately.
    written_size: RowSize,
    /// The streams that are parked in it, while this process owns it.
    parked: Arc<ParkedStreams>,
    /// Everything up to here is applied, or does not concern it. This is what it reports as reached.
    progress: Checkpoint,
    /// Where its stored checkpoint was when it was last compared, at or before `progress`. In between is no event that it
    /// wants.
    saved: Checkpoint,
    /// Whether the read model's stable name shows this version, or has been left to another for good.
    pub(crate) settled: bool,
    /// Whether the log says what the name shows, for all slots.
    logs_shown: Arc<AtomicBool>,
    /// When the stable name may be tried to switch again, after it could not be.
    pub(crate) show_after: Option<Instant>,
    live: bool,
    /// Whether rows of several tenants may meet and it has not been said yet; and the first tenant that was seen.
    may_merge_tenants: bool,
    tenant: Option<Tenant>,
    /// The names of events that it wants and that none had so far, if it was read from the beginning of the log.
    unseen: Vec<&'static str>,
    status_sender: Arc<StatusSender>,
}

impl Member {
    /// The slots of a projection, which nobody owns yet, for a process of some name.
    pub(crate) fn of(
        projection: &Arc<dyn AnyProjection>,
        prepared: &Prepared,
        runner: &Arc<str>,
        clock: &Arc<dyn Clock>,
    ) -> Vec<Self> {
        let model = projection.model();
        let status = ProjectionStatus::new(model.projection.into(), model.version, &prepared.places);
        let (status_sender, logs_shown) = (Arc::new(StatusSender::new(status)), Arc::new(AtomicBool::new(false)));
        let of_slot = |place: &Place| Self {
            projection: Arc::clone(projection),
            model,
            runner: Arc::clone(runner),
            clock: Arc::clone(clock),
            slot: place.slot,
            epoch: place.epoch,
            standing: Standing::Elsewhere,
            careful: 0,
            blocked: false,
            row_size: RowSize::default(),
            written_size: RowSize::default(),
            parked: Arc::default(),
            progress: place.checkpoint,
            saved: place.checkpoint,
            settled: prepared.shown,
            logs_shown: Arc::clone(&logs_shown),
            show_after: None,
            live: false,
            may_merge_tenants: may_merge_tenants(projection.as_ref()),
            tenant: None,
            unseen: Vec::new(),
            status_sender: Arc::clone(&status_sender),
        };
        prepared.places.iter().map(of_slot).collect()
    }

    pub(crate) fn unit(&self) -> UnitId {
        UnitId { projection: self.model.projection, version: self.model.version, slot: self.slot }
    }

    /// Which share of the streams it folds.
    pub(crate) fn slot(&self) -> Slot {
        Slot::new(self.slot, self.projection.slots())
    }

    /// The unit and the number of its owner.
    pub(crate) fn held(&self) -> (UnitId, i64) {
        (self.unit(), self.epoch)
    }

    /// The streams that are parked in it.
    pub(crate) fn parked(&self) -> &Arc<ParkedStreams> {
        &self.parked
    }

    /// These streams are parked too, and that is committed.
    pub(crate) fn park(&mut self, parked: &[(EventPlace, String)]) {
        if parked.is_empty() {
            return;
        }
        Arc::make_mut(&mut self.parked).extend(parked.iter().map(|(event, _)| (event.stream.clone(), event.position)));
        for (event, reason) in parked {
            tracing::error!(
                projection = self.model.projection,
                version = self.model.version,
                position = event.position.get(),
                stream = %event.stream,
                reason,
                "a stream is parked at an event that cannot be applied; fix the cause and retry it"
            );
        }
        metrics::parked(&self.model, parked.len());
        let streams = self.parked.len();
        self.send(|status| status.parked = streams);
    }

    /// What the stable name shows is known now. Whether this is the first slot to find it, which writes it to the log.
    pub(crate) fn settle(&mut self) -> bool {
        self.settled = true;
        !self.logs_shown.swap(true, Ordering::Relaxed)
    }

    /// What was parked by those who owned it before.
    pub(crate) fn set_parked(&mut self, parked: Vec<EventPlace>) {
        let streams = parked.len();
        self.parked = Arc::new(parked.into_iter().map(|event| (event.stream, event.position)).collect());
        self.send(|status| status.parked = streams);
    }

    /// Whether the next event is applied alone.
    pub(crate) fn is_careful(&self) -> bool {
        self.careful > 0
    }

    /// The database refuses its work for a while, and not that of others.
    pub(crate) fn block(&mut self, fault: &Fault) {
        self.blocked = true;
        self.set_retrying(&fault.source);
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// It has a pass of its own by now.
    pub(crate) fn apart(mut self) -> Self {
        self.blocked = false;
        self
    }

    /// What is known of the size of its rows.
    pub(crate) fn row_size(&self) -> &RowSize {
        &self.row_size
    }

    pub(crate) fn written_size(&self) -> &RowSize {
        &self.written_size
    }

    /// This process owns it now, where others have left it.
    pub(crate) fn claimed(&mut self, claimed: &Claimed) {
        let Claimed { epoch, checkpoint, suspect, .. } = *claimed;
        self.careful = if suspect { CAREFUL } else { 0 };
        (self.epoch, self.standing, self.live, self.blocked) = (epoch, Standing::Owned, false, false);
        let may_be_misspelt = checkpoint.position == Position::START && !self.projection.kind().own_events();
        self.unseen = if may_be_misspelt { self.projection.names() } else { Vec::new() };
        self.send(|status| status.owner = Some(Arc::clone(&self.runner)));
        self.committed(checkpoint, 0);
    }

    /// This process does not own it any more.
    pub(crate) fn given_up(&mut self) {
        if self.standing == Standing::Owned {
            self.standing = Standing::Elsewhere;
            self.send(|status| status.owner = None);
            self.set_state(ProjectionState::Standby { owner: None });
        }
    }

    /// What stopped it was fixed.
    pub(crate) fn start_again(&mut self) {
        self.standing = Standing::Elsewhere;
        self.set_state(ProjectionState::Standby { owner: None });
    }

    /// What is stored of it, while this process does not own it.
    pub(crate) fn look_at_lease(&mut self, lease: &LeaseState, owner: Option<&str>) {
        (self.progress, self.saved) = (lease.checkpoint, lease.checkpoint);
        let state = match &lease.paused {
            Some(Paused { by, since }) => ProjectionState::Paused { by: by.as_str().into(), since: *since },
            None => ProjectionState::Standby { owner: owner.map(Into::into) },
        };
        self.send(|status| {
            status.parked = 0;
            status.owner = owner.map(Into::into);
            status.position = lease.checkpoint.position;
            (status.progress, status.saved) = (lease.checkpoint, lease.checkpoint);
            status.state = state;
        });
    }

    fn send(&self, change: impl FnOnce(&mut SlotStatus)) {
        self.status_sender.send_modify(|status| status.of_slot(self.slot, change));
    }

    fn set_state(&self, state: ProjectionState) {
        self.send(|status| status.state = state);
    }

    pub(crate) fn status_sender(&self) -> &Arc<StatusSender> {
        &self.status_sender
    }

    pub(crate) fn progress(&self) -> &Checkpoint {
        &self.progress
    }

    pub(crate) fn position(&self) -> Position {
        self.progress.position
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.standing == Standing::Stopped
    }

    /// Whether this process works on it.
    pub(crate) fn is_running(&self) -> bool {
        self.standing == Standing::Owned
    }

    /// How many positions its stored checkpoint is behind.
    pub(crate) fn unsaved(&self) -> i64 {
        self.position().get() - self.saved.position.get()
    }

    /// Where its stored checkpoint must be, with its rows.
    pub(crate) fn saved(&self) -> Place {
        Place { slot: self.slot, epoch: self.epoch, checkpoint: self.saved }
    }

    /// The work of moving its checkpoint to `to` with some changes.
    pub(crate) fn work(&self, to: Checkpoint, changes: crate::changes::Changes) -> Work {
        self.work_with(to, changes, ParkingChanges::default())
    }

    /// The same, with what becomes of parked streams.
    pub(crate) fn work_with(&self, to: Checkpoint, changes: crate::changes::Changes, parking: ParkingChanges) -> Work {
        Work { model: self.model, from: self.saved(), to, changes, parking }
    }

    /// It has come to `to` by applying so many events, and its stored checkpoint has been compared.
    pub(crate) fn advance(&mut self, to: Checkpoint, applied: usize) {
        self.progress = to;
        let (state, saved) = (self.running_state(), self.saved);
        self.status_sender.send_modify(|status| {
            status.applied += applied as u64;
            status.pace.count(applied, Instant::now());
            status.of_slot(self.slot, |status| {
                status.position = to.position;
                (status.progress, status.saved) = (to, saved);
                status.state = state;
            });
        });
    }

    /// It has come to `to`, and that is committed.
    pub(crate) fn committed(&mut self, to: Checkpoint, applied: usize) {
        self.saved = to;
        self.careful = self.careful.saturating_sub(applied);
        self.advance(to, applied);
    }

    /// Others have moved the stored checkpoint to `stored`, forth or back. Its rows are those of that place and no other.
    pub(crate) fn overtaken(&mut self, stored: Checkpoint) {
        self.committed(stored, 0);
        tracing::debug!(
            projection = self.model.projection,
            position = stored.position.get(),
            "others have moved its checkpoint"
        );
    }

    /// It has seen the end of the log.
    pub(crate) fn caught_up(&mut self) {
        if !self.live {
            self.live = true;
            self.report_unseen();
            self.advance(self.progress, 0);
        }
    }

    /// Notes which names and tenants the events of a page have.
    pub(crate) fn look_at(&mut self, batch: &Batch) {
        if self.may_merge_tenants
            && let Some(other) = self.projection.other_tenant(batch, &mut self.tenant)
        {
            self.may_merge_tenants = false;
            tracing::warn!(
                projection = self.model.projection,
                tenant = %other,
                "events of several tenants go into rows under the same keys; if each tenant is to have its own, declare the read model \
                 `per_tenant`, or run the projection for one tenant by `for_tenant`; if not, say so by `ACROSS_TENANTS`"
            );
        }
        if self.unseen.is_empty() {
            return;
        }
        self.projection.strike_seen(batch, &mut self.unseen);
        if self.live {
            self.status_sender.send_if_modified(|status| {
                let is_seen = status.unseen.len() > self.unseen.len();
                if is_seen {
                    status.unseen.clone_from(&self.unseen);
                }
                is_seen
            });
        }
    }

    /// Warns of names that no event has: they may be misspelt.
    fn report_unseen(&mut self) {
        if self.position() == Position::START {
            self.unseen.clear();
        }
        if self.unseen.is_empty() {
            return;
        }
        // The slots of a projection find the same, one after the other.
        if self.status_sender.borrow().unseen != self.unseen {
            let names = self.unseen.join(", ");
            tracing::warn!(
                projection = self.model.projection,
                names,
                "no event that was read has these names; if they are new, all is well, else check their spelling"
            );
            self.status_sender.send_modify(|status| status.unseen.clone_from(&self.unseen));
        }
    }

    /// A fault that may pass blocks it.
    pub(crate) fn set_retrying(&self, fault: &(dyn std::error::Error + 'static)) {
        let fault = chain(fault);
        let is_same =
            |slot: &SlotStatus| matches!(&slot.state, ProjectionState::Retrying { fault: other } if *other == fault);
        // Once for all slots, and not again with each try.
        if !self.status_sender.borrow().slots.iter().any(is_same) {
            tracing::warn!(projection = self.model.projection, position = self.position().get(), %fault, "retrying");
        }
        metrics::fault(&self.model);
        self.send(|status| status.last_error = Some(LastError { text: fault.as_str().into(), at: self.clock.now() }));
        self.set_state(ProjectionState::Retrying { fault });
    }

    /// Whether it follows the log.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// How long ago that was; nothing if it is in the future of this process's clock.
    pub(crate) fn since(&self, then: Timestamp) -> Duration {
        Duration::try_from(self.clock.now().duration_since(then)).unwrap_or_default()
    }

    /// What blocked it has passed.
    pub(crate) fn resume(&self) {
        let is_own = |status: &&SlotStatus| status.slot == self.slot;
        let is_retrying = {
            let status = self.status_sender.borrow();
            let own = status.slots.iter().find(is_own);
            own.is_some_and(|own| matches!(own.state, ProjectionState::Retrying { .. }))
        };
        if is_retrying {
            self.set_state(self.running_state());
        }
    }

    /// It goes no further.
    pub(crate) fn stop(&mut self, stop: Stop) {
        self.standing = Standing::Stopped;
        let stopped = Stopped {
            projection: self.model.projection.into(),
            version: self.model.version,
            position: self.position(),
            event: stop.event,
            cause: Arc::new(stop.cause),
        };
        log_stopped(&stopped);
        self.send(|status| {
            status.owner = None;
            status.last_error = Some(LastError { text: chain(&stopped).into(), at: self.clock.now() });
        });
        self.set_state(ProjectionState::Stopped(stopped));
    }

    pub(crate) fn stop_for_good(&mut self, cause: StopCause) {
        self.stop(Stop { event: None, cause });
    }

    pub(crate) fn stop_by(&mut self, fault: Fault) {
        self.stop_for_good(StopCause::Database(fault.source));
    }

    /// It was closed.
    pub(crate) fn close(&self) {
        self.send(|status| {
            if status.state.is_running() {
                status.state = ProjectionState::Closed;
            }
        });
    }

    fn running_state(&self) -> ProjectionState {
        if self.live { ProjectionState::Live } else { ProjectionState::CatchingUp }
    }
}

/// Says that a projection has stopped.
pub(crate) fn log_stopped(stopped: &Stopped) {
    tracing::error!(
        projection = &*stopped.projection,
        version = stopped.version,
        position = stopped.position.get(),
        reason = chain(stopped),
        "projection stopped"
    );
}

/// An error with everything behind it, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    // The error may be one of the user's, whose text must not end the pass.
    let text_of = |error: &(dyn std::error::Error + 'static)| {
        let text = catch_unwind(AssertUnwindSafe(|| error.to_string()));
        text.unwrap_or_else(|_| "an error whose `Display` panicked".to_owned())
    };
    let mut text = text_of(error);
    let mut source = error.source();
    while let Some(error) = source {
        // Transparent errors say what their source says; once is enough.
        let said = text_of(error);
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = error.source();
    }
    text
}
