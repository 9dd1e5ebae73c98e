//! Stream projections: one row per stream.

use annals_eventstore::{Event, Invalid, Recorded, StreamId, Tenant};

use crate::error::ProjectionError;
use crate::projection::Projection;
use crate::read_model::ReadModel;
use crate::rows::Rows;
use crate::stream_key::StreamKey;
use crate::stream_options::{Kind, StreamOptions, Streams};
use crate::stream_row::StreamRow;

/// A fold of the events of each stream into one row, the row of that stream.
///
/// The fold gets that row and no other, so streams are independent of each other: they may be split into
/// [slots](StreamProjection::slots), and one with an event that cannot be applied may be
/// [parked](StreamProjection::dead_letter). It is a [`Projection`] too, and whatever takes one takes it. A type is of one kind:
/// who implements this does not implement `Projection`.
///
/// # Obligations on the implementer
/// [`StreamProjection::apply`] is pure, as that of a `Projection` is, and does not remember one event for the next.
///
/// # Rows of two streams never meet
/// The key of a row is made of the name of its stream, by [`StreamKey`]. A part of the name that is not in the key is the same
/// for all events that are folded:
///
/// - the aggregate type, unless it is in the key: [`StreamProjection::AGGREGATES`] names it. An event of a stream of another type
///   stops the projection, so that it does not get into the row of a stream with the same id.
/// - the tenant, unless it is in the key or the read model is `per_tenant`: that of [`StreamProjection::tenant`] or
///   [`for_tenant`](crate::ProjectionsBuilder::for_tenant), else the default tenant. An event of another tenant stops the
///   projection.
///
/// These stop also a projection with dead letters: the declaration is wrong, not a stream.
///
/// ```
/// use annals_eventstore::Recorded;
/// use annals_macros::{Event, ReadModel};
/// use annals_projections::{ProjectionError, StreamProjection, StreamRow};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize, Clone)]
/// enum ParcelEvent {
///     #[event(name = "parcel.sent")]
///     Sent,
///     #[event(name = "parcel.moved")]
///     Moved { to: String },
///     #[event(name = "parcel.delivered")]
///     Delivered,
/// }
///
/// #[derive(ReadModel, Clone)]
/// #[read_model(table = "parcels_under_way", key = "parcel", per_tenant)]
/// struct Parcel {
///     parcel: String,
///     place: String,
/// }
///
/// struct UnderWay;
///
/// impl StreamProjection for UnderWay {
///     type Event = ParcelEvent;
///     type Row = Parcel;
///     const AGGREGATES: &'static [&'static str] = &["parcel"]; // or `Parcel::TYPE` of an `Aggregate`
///
///     fn apply(&self, event: &Recorded<ParcelEvent>, row: &mut StreamRow<Parcel>) -> Result<(), ProjectionError> {
///         match &event.event {
///             ParcelEvent::Sent => row.insert(Parcel { parcel: row.key().clone(), place: "the shop".into() }),
///             ParcelEvent::Moved { to } => row.require()?.place.clone_from(to),
///             ParcelEvent::Delivered => row.remove(),
///         }
///         Ok(())
///     }
/// }
///
/// // The kit of the feature `testing` checks a fold without a database, however events are cut into batches and streams into slots.
/// # use annals_projections::testing::given_events;
/// let moved = || ParcelEvent::Moved { to: "Ghent".into() };
/// given_events([("p-1", ParcelEvent::Sent), ("p-2", ParcelEvent::Sent), ("p-1", moved()), ("p-2", ParcelEvent::Delivered)])
///     .with(UnderWay)
///     .then_rows([Parcel { parcel: "p-1".into(), place: "Ghent".into() }]);
/// given_events([("p-3", moved())]).with(UnderWay).then_stops_before(1, "`parcels_under_way` has no row with the key");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `StreamProjection`",
    label = "not a projection with one row per stream",
    note = "implement `StreamProjection` for one row per stream, which can be split into slots and park streams; `Projection` for rows under any keys",
    note = "a row of a `Projection` may be made of any event of the log: to see it as it was, ask for all rows by `as_of`"
)]
pub trait StreamProjection: Send + Sync + 'static {
    /// What it folds, as of [`Projection::Event`]. Where it is made of the events of several aggregates, each event goes to the
    /// row of its own stream.
    type Event: Event;
    /// What it builds.
    type Row: ReadModel<Key: StreamKey>;

    /// The types of the aggregates whose streams have a row, as of [`Aggregate::TYPE`](annals_eventstore::Aggregate::TYPE). Several
    /// only if the aggregate type is in the key. One more needs no raised [`StreamProjection::VERSION`].
    const AGGREGATES: &'static [&'static str];

    /// As of [`Projection::NAME`].
    const NAME: &'static str = <Self::Row as ReadModel>::TABLE.name;

    /// As of [`Projection::VERSION`].
    const VERSION: u32 = 1;

    /// As of [`Projection::tenant`].
    fn tenant(&self) -> Option<Tenant> {
        None
    }

    /// Takes one event into the row of its stream. Where an upcaster splits a stored event, it gets one part after the other, all
    /// of them in one transaction; where one drops it, nothing.
    ///
    /// # Errors
    /// Whatever makes the event impossible to apply. The row stays as it was before the event, and nothing is skipped: the
    /// projection stops, or parks the stream if it is run with [`dead_letter`](StreamProjection::dead_letter).
    fn apply(&self, event: &Recorded<Self::Event>, row: &mut StreamRow<'_, Self::Row>) -> Result<(), ProjectionError>;

    /// Divides the streams into so many shares, 1 to 64, each with a checkpoint of its own, so that several owners can fold them
    /// side by side. A projection that is not divided has one.
    ///
    /// A stream is always in the same share. Its hash is FNV-1a of 64 bits over the UTF-8 bytes of the tenant, a byte 0, the aggregate
    /// type, a byte 0, and the aggregate id, followed by the finalizer of MurmurHash3 (`fmix64`); slot `n` of `slots` has the
    /// streams of which `hash * slots / 2^64`, rounded down, is `n`.
    ///
    /// Another number is refused at the start, with the field `slots`.
    fn slots(self, slots: u32) -> StreamOptions<Self>
    where
        Self: Sized,
    {
        StreamOptions::of(self).slots(slots)
    }

    /// Parks the stream of an event that cannot be applied or read, instead of stopping: its row stays as it was before the event, its
    /// later events wait with it, and all other streams go on.
    fn dead_letter(self) -> StreamOptions<Self>
    where
        Self: Sized,
    {
        StreamOptions::of(self).dead_letter()
    }
}

