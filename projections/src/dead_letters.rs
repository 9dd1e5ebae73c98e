//! Dead letters of stream projections: to look at, to retry, to drop.

use std::sync::Arc;
use std::time::Duration;

use annals_eventstore::{IdSource, Invalid, Position, ReadError, StreamId, StreamVersion, TimeOrderedIds};
use jiff::Timestamp;
use uuid::Uuid;

use crate::batch::Batch;
use crate::changes::Changes;
use crate::column::ColumnValue;
use crate::control::{check_text, refused};
use crate::database::{Dropped, Model, Moved, ParkedStream, ParkingChanges, Place, UnitId, Work};
use crate::error::{ControlError, EventPlace, StopCause};
use crate::folding::{Folding, Outcome, Step};
use crate::handle::Projections;
use crate::keeper::Order;
use crate::member::AnyProjection;
use crate::memory_table::MemoryTable;
use crate::parking::PassedOver;
use crate::pass::Shared;
use crate::projection::Projection;
use crate::slot::{Slot, slot_of};

/// How long a slot is kept from its owner while a stream is retried, unless that goes on.
const LEASE: Duration = Duration::from_secs(10);

/// How many events of a stream are read at once.
const PAGE: usize = 1_000;

/// A stream that a projection has set aside, and the event that it could not apply.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The event; it names the stream. It and those that wait are read from the store, from this version of the stream on.
    pub event: EventPlace,
    /// Why it could not be applied.
    pub reason: String,
    /// When that was.
    pub parked_at: Timestamp,
    /// How many later events of the stream wait behind it.
    pub waiting: u64,
}

/// What became of a retry.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Retried {
    /// The stream is not parked: there was nothing to do.
    NothingParked,
    /// So many events were applied, in order, and the stream goes on with the others.
    Reopened {
        /// How many.
        events: u64,
    },
    /// An event cannot be applied, the same or a later one. Those before it were applied.
    StillParked(DeadLetter),
}

impl From<ParkedStream> for DeadLetter {
    fn from(parked: ParkedStream) -> Self {
        let ParkedStream { event, reason, parked_at, waiting } = parked;
        Self { event, reason, parked_at, waiting }
    }
}

