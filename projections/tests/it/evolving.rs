//! Events that changed, folded as what they mean today.

use std::time::Duration;

use annals_eventstore::{
    EventId, EventStore, ExpectedVersion, JsonUpcaster, NewEvent, Payload, Position, Recorded, StepError, StreamId,
    Tenant,
};
use annals_macros::{Event, ReadModel};
use annals_projections::{Projection, ProjectionError, Rows};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::backends::{Backend, Shop, block_on, until_at};

const SOON: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
struct PlacedV1 {
    euros: i64,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
struct Placed {
    cents: i64,
}

impl TryFrom<PlacedV1> for Placed {
    type Error = &'static str;

    fn try_from(old: PlacedV1) -> Result<Self, Self::Error> {
        Ok(Self { cents: old.euros.checked_mul(100).ok_or("too many euros")? })
    }
}

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
#[event(upcasters = STEPS)]
enum SaleEvent {
    #[event(name = "sale.made", version = 2, upcast(PlacedV1))]
    Made(Placed),
    #[event(name = "sale.refunded")]
    Refunded { cents: i64 },
}

const STEPS: &[JsonUpcaster] = &[
    JsonUpcaster::rename(("sale.closed", 1), ("sale.made", 1)),
    JsonUpcaster::split(("sale.corrected", 1), &[("sale.refunded", 1), ("sale.made", 2)], refund_and_sell),
    JsonUpcaster::drop(("sale.noted", 1)),
];

fn refund_and_sell(corrected: Value) -> Result<Vec<(&'static str, Value)>, StepError> {
    let cents = |field: &str| json!({ "cents": corrected[field] });
    Ok(vec![("sale.refunded", cents("from")), ("sale.made", cents("to"))])
}

/// What one stream comes to, with every part in the order in which it was folded.
#[derive(ReadModel, Clone, Debug)]
#[read_model(table = "till", key = "till")]
struct Till {
    till: String,
    cents: i64,
    folded: String,
}

struct Tills;

impl Projection for Tills {
    type Event = SaleEvent;
    type Row = Till;

    fn apply(&self, event: &Recorded<SaleEvent>, rows: &mut Rows<Till>) -> Result<(), ProjectionError> {
        let till = event.stream.aggregate_id().to_owned();
        let row = rows.get_or_insert_with(&till, || Till { till: till.clone(), cents: 0, folded: String::new() })?;
        let cents = match event.event {
            SaleEvent::Made(Placed { cents }) => cents,
            SaleEvent::Refunded { cents } => -cents,
        };
        row.cents += cents;
        row.folded.push_str(&format!("{}.{} {cents}; ", event.version, event.part).replace("version ", ""));
        Ok(())
    }
}

async fn append(shop: &Shop, till: &str, events: &[(&str, u32, Value)]) -> Position {
    let store = shop.store();
    let stream = StreamId::new(Tenant::default(), "till", till).unwrap();
    let new = |(name, version, payload): &(&str, u32, Value)| {
        let id = EventId::new(store.ids().next_id()).unwrap();
        NewEvent::raw(id, name, *version, Payload::of(payload).unwrap()).unwrap()
    };
    store.append(&stream, ExpectedVersion::Any, events.iter().map(new).collect()).await.unwrap().position
}

const TILLS: &str = "SELECT till || ' ' || cents || ': ' || folded FROM till ORDER BY till";

/// The disaster: read models were built from old events as they were stored, and aggregates from what these mean.
pub(crate) fn events_that_changed_are_folded_as_what_they_mean_today(backend: Backend) {
    block_on(async {
        let shop = backend.open().await;
        let views = shop.projections().with(Tills).start().await.unwrap();
        let old = [
            ("sale.made", 1, json!({ "euros": 3 })),
            ("sale.closed", 1, json!({ "euros": 5 })),
            ("sale.made", 2, json!({ "cents": 50 })),
            ("sale.corrected", 1, json!({ "from": 50, "to": 40 })),
        ];
        append(&shop, "t-1", &old).await;
        let position = append(&shop, "t-2", &[("sale.noted", 1, json!("nothing"))]).await;
        // The last event of the log is read as nothing, and still moves the checkpoint.
        views.wait_for(position, SOON).await.unwrap();
        until_at(&views, position).await;
        assert_eq!(shop.query(TILLS).await, ["t-1 840: 1.0 300; 2.0 500; 3.0 50; 4.0 -50; 4.1 40; "]);
        assert_eq!(views.status()[0].applied, 5, "stored events are counted, not parts");

        // One that a step cannot read stops the projection before it, whatever comes behind.
        append(&shop, "t-2", &[("sale.made", 2, json!({ "cents": 1 }))]).await;
        let unreadable = append(&shop, "t-2", &[("sale.closed", 1, json!({ "euros": i64::MAX }))]).await;
        append(&shop, "t-2", &[("sale.made", 2, json!({ "cents": 1 }))]).await;
        let stopped = views.stopped().await.unwrap_err();
        assert_eq!(stopped.event.as_ref().map(|event| event.position), Some(unreadable));
        let mut text = stopped.to_string();
        let mut cause = std::error::Error::source(&stopped);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        assert!(text.ends_with("the step from `sale.made` version 1 to version 2 failed: too many euros"), "{text}");
        assert_eq!(shop.query(TILLS).await[1..], ["t-2 1: 2.0 1; "]);
        views.close().await;
        shop.close().await;
    });
}
