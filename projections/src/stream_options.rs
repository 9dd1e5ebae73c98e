//! How a stream projection is run.

use annals_eventstore::{Invalid, Recorded, Tenant};

use crate::error::ProjectionError;
use crate::projection::Projection;
use crate::rows::Rows;
use crate::stream_projection::StreamProjection;

/// The most slots of a projection.
pub(crate) const MOST_SLOTS: u32 = 64;

/// A stream projection, and how it is to be run: [`StreamProjection::slots`] and [`StreamProjection::dead_letter`] make it, and
/// [`ProjectionsBuilder::with`](crate::ProjectionsBuilder::with) takes it.
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing runs before it is given to a builder by `with`"]
pub struct StreamOptions<S> {
    projection: S,
    slots: u32,
    parks: bool,
    own_events: bool,
}

impl<S: StreamProjection> StreamOptions<S> {
    pub(crate) fn of(projection: S) -> Self {
        Self { projection, slots: 1, parks: false, own_events: false }
    }

    /// As of [`StreamProjection::slots`].
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// As of [`StreamProjection::dead_letter`].
    pub fn dead_letter(mut self) -> Self {
        self.parks = true;
        self
    }

    /// Its events are those of the library that runs it: no warning asks people to check how they are spelt. No promise is made about
    /// it.
    #[doc(hidden)]
    pub fn __own_events(mut self) -> Self {
        self.own_events = true;
        self
    }
}

impl<S: StreamProjection> Projection for StreamOptions<S> {
    type Event = S::Event;
    type Row = S::Row;
    const NAME: &'static str = <S as StreamProjection>::NAME;
    const VERSION: u32 = <S as StreamProjection>::VERSION;

    fn tenant(&self) -> Option<Tenant> {
        Projection::tenant(&self.projection)
    }

    fn apply(&self, event: &Recorded<S::Event>, rows: &mut Rows<S::Row>) -> Result<(), ProjectionError> {
        Projection::apply(&self.projection, event, rows)
    }

    fn __kind(&self) -> Kind {
        let of_streams =
            |streams| Streams { slots: self.slots, parks: self.parks, own_events: self.own_events, ..streams };
        Kind(self.projection.__kind().0.map(of_streams))
    }
}

/// Whether a projection has rows under any keys or one per stream, and how it is run then. Only this crate makes one.
#[derive(Clone, Copy, Debug)]
pub struct Kind(pub(crate) Option<Streams>);

/// What a stream projection declares.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    pub(crate) aggregates: &'static [&'static str],
    /// Whether the keys of two streams differ if their aggregate types do.
    pub(crate) aggregate_type_in_key: bool,
    /// Whether the keys of two streams differ if their tenants do.
    #[cfg_attr(not(any(test, feature = "testing")), expect(dead_code, reason = "the test kit asks for it"))]
    pub(crate) tenant_in_key: bool,
    pub(crate) slots: u32,
    /// Whether it parks a stream whose event it cannot apply.
    pub(crate) parks: bool,
    /// Whether its events are those of the library that runs it.
    pub(crate) own_events: bool,
}

impl Kind {
    /// Rows under any keys.
    pub(crate) const ROWS: Self = Self(None);

    pub(crate) fn slots(self) -> u32 {
        self.0.map_or(1, |streams| streams.slots)
    }

    pub(crate) fn parks(self) -> bool {
        self.0.is_some_and(|streams| streams.parks)
    }

    pub(crate) fn own_events(self) -> bool {
        self.0.is_some_and(|streams| streams.own_events)
    }

    /// Checks what the projection called `name` declares.
    ///
    /// # Errors
    /// [`Invalid`] with the field `AGGREGATES` or `slots`.
    pub(crate) fn check(self, name: &str) -> Result<(), Invalid> {
        let Some(Streams { aggregates, aggregate_type_in_key, slots, .. }) = self.0 else { return Ok(()) };
        if aggregates.is_empty() {
            let problem = format!("of projection `{name}` names none");
            return Err(Invalid::new("AGGREGATES", problem, "name the aggregate type whose streams it has a row for"));
        }
        if aggregates.len() > 1 && !aggregate_type_in_key {
            let problem =
                format!("of projection `{name}` names several, and the same id may be that of a stream of each");
            let fix = "begin the key of the row with the aggregate type, as in `(String, id)`, or name one";
            return Err(Invalid::new("AGGREGATES", problem, fix));
        }
        if slots == 0 || slots > MOST_SLOTS {
            let problem = format!("of projection `{name}` are {slots}");
            return Err(Invalid::new("slots", problem, format!("have 1 to {MOST_SLOTS}")));
        }
        Ok(())
    }
}
