//! Projections: a fold of events into the rows of a read model.

use annals_eventstore::{Event, Recorded, Tenant};

use crate::error::ProjectionError;
use crate::read_model::ReadModel;
use crate::rows::Rows;
use crate::stream_options::Kind;

/// A fold of events into a read model, whose rows may have any keys. A read model with one row per stream is better built by a
/// [`StreamProjection`](crate::StreamProjection), which is a projection too.
///
/// # Obligations on the implementer
/// [`Projection::apply`] is pure: the same events in the same order give the same rows, whatever was asked for before. It
/// does no I/O, reads no clock and uses no random numbers, as it may run several times for one event. It touches nothing but
/// `rows`. Rows and checkpoint are stored in one transaction, so every event counts exactly once.
///
/// ```
/// use annals_eventstore::Recorded;
/// use annals_macros::{Event, ReadModel};
/// use annals_projections::{Projection, ProjectionError, Rows};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize, Clone)]
/// enum TillEvent {
///     #[event(name = "till.sold")]
///     Sold { day: String, cents: i64 },
/// }
///
/// #[derive(ReadModel, Clone)]
/// #[read_model(table = "daily_sales", key = "day", per_tenant)]
/// struct Day {
///     day: String,
///     cents: i64,
/// }
///
/// struct DailySales;
///
/// impl Projection for DailySales {
///     type Event = TillEvent;
///     type Row = Day;
///
///     fn apply(&self, event: &Recorded<TillEvent>, rows: &mut Rows<Day>) -> Result<(), ProjectionError> {
///         let TillEvent::Sold { day, cents } = &event.event;
///         rows.get_or_insert_with(day, || Day { day: day.clone(), cents: 0 })?.cents += cents;
///         Ok(())
///     }
/// }
///
/// // The kit of the feature `testing` checks a fold without a database, however events are cut into batches.
/// # use annals_projections::testing::given_events;
/// let sold = |day: &str, cents| TillEvent::Sold { day: day.to_owned(), cents };
/// given_events([("t-1", sold("mon", 4_50)), ("t-2", sold("mon", 3_00)), ("t-1", sold("tue", 1_00))])
///     .with(DailySales)
///     .then_rows([Day { day: "mon".into(), cents: 7_50 }, Day { day: "tue".into(), cents: 1_00 }]);
/// ```
pub trait Projection: Send + Sync + 'static {
    /// What it folds. It gets every event whose stored name is one that this type reads ([`Event::READS`]), from streams of
    /// any aggregate unless the type names one by `#[event(of = "order")]`. So it may be an enum made for this projection, with the stored names and the fields that it needs, of
    /// several aggregates. One more name, or one less, or another aggregate, needs a raised [`Projection::VERSION`].
    type Event: Event;
    /// What it builds.
    type Row: ReadModel;

    /// The name under which its checkpoint is kept; chosen once. By default the name of the read model's table.
    /// Lower-case letters, digits and `_`, a letter first, at most 48 characters; no two projections of a database
    /// share one.
    const NAME: &'static str = <Self::Row as ReadModel>::TABLE.name;

    /// The number of the fold, from 1: raise it whenever `apply` gives other rows for the same events, the row gets other
    /// columns, or the type of events or [`Projection::tenant`] changes what is read. A raised version builds its own table
    /// from the beginning; [the crate's documentation](crate#deploying-a-changed-projection) says how it takes the name.
    const VERSION: u32 = 1;

    /// Whether rows have what several tenants have done on purpose, as the sales of all shops together have. Then nothing warns of
    /// it, neither the log nor the test kit. It changes nothing else: rows are kept apart by `per_tenant`, or by a key with the
    /// tenant.
    const ACROSS_TENANTS: bool = false;

    /// The only tenant whose events it wants; all tenants by default. Another one needs a raised [`Projection::VERSION`].
    fn tenant(&self) -> Option<Tenant> {
        None
    }

    /// Takes one event into the rows. Where an upcaster splits a stored event, it gets one part after the other, all of them in
    /// one transaction; where one drops it, nothing.
    ///
    /// A lookup of a row that is not in memory yet fails with an error that belongs to the runner: hand it on with `?`.
    ///
    /// # Errors
    /// Whatever makes the event impossible to apply. The projection stops before this event and says why; nothing is skipped.
    fn apply(&self, event: &Recorded<Self::Event>, rows: &mut Rows<Self::Row>) -> Result<(), ProjectionError>;

    /// How it is run. Nobody but this crate can implement it, as nobody else can name what it returns.
    #[doc(hidden)]
    fn __kind(&self) -> Kind {
        Kind::ROWS
    }
}
