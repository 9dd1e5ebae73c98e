//! Projections: a fold of events into the rows of a read model.

use annals_eventstore::{Event, Recorded, Tenant};

use crate::error::ProjectionError;
use crate::read_model::ReadModel;
use crate::rows::Rows;

/// A fold of events into a read model.
///
/// # Obligations on the implementer
/// [`Projection::apply`] is pure: the same events in the same order give the same rows, whatever was asked for before. It
/// does no I/O, reads no clock and draws no random numbers, as it may run several times for one event. It touches nothing but
/// `rows`.
///
/// ```
/// use annals_eventstore::{DecodeError, Event, EventShape, Invalid, Payload, Recorded};
/// use annals_projections::{
///     Column, ColumnError, ColumnSpec, ColumnType, ColumnValue, Projection, ProjectionError, ReadModel, Rows, TableSpec,
/// };
/// # struct Sold { day: String, cents: i64 }
/// # impl Event for Sold {
/// #     const SHAPES: &'static [EventShape] = &[EventShape { name: "sold", version: 1, rust_name: "Sold" }];
/// #     fn shape(&self) -> &'static EventShape { &Self::SHAPES[0] }
/// #     fn encode(&self) -> Result<Payload, Invalid> { Payload::of(&(&self.day, self.cents)) }
/// #     fn decode(_: &str, _: u32, payload: &Payload) -> Result<Self, DecodeError> {
/// #         let (day, cents) = payload.read().map_err(|source| DecodeError::Payload { source })?;
/// #         Ok(Self { day, cents })
/// #     }
/// # }
/// # #[derive(Clone)]
/// # struct Day { day: String, cents: i64 }
/// # impl ReadModel for Day {
/// #     type Key = String;
/// #     const TABLE: &'static TableSpec = &TableSpec {
/// #         name: "daily_sales",
/// #         columns: &[
/// #             ColumnSpec { name: "day", column_type: ColumnType::Text, nullable: false },
/// #             ColumnSpec { name: "cents", column_type: ColumnType::Integer, nullable: false },
/// #         ],
/// #         key: &["day"],
/// #         indexes: &[],
/// #     };
/// #     fn key(&self) -> String { self.day.clone() }
/// #     fn to_columns(&self) -> Vec<ColumnValue> { vec![self.day.to_column(), self.cents.to_column()] }
/// #     fn from_columns(columns: &mut dyn Iterator<Item = ColumnValue>) -> Result<Self, ColumnError> {
/// #         let mut next = |name| annals_projections::__private::next_column(columns, name);
/// #         Ok(Self { day: Column::from_column(next("day")?)?, cents: Column::from_column(next("cents")?)? })
/// #     }
/// # }
/// struct DailySales;
///
/// impl Projection for DailySales {
///     type Event = Sold;
///     type Row = Day;
///
///     fn apply(&self, sold: &Recorded<Sold>, rows: &mut Rows<Day>) -> Result<(), ProjectionError> {
///         let day = &sold.event.day;
///         rows.get_or_insert_with(day, || Day { day: day.clone(), cents: 0 })?.cents += sold.event.cents;
///         Ok(())
///     }
/// }
/// ```
pub trait Projection: Send + Sync + 'static {
    /// What it folds. It gets every event whose stored name is one of this type's, from streams of any aggregate.
    type Event: Event;
    /// What it builds.
    type Row: ReadModel;

    /// The name under which its checkpoint is kept; chosen once. By default the name of the read model's table.
    const NAME: &'static str = <Self::Row as ReadModel>::TABLE.name;

    /// The number of the fold, from 1: raise it whenever `apply` gives other rows for the same events, or the row gets
    /// other columns. A raised version builds its own table from the beginning.
    const VERSION: u32 = 1;

    /// The only tenant whose events it wants; all tenants by default.
    fn tenant(&self) -> Option<Tenant> {
        None
    }

    /// Takes one event into the rows.
    ///
    /// A lookup of a row that is not in memory yet fails with an error that belongs to the runner: hand it on with `?`.
    ///
    /// # Errors
    /// Whatever makes the event impossible to apply. The projection stops before this event and says why; nothing is skipped.
    fn apply(&self, event: &Recorded<Self::Event>, rows: &mut Rows<Self::Row>) -> Result<(), ProjectionError>;
}
