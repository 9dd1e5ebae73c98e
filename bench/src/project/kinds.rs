//! The order list, as a projection of each kind, and twice more for several projections on one pass.

use annals::{Projection, ProjectionError, ReadModel, Recorded, Rows, StreamProjection, StreamRow};

use super::OrderEvent;

/// A projection and its table of that name.
macro_rules! order_list {
    ($(#[$doc:meta])* $projection:ident, $row:ident, $table:literal) => {
        #[derive(ReadModel, Clone)]
        #[read_model(table = $table, key = "order_id", index = "status")]
        pub(super) struct $row {
            order_id: String,
            customer: String,
            status: String,
            cents: i64,
            placed_at: jiff::Timestamp,
        }

        impl $row {
            /// The row of a new order.
            fn of(event: &Recorded<OrderEvent>) -> Option<Self> {
                let OrderEvent::Placed { customer, cents } = &event.event else { return None };
                Some(Self {
                    order_id: event.stream.aggregate_id().to_owned(),
                    customer: customer.clone(),
                    status: event.event.status().to_owned(),
                    cents: *cents,
                    placed_at: event.recorded_at,
                })
            }
        }

        $(#[$doc])*
        pub(super) struct $projection;
    };
}

/// The fold of a projection over any keys.
macro_rules! by_key {
    ($projection:ident, $row:ident) => {
        impl Projection for $projection {
            type Event = OrderEvent;
            type Row = $row;

            fn apply(&self, event: &Recorded<OrderEvent>, rows: &mut Rows<$row>) -> Result<(), ProjectionError> {
                if let Some(row) = $row::of(event) {
                    rows.upsert(row);
                } else if let Some(row) = rows.get_mut(&event.stream.aggregate_id().to_owned())? {
                    row.status = event.event.status().to_owned();
                }
                Ok(())
            }
        }
    };
}

order_list!(OrderList, Listed, "order_list");
order_list!(SecondList, ListedSecond, "order_list_2");
order_list!(ThirdList, ListedThird, "order_list_3");
order_list!(
    /// With a row per stream, so that it can be split into slots.
    SplitList, ListedOfStream, "order_list_split"
);
by_key!(OrderList, Listed);
by_key!(SecondList, ListedSecond);
by_key!(ThirdList, ListedThird);

impl StreamProjection for SplitList {
    type Event = OrderEvent;
    type Row = ListedOfStream;
    const AGGREGATES: &'static [&'static str] = &["order"];

    fn apply(
        &self,
        event: &Recorded<OrderEvent>,
        row: &mut StreamRow<'_, ListedOfStream>,
    ) -> Result<(), ProjectionError> {
        match ListedOfStream::of(event) {
            Some(placed) => row.insert(placed),
            None => event.event.status().clone_into(&mut row.require()?.status),
        }
        Ok(())
    }
}