impl Projections {
    /// The streams that `P` has set aside, in whichever process, sorted slot by slot; at most 10,000 per slot, as then the
    /// projection stops. They are those of the version that runs here: while a deploy is under way, each build has its own.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] if `P` was not started with [`StreamProjection::dead_letter`](crate::StreamProjection::dead_letter);
    /// others as of [`Projections::pause`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn dead_letters<P: Projection>(&self) -> Result<Vec<DeadLetter>, ControlError> {
        let projection = self.parking::<P>()?;
        let mut all = Vec::new();
        for slot in 0..projection.slots() {
            let unit = UnitId { projection: P::NAME, version: P::VERSION, slot };
            let parked = self.shared().database.parked(unit).await.map_err(refused)?;
            all.extend(parked.into_iter().map(DeadLetter::from));
        }
        Ok(all)
    }

    /// Applies the events of a parked stream again, in their order, by the fold of this process, and reopens the stream, in one
    /// transaction. Meanwhile, for as long as it takes to read and fold them, the slot of the stream is kept from the process that
    /// runs it, and none of its streams goes on; so events that are appended meanwhile follow behind. Any process may do it.
    ///
    /// Memory is bounded by a page of events, however many wait. If the process ends in the middle, nothing has changed, and others
    /// take the slot 10 seconds later.
    ///
    /// ```
    /// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
    /// # use till::TillEvent;
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("till.db");
    /// use std::time::Duration;
    ///
    /// use annals_eventstore::{EventStoreExt, ExpectedVersion, Recorded, StreamId, Tenant};
    /// use annals_macros::ReadModel;
    /// use annals_projections::{ProjectionError, ProjectionsExt, Retried, StreamProjection, StreamRow};
    /// # use annals_eventstore::EventStore;
    ///
    /// #[derive(ReadModel, Clone)]
    /// #[read_model(table = "tills", key = "till")]
    /// struct Till {
    ///     till: String,
    ///     cents: i64,
    /// }
    ///
    /// struct Tills;
    ///
    /// impl StreamProjection for Tills {
    ///     type Event = TillEvent;
    ///     type Row = Till;
    ///     const AGGREGATES: &'static [&'static str] = &["till"];
    ///
    ///     fn apply(&self, event: &Recorded<TillEvent>, row: &mut StreamRow<'_, Till>) -> Result<(), ProjectionError> {
    ///         let TillEvent::Sold { cents } = &event.event;
    ///         if *cents < 0 {
    ///             return Err(ProjectionError::new("it takes money out"));
    ///         }
    ///         let till = row.key().clone();
    ///         row.get_or_insert_with(|| Till { till, cents: 0 }).cents += cents;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let store = annals_eventstore::sqlite(&path).await?;
    /// let views = store.projections().with(Tills.dead_letter()).start().await?;
    /// let stream = StreamId::new(Tenant::default(), "till", "t-1")?;
    /// let events = vec![store.new_event(&TillEvent::Sold { cents: -1 })?, store.new_event(&TillEvent::Sold { cents: 5 })?];
    /// let done = store.append(&stream, ExpectedVersion::Any, events).await?;
    /// views.wait_for(done.position, Duration::from_secs(2)).await?;
    ///
    /// let letters = views.dead_letters::<Tills>().await?;
    /// assert_eq!((letters[0].event.version.get(), letters[0].waiting), (1, 1));
    /// // Once the fold is fixed and deployed, this says `Reopened`.
    /// assert!(matches!(views.retry::<Tills>(&stream).await?, Retried::StillParked(_)));
    /// # views.close().await;
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`ControlError::Paused`] if the projection is paused; [`ControlError::Read`] if the events cannot be read;
    /// [`ControlError::Taken`] if another retry took the slot meanwhile; others as of [`Projections::dead_letters`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the stream parked or reopened, and the slot without an owner for 10 seconds at most.
    pub async fn retry<P: Projection>(&self, stream: &StreamId) -> Result<Retried, ControlError> {
        let Some(mut taken) = self.take::<P>(stream).await? else { return Ok(Retried::NothingParked) };
        let retried = taken.retry().await;
        taken.give_up().await;
        self.order(Order::Look).ok();
        retried
    }

    /// Gives up the event that a parked stream could not get past, and those of the stream that wait behind it: no row will ever have
    /// them. The stream goes on with its next event, from the row as it was before. `by` and `why` are stored for good, in the
    /// table of dropped events. False if the stream is not parked.
    ///
    /// # Errors
    /// As of [`Projections::retry`].
    ///
    /// # Cancel safety
    /// As of [`Projections::retry`].
    pub async fn drop_dead_letter<P: Projection>(
        &self,
        stream: &StreamId,
        by: &str,
        why: &str,
    ) -> Result<bool, ControlError> {
        check_text("by", by)?;
        check_text("why", why)?;
        let Some(taken) = self.take::<P>(stream).await? else { return Ok(false) };
        let dropped = taken.drop(by, why).await;
        taken.give_up().await;
        self.order(Order::Look).ok();
        dropped.map(|()| true)
    }

    fn parking<P: Projection>(&self) -> Result<Arc<dyn AnyProjection>, ControlError> {
        let projection = self.any::<P>().ok_or_else(|| self.unknown_to_control::<P>())?;
        if !projection.parks() {
            let problem = format!("of projection `{}` are not kept", P::NAME);
            let fix = match projection.kind().0 {
                Some(_) => "start it with `.dead_letter()`",
                None => "only a `StreamProjection` has some; what stops this one is started again by `start_again`",
            };
            return Err(Invalid::new("dead letters", problem, fix).into());
        }
        Ok(projection)
    }

    /// Takes the slot of a stream from its owner, if the stream is parked.
    async fn take<P: Projection>(&self, stream: &StreamId) -> Result<Option<Taken>, ControlError> {
        let projection = self.parking::<P>()?;
        let shared = self.shared().clone();
        let slot = slot_of(stream, projection.slots());
        let unit = UnitId { projection: P::NAME, version: P::VERSION, slot };
        if find(&shared, unit, stream).await?.is_none() {
            return Ok(None);
        }
        let owner = TimeOrderedIds.next_id();
        let place = shared.database.seize(unit, owner, None, LEASE).await.map_err(refused)?;
        let place = place.ok_or(ControlError::Paused { projection: P::NAME })?;
        let taken = |parked| Taken { shared: shared.clone(), projection, unit, owner, place, parked };
        // Only now nobody else changes what is parked.
        match find(&shared, unit, stream).await? {
            Some(parked) => Ok(Some(taken(parked))),
            None => {
                shared.database.release(&[(unit, place.epoch)]).await.map_err(refused)?;
                Ok(None)
            }
        }
    }
}

async fn find(shared: &Shared, unit: UnitId, stream: &StreamId) -> Result<Option<ParkedStream>, ControlError> {
    let parked = shared.database.parked(unit).await.map_err(refused)?;
    Ok(parked.into_iter().find(|parked| parked.event.stream == *stream))
}

/// A slot that was taken from its owner for the sake of a parked stream.
struct Taken {
    shared: Shared,
    projection: Arc<dyn AnyProjection>,
    unit: UnitId,
    owner: Uuid,
    place: Place,
    parked: ParkedStream,
}

