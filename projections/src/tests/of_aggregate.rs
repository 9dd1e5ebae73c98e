//! Event types that say of which aggregate their events are.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_eventstore::{AsOf, EventStore, ExpectedVersion, NewEvent, Payload, Position, Recorded, StreamId, Tenant};
use annals_macros::{Event, ReadModel};
use serde::{Deserialize, Serialize};

use super::accounts::Accounts;
use super::fixture::Fixture;
use crate::testing::given_events;
use crate::{EffectKey, Projection, ProjectionError, Reactor, ReactorError, Rows};

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
#[event(of = "account")]
enum AccountClosed {
    #[event(name = "closed")]
    Closed { why: String },
}

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
#[event(name = "counted", of = "stock")]
struct Counted;

#[derive(Event, Clone, Debug)]
enum ShopEvent {
    #[event(transparent)]
    Account(AccountClosed),
    #[event(transparent)]
    Stock(Counted),
}

#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "endings", key("kind", "id"))]
struct Ending {
    kind: String,
    id: String,
}

struct Endings;

impl Projection for Endings {
    type Event = ShopEvent;
    type Row = Ending;

    fn apply(&self, event: &Recorded<ShopEvent>, rows: &mut Rows<Ending>) -> Result<(), ProjectionError> {
        let (kind, id) = (event.stream.aggregate_type().to_owned(), event.stream.aggregate_id().to_owned());
        rows.upsert(Ending { kind, id });
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Mailer(Arc<Mutex<Vec<String>>>);

impl Reactor for Mailer {
    type Event = AccountClosed;
    const NAME: &'static str = "mailer";

    async fn react(&self, event: &Recorded<AccountClosed>, _: &EffectKey) -> Result<(), ReactorError> {
        self.0.lock().unwrap().push(event.stream.aggregate_id().to_owned());
        Ok(())
    }
}

/// Two teams may have called their events alike; the one's must not stop the other's projections.
#[tokio::test(start_paused = true)]
async fn events_of_other_aggregates_with_the_same_stored_name_are_passed_over() {
    for beside_others in [false, true] {
        let (shop, mailer) = (Fixture::new(), Mailer::default());
        let mut projections = shop.projections().with(Endings).react(mailer.clone());
        if beside_others {
            // It wants events of all aggregates, so that the log is read for it too.
            projections = projections.with(Accounts);
        }
        let views = projections.start().await.unwrap();
        let mut last = Position::START;
        for (aggregate_type, name, payload) in [
            ("account", "closed", r#"{"why":"moved"}"#),
            // Neither of them can be read as an event of the other aggregate.
            ("door", "closed", "17"),
            ("stock", "counted", "null"),
            ("account", "counted", "[1]"),
            ("stock", "closed", r#"{"why":"sold"}"#),
        ] {
            let stream = StreamId::new(Tenant::default(), aggregate_type, "1").unwrap();
            let event = NewEvent::raw(shop.next_id(), name, 1, Payload::from_json(payload).unwrap()).unwrap();
            last = shop.store.append(&stream, ExpectedVersion::Any, vec![event]).await.unwrap().position;
        }
        views.wait_for_one::<Endings>(last, shop.soon()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(*mailer.0.lock().unwrap(), ["1"]);
        let ending = |kind: &str| Ending { kind: kind.to_owned(), id: "1".to_owned() };
        let past = views.as_of::<Endings>(AsOf::position(last)).await.unwrap();
        assert_eq!(past.rows, [ending("account"), ending("stock")]);
        views.close().await;
    }
}

#[test]
fn given_events_are_of_the_aggregate_that_their_type_names() {
    given_events([("1", AccountClosed::Closed { why: "moved".into() })])
        .with(Endings)
        .across_tenants()
        .then_rows([Ending { kind: "account".into(), id: "1".into() }]);
}
