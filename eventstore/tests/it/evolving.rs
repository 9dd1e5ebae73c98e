//! Events that changed are read as what they mean today, alike on every path and on every store.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::sync::Mutex;

use annals_eventstore::{
    AggregateStore, AppendError, DecodeError, EventId, EventStore, EventStoreExt, Evolve, ExpectedVersion, Filter,
    JsonUpcaster, MemoryStore, NewEvent, Parts, Payload, Position, ReadError, RecordedEvent, SqliteStore, StepError,
    StreamId, Tenant, TransactionalStore, UnitOfWork,
};
use annals_macros::{Aggregate, Event};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Serialize, Deserialize)]
struct PlacedV2 {
    items: Vec<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Placed {
    items: Vec<String>,
    count: u32,
}

impl TryFrom<PlacedV2> for Placed {
    type Error = std::num::TryFromIntError;

    fn try_from(old: PlacedV2) -> Result<Self, Self::Error> {
        Ok(Self { count: old.items.len().try_into()?, items: old.items })
    }
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(upcasters = STEPS)]
enum OrderEvent {
    #[event(name = "order.placed", version = 3, upcast(PlacedV2))]
    Placed(Placed),
    #[event(name = "order.paid")]
    Paid { cents: i64 },
    #[event(name = "receipt.sent")]
    ReceiptSent { to: String },
}

const STEPS: &[JsonUpcaster] = &[
    JsonUpcaster::rename(("order.created", 1), ("order.placed", 1)),
    JsonUpcaster::change(("order.placed", 1), several_items),
    JsonUpcaster::split(("order.paid_by_mail", 1), &[("order.paid", 1), ("receipt.sent", 1)], separate_receipt),
    JsonUpcaster::drop(("order.noted", 1)),
];

fn several_items(placed: Value) -> Result<Value, StepError> {
    let item = placed["item"].as_str().ok_or("no `item`")?;
    Ok(json!({ "items": [item] }))
}

fn separate_receipt(paid: Value) -> Result<Vec<(&'static str, Value)>, StepError> {
    Ok(vec![("order.paid", json!({ "cents": paid["cents"] })), ("receipt.sent", json!({ "to": paid["to"] }))])
}

#[derive(Aggregate, Default, Clone, Debug, PartialEq)]
#[aggregate(name = "order", id = String, event = OrderEvent)]
struct Order {
    seen: Vec<OrderEvent>,
}

impl Evolve for Order {
    fn evolve(&mut self, event: &OrderEvent) {
        self.seen.push(event.clone());
    }
}

/// An event as it was once stored, and what it means today.
fn stored(kind: usize, n: usize) -> (NewEvent, Vec<OrderEvent>) {
    let item = format!("item {n}");
    let placed = |items: &[&String]| {
        let items: Vec<String> = items.iter().map(|item| (*item).clone()).collect();
        OrderEvent::Placed(Placed { count: items.len() as u32, items })
    };
    let cents = n as i64;
    let (name, version, payload, meaning) = match kind {
        0 => ("order.created", 1, json!({ "item": item }), vec![placed(&[&item])]),
        1 => ("order.placed", 1, json!({ "item": item }), vec![placed(&[&item])]),
        2 => ("order.placed", 2, json!({ "items": [item, item] }), vec![placed(&[&item, &item])]),
        3 => ("order.placed", 3, json!({ "items": [], "count": 0 }), vec![placed(&[])]),
        4 => ("order.noted", 1, json!("anything"), vec![]),
        5 => {
            let meaning = vec![OrderEvent::Paid { cents }, OrderEvent::ReceiptSent { to: item.clone() }];
            ("order.paid_by_mail", 1, json!({ "cents": cents, "to": item }), meaning)
        }
        _ => ("order.paid", 1, json!({ "cents": cents }), vec![OrderEvent::Paid { cents }]),
    };
    (new(name, version, &payload), meaning)
}

const KINDS: usize = 7;
const NOTED: usize = 4;

fn new(name: &str, version: u32, payload: &Value) -> NewEvent {
    let id = EventId::new(uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid()).unwrap();
    NewEvent::raw(id, name, version, Payload::of(payload).unwrap()).unwrap()
}

fn stream(id: &str) -> StreamId {
    StreamId::new(Tenant::default(), "order", id).unwrap()
}

async fn append(store: &impl EventStore, id: &str, events: Vec<NewEvent>) -> Position {
    store.append(&stream(id), ExpectedVersion::Any, events).await.unwrap().position
}

fn typed(event: &RecordedEvent) -> Parts<OrderEvent> {
    let parts = event.typed::<OrderEvent>().unwrap();
    for (number, part) in parts.as_slice().iter().enumerate() {
        assert_eq!((part.part as usize, part.position, part.version), (number, event.position, event.version));
    }
    parts.map(|part| part.event)
}

/// Random old and new events in three streams, read by load, from the cache, by `read_all`, in pages and by a subscription.
async fn every_path_reads_the_same<S: EventStore + Clone>(store: S) {
    let seed = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("ANNALS_SEED={seed}");
    fastrand::seed(seed);
    let warm = store.aggregate::<Order>();
    let mut meaning: BTreeMap<String, Vec<OrderEvent>> = BTreeMap::new();
    let mut log: Vec<Vec<OrderEvent>> = Vec::new();
    let mut versions: BTreeMap<String, i64> = BTreeMap::new();
    for n in 0..40 {
        let id = format!("o-{}", fastrand::usize(..3));
        let (events, means): (Vec<_>, Vec<_>) =
            (0..fastrand::usize(1..4)).map(|_| stored(fastrand::usize(..KINDS), n)).unzip();
        *versions.entry(id.clone()).or_default() += events.len() as i64;
        append(&store, &id, events).await;
        meaning.entry(id.clone()).or_default().extend(means.iter().flatten().cloned());
        log.extend(means);
        if fastrand::bool() {
            let paid = OrderEvent::Paid { cents: -1 };
            // It is decided on the cached state first, which may be old, and then on what was read.
            let seen = Mutex::new(Vec::new());
            let decide = |order: &Order| {
                seen.lock().unwrap().clone_from(&order.seen);
                Ok::<_, Infallible>(paid.clone())
            };
            warm.execute(&id, decide).await.unwrap();
            assert_eq!(*seen.lock().unwrap(), meaning[&id]);
            *versions.entry(id.clone()).or_default() += 1;
            meaning.entry(id.clone()).or_default().push(paid.clone());
            log.push(vec![paid]);
        }
        for repository in [&warm, &store.aggregate::<Order>()] {
            let loaded = repository.load(&id).await.unwrap();
            assert_eq!((&loaded.state.seen, loaded.version.get()), (&meaning[&id], versions[&id]));
        }
    }
    let log: Vec<Parts<OrderEvent>> = log.into_iter().map(Parts::from).collect();
    let all = Filter::of::<OrderEvent>().unwrap();
    let read: Vec<_> = store.read_all(Position::START, all.clone()).try_collect().await.unwrap();
    assert_eq!(read.iter().map(typed).collect::<Vec<_>>(), log);
    let subscribed: Vec<_> = store.subscribe(Position::START, all.clone()).take(log.len()).try_collect().await.unwrap();
    assert_eq!(subscribed.iter().map(typed).collect::<Vec<_>>(), log);
    let mut pages = store.pages(Position::START, all);
    let mut paged = Vec::new();
    while paged.len() < log.len() {
        paged.extend(pages.next().await.unwrap().events.iter().map(typed));
    }
    assert_eq!(paged, log);
}

/// A transaction reads old events as the repository does, in the state that a command is decided on.
async fn a_unit_of_work_reads_the_same<S: TransactionalStore>(store: S) {
    let orders = store.aggregate::<Order>();
    let mut meaning = Vec::new();
    for kind in 0..KINDS {
        let (event, means) = stored(kind, kind);
        append(&store, "o-9", vec![event]).await;
        meaning.extend(means);
        let seen = Mutex::new(Vec::new());
        let mut work = store.begin().await.unwrap();
        let decide = |order: &Order| {
            seen.lock().unwrap().clone_from(&order.seen);
            Ok::<_, Infallible>(None::<OrderEvent>)
        };
        let done = work.execute(&orders, &"o-9".to_owned(), decide).await.unwrap();
        work.rollback().await.unwrap();
        assert_eq!((&*seen.lock().unwrap(), done.version.get()), (&meaning, kind as i64 + 1));
    }
}

/// The disaster: an event that is read as nothing was not counted, and the next append took its version.
async fn an_event_that_is_read_as_nothing_still_counts<S: EventStore + Clone>(store: S) {
    let (placed, meaning) = stored(1, 1);
    append(&store, "a", vec![placed, stored(NOTED, 2).0]).await;
    append(&store, "b", vec![stored(NOTED, 1).0]).await;
    let warm = store.aggregate::<Order>();
    for repository in [&store.aggregate::<Order>(), &warm, &warm] {
        let loaded = repository.load(&"a".to_owned()).await.unwrap();
        assert_eq!((loaded.version.get(), &loaded.state.seen), (2, &meaning));
        let only_noted = repository.load(&"b".to_owned()).await.unwrap();
        assert_eq!((only_noted.version.get(), &*only_noted.state), (1, &Order::default()));
    }
    let paid = |_: &Order| Ok::<_, Infallible>(OrderEvent::Paid { cents: 1 });
    assert_eq!(warm.execute(&"a".to_owned(), paid).await.unwrap().version.get(), 3);
    match store.append(&stream("b"), ExpectedVersion::NoStream, vec![stored(0, 3).0]).await {
        Err(AppendError::WrongExpectedVersion { actual, .. }) => assert_eq!(actual.get(), 1),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.aggregate::<Order>().execute(&"b".to_owned(), paid).await.unwrap().version.get(), 2);
}

/// Names in a filter are stored names; the filter of a type has all that it reads.
async fn a_filter_by_type_finds_old_names_and_one_by_name_only_that_name<S: EventStore + Clone>(store: S) {
    let kinds = [0, 1, 6];
    for kind in kinds {
        append(&store, "o-1", vec![stored(kind, kind).0]).await;
    }
    append(&store, "o-1", vec![new("order.unknown", 1, &json!({}))]).await;
    let names = async |filter: Filter| {
        let events: Vec<_> = store.read_all(Position::START, filter.clone()).try_collect().await.unwrap();
        let first: Vec<_> = store.subscribe(Position::START, filter).take(events.len()).try_collect().await.unwrap();
        assert_eq!(events, first);
        events.iter().map(|event| event.name.to_string()).collect::<Vec<_>>()
    };
    let by_name = |name: &str| Filter::all().event_name(name).unwrap();
    assert_eq!(names(Filter::of::<OrderEvent>().unwrap()).await, ["order.created", "order.placed", "order.paid"]);
    assert_eq!(names(by_name("order.created")).await, ["order.created"]);
    assert_eq!(names(by_name("order.placed")).await, ["order.placed"]);
}

/// An event that no step can read stops those who read it as its type, with its place and the step; raw reads go on.
async fn an_event_that_a_step_cannot_read_is_reported_with_its_place_and_the_step<S: EventStore + Clone>(store: S) {
    let orders = store.aggregate::<Order>();
    append(&store, "o-1", vec![stored(1, 1).0]).await;
    orders.load(&"o-1".to_owned()).await.unwrap();
    let position = append(&store, "o-1", vec![new("order.created", 1, &json!({ "thing": 1 }))]).await;
    append(&store, "o-1", vec![stored(1, 3).0]).await;
    let check = |error: ReadError| match &error {
        ReadError::Undecodable { stream: of, version, position: at, name, schema_version, source } => {
            assert_eq!((of, version.get(), *at), (&stream("o-1"), 2, position));
            assert_eq!((name.as_str(), *schema_version), ("order.created", 1));
            let step = "the step from `order.placed` version 1 to `order.placed` version 2 failed";
            assert_eq!(
                (source.to_string().as_str(), source.source().unwrap().to_string().as_str()),
                (step, "no `item`")
            );
            assert!(matches!(source, DecodeError::Upcast { .. }));
        }
        other => panic!("{other:?}"),
    };
    check(orders.load(&"o-1".to_owned()).await.unwrap_err());
    check(orders.load(&"o-1".to_owned()).await.unwrap_err());
    check(store.aggregate::<Order>().load(&"o-1".to_owned()).await.unwrap_err());
    let raw: Vec<_> = store.load(&stream("o-1")).try_collect().await.unwrap();
    assert_eq!(raw.len(), 3);
    check(raw[1].typed::<OrderEvent>().unwrap_err());
    check(raw[1].decode::<OrderEvent>().unwrap_err());
    assert_eq!(typed(&raw[2]).as_slice(), stored(1, 3).1);
}

/// One list, so that no store can miss a test. Those behind the semicolon need units of work.
macro_rules! on_every_store {
    ($($test:ident),*; $($with_units:ident),*) => {
        $(mod $test {
            #[tokio::test]
            async fn in_memory() {
                super::$test(super::MemoryStore::new()).await;
            }

            #[tokio::test]
            async fn on_sqlite() {
                let (_folder, store) = super::sqlite().await;
                super::$test(store).await;
            }

            #[cfg(feature = "postgres")]
            #[tokio::test]
            async fn on_postgres() {
                let (_database, store) = super::postgres().await;
                super::$test(store).await;
            }
        })*
        $(mod $with_units {
            #[tokio::test]
            async fn on_sqlite() {
                let (_folder, store) = super::sqlite().await;
                super::$with_units(store).await;
            }

            #[cfg(feature = "postgres")]
            #[tokio::test]
            async fn on_postgres() {
                let (_database, store) = super::postgres().await;
                super::$with_units(store).await;
            }
        })*
    };
}

on_every_store! {
    every_path_reads_the_same,
    an_event_that_is_read_as_nothing_still_counts,
    a_filter_by_type_finds_old_names_and_one_by_name_only_that_name,
    an_event_that_a_step_cannot_read_is_reported_with_its_place_and_the_step;
    a_unit_of_work_reads_the_same
}

async fn sqlite() -> (tempfile::TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("events.db")).await.unwrap();
    (folder, store)
}

#[cfg(feature = "postgres")]
async fn postgres() -> (annals_scratch::Database, annals_eventstore::PostgresStore) {
    let database = crate::backends::postgres_database().await;
    let store = annals_eventstore::PostgresOptions::new(database.url()).open().await.unwrap();
    (database, store)
}