/// The row of the event's stream is one of the rows that the runner keeps.
impl<S: StreamProjection> Projection for S {
    type Event = S::Event;
    type Row = S::Row;
    const NAME: &'static str = <S as StreamProjection>::NAME;
    const VERSION: u32 = <S as StreamProjection>::VERSION;

    fn tenant(&self) -> Option<Tenant> {
        StreamProjection::tenant(self)
    }

    fn apply(&self, event: &Recorded<S::Event>, rows: &mut Rows<S::Row>) -> Result<(), ProjectionError> {
        check::<S>(&event.stream, rows.are_of_one_tenant()).map_err(ProjectionError::undeclared)?;
        let key = <S::Row as ReadModel>::Key::of_stream(&event.stream)?;
        if event.version.get() == 1 {
            // The row of a stream is made of its events alone, so there is none before the first: nothing need be loaded.
            rows.assume_absent(&key);
        }
        StreamProjection::apply(self, event, &mut StreamRow::of(rows, key)?)
    }

    fn __kind(&self) -> Kind {
        Kind(Some(Streams {
            aggregates: S::AGGREGATES,
            aggregate_type_in_key: <S::Row as ReadModel>::Key::HAS_AGGREGATE_TYPE,
            tenant_in_key: tenant_in_key::<S>(),
            slots: 1,
            parks: false,
            own_events: false,
        }))
    }
}

fn tenant_in_key<S: StreamProjection>() -> bool {
    S::Row::TABLE.per_tenant || <S::Row as ReadModel>::Key::HAS_TENANT
}

/// Checks that the row of this stream is not that of another.
fn check<S: StreamProjection>(stream: &StreamId, of_one_tenant: bool) -> Result<(), Invalid> {
    let (aggregates, name) = (S::AGGREGATES, <S as StreamProjection>::NAME);
    if !aggregates.contains(&stream.aggregate_type()) {
        let problem =
            format!("`{}` is not one of those that `{name}` has rows for: {aggregates:?}", stream.aggregate_type());
        let fix = "leave the event out of the projection's type of events, or name the aggregate type in `AGGREGATES`, with a key that has it";
        return Err(Invalid::new("aggregate_type", problem, fix));
    }
    if !of_one_tenant && !tenant_in_key::<S>() && *stream.tenant() != Tenant::default() {
        let problem =
            format!("`{}` is not the default tenant, whose streams alone have rows in `{name}`", stream.tenant());
        let fix = "declare the read model `per_tenant`, or give the projection one tenant by `tenant` or `for_tenant`";
        return Err(Invalid::new("tenant", problem, fix));
    }
    Ok(())
}