impl Taken {
    async fn retry(&mut self) -> Result<Retried, ControlError> {
        let mut replay = Replay::of(self.projection.model());
        let mut after = self.parked.event.version.get() - 1;
        let mut failed: Option<(EventPlace, StopCause)> = None;
        let mut behind = 0;
        loop {
            let from = StreamVersion::new(after).map_err(ReadError::from)?;
            let page = self.shared.store.load_page(&self.parked.event.stream, from, PAGE).await?;
            let end = self.place.checkpoint.position;
            let count = page.events.iter().filter(|event| event.position <= end).count();
            if count == 0 {
                break;
            }
            after = page.events[count - 1].version.get();
            let batch = Batch::decode(&page.events[..count], &[self.projection.decoder()]);
            // As while it is passed over: those that the projection wants.
            let waiting = |after| self.projection.fold(&batch, after, Slot::WHOLE).len() as u64;
            if failed.is_some() {
                behind += waiting(Position::START);
            } else {
                let outcome = self.fold(&mut replay, &batch, page.events[0].position).await?;
                if let Some(stop) = outcome.stop {
                    let place = stop.event.unwrap_or_else(|| self.parked.event.clone());
                    behind += waiting(place.position);
                    failed = Some((place, stop.cause));
                }
            }
            self.renew().await?;
        }
        let applied = replay.applied;
        let stream = self.parked.event.stream.clone();
        let mut parking = ParkingChanges { reopen: Some(stream.clone()), ..ParkingChanges::default() };
        let mut letter = None;
        if let Some((event, cause)) = failed {
            let reason = cause.reason();
            parking.park.push((event.clone(), reason.clone()));
            parking.passed_over.push(PassedOver { stream, events: behind });
            letter = Some(DeadLetter { event, reason, parked_at: self.shared.clock.now(), waiting: behind });
        }
        self.commit(replay.changes(), parking).await?;
        Ok(letter.map_or(Retried::Reopened { events: applied }, Retried::StillParked))
    }

    /// Folds a page of the stream onto its row.
    async fn fold(&self, replay: &mut Replay, batch: &Batch, first: Position) -> Result<Outcome, ControlError> {
        let before = Position::new(first.get() - 1).map_err(ReadError::from)?;
        let fold = self.projection.fold(batch, before, Slot::WHOLE);
        let mut folding = Folding::of(fold);
        let outcome = loop {
            let keys = match folding.step() {
                Step::Ready(outcome) => break *outcome,
                Step::Load(keys) => keys,
            };
            if !replay.loaded {
                let stored =
                    self.shared.database.load(&replay.model, &self.place, &keys, usize::MAX).await.map_err(refused)?;
                replay.stored(stored.ok_or(ControlError::Taken { projection: self.unit.projection })?);
            }
            folding.supply(replay.table.load(&keys));
        };
        replay.table.write(&outcome.changes);
        replay.applied += outcome.applied as u64;
        Ok(outcome)
    }

    async fn drop(&self, by: &str, why: &str) -> Result<(), ControlError> {
        let ParkedStream { event, .. } = &self.parked;
        let dropped =
            Dropped { stream: event.stream.clone(), from: event.position, by: by.to_owned(), why: why.to_owned() };
        let parking = ParkingChanges { reopen: Some(event.stream.clone()), drop: Some(dropped), ..Default::default() };
        self.commit(Changes::default(), parking).await?;
        tracing::warn!(projection = self.unit.projection, %event, by, why, "the events of a parked stream were dropped");
        Ok(())
    }

    async fn commit(&self, changes: Changes, parking: ParkingChanges) -> Result<(), ControlError> {
        let (model, to) = (self.projection.model(), self.place.checkpoint);
        let work = Work { model, from: self.place, to, changes, parking };
        match self.shared.database.commit(&[&work], self.shared.clock.now()).await.map_err(refused)?[..] {
            [Moved::Done] => Ok(()),
            _ => Err(ControlError::Taken { projection: self.unit.projection }),
        }
    }

    /// Keeps the slot for longer, as long as nobody has taken it.
    async fn renew(&mut self) -> Result<(), ControlError> {
        let held = Some(self.place.epoch);
        let place = self.shared.database.seize(self.unit, self.owner, held, LEASE).await.map_err(refused)?;
        let taken = ControlError::Taken { projection: self.unit.projection };
        self.place = place.filter(|place| place.checkpoint == self.place.checkpoint).ok_or(taken)?;
        Ok(())
    }

    /// Lets others have the slot at once; if that fails, they have it when the lease ends.
    async fn give_up(&self) {
        if let Err(fault) = self.shared.database.release(&[(self.unit, self.place.epoch)]).await {
            tracing::debug!(fault = %fault.source, "a lease could not be ended; it will expire");
        }
    }
}

/// The row of a stream on its way.
struct Replay {
    model: Model,
    table: MemoryTable,
    /// Whether the stored row was looked up, and its key if there is one.
    loaded: bool,
    before: Option<Vec<ColumnValue>>,
    applied: u64,
}

impl Replay {
    fn of(model: Model) -> Self {
        Self { model, table: MemoryTable::new(model.table), loaded: false, before: None, applied: 0 }
    }

    fn stored(&mut self, rows: Vec<Vec<ColumnValue>>) {
        self.loaded = true;
        self.before = rows.first().map(|row| key_of(&self.model, row));
        self.table.write(&Changes { written: rows, ..Changes::default() });
    }

    /// What to write: the row as it is now, or that it is gone.
    fn changes(&self) -> Changes {
        let written = self.table.rows();
        let removed = self.before.iter().filter(|_| written.is_empty()).cloned().collect();
        Changes { written, removed, ..Changes::default() }
    }
}

fn key_of(model: &Model, row: &[ColumnValue]) -> Vec<ColumnValue> {
    model.table.key_places().iter().map(|&at| row[at].clone()).collect()
}
