//! Random histories with random snapshots: whatever became of them, a load or a read of the past with them equals one without.

use std::convert::Infallible;
use std::sync::Arc;

use annals_eventstore::{
    AggregateStore, AsOf, EventStore, EventStoreExt, Filter, Payload, Position, RecordedEvent, Repository, Snapshot,
    StreamVersion,
};
use futures::TryStreamExt;

use super::{EachThree, Noted, Place, agrees, on_every_store, stream};

on_every_store! {
    loads_with_snapshots_equal_loads_without,
}

const STEPS: usize = 120;
const IDS: [&str; 3] = ["a", "b", "c"];

/// Edits by hand, of the last row of a stream.
const EDITS: [&str; 5] = [
    "UPDATE annals_snapshots SET version = version + 1000",
    "UPDATE annals_snapshots SET event_id = randomblob(16)",
    "UPDATE annals_snapshots SET body = '{}'",
    "UPDATE annals_snapshots SET digest = randomblob(16)",
    "DELETE FROM annals_snapshots",
];

async fn loads_with_snapshots_equal_loads_without(place: Place) {
    let seed =
        std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("ANNALS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut store = place.open().await;
    let mut cached = store.aggregate::<EachThree>();
    let mut hits = 0;
    for step in 0..STEPS {
        let id = IDS[random.usize(..IDS.len())];
        match random.u8(..16) {
            0..9 => append(&cached, id, &mut random).await,
            9 => append(&store.aggregate::<EachThree>(), id, &mut random).await,
            10 => change(&store, id, &mut random).await,
            11 if place.is_durable() => {
                let edit = EDITS[random.usize(..EDITS.len())];
                let statement = format!(
                    "{edit} WHERE aggregate_id = '{id}' AND version = (
                    SELECT max(version) FROM annals_snapshots WHERE aggregate_id = '{id}')"
                );
                place.by_hand(&statement).await;
            }
            12 if place.is_durable() && random.bool() => place.set_back(random.usize(..=count(&store).await)).await,
            13 => store.snapshots().unwrap().delete_snapshots(&stream(id)).await.unwrap(),
            14 => {
                hits += cached.snapshot_stats().hits;
                store = place.restart(store).await;
                cached = store.aggregate::<EachThree>().cache(random.u64(..3));
            }
            _ => {}
        }
        let version = agrees::<EachThree>(&store, id).await;
        let loaded = cached.load(&id.to_owned()).await.unwrap();
        assert_eq!(loaded.version.get(), version, "step {step}");
        let without = cached.clone().without_snapshots().without_cache().load(&id.to_owned()).await.unwrap();
        assert_eq!(loaded.state, without.state, "step {step}");
        past_agrees(&store, id, version, &mut random).await;
    }
    hits += cached.snapshot_stats().hits;
    assert!(hits > 0, "no snapshot was ever used");
    assert!(!cached.snapshot_stats().disabled, "a snapshot gave another state");
    store.close().await;
}

/// A read of the past gives what one without snapshots gives: at a version, at a position, and at the time of an event.
async fn past_agrees(store: &Arc<dyn EventStore>, id: &str, version: i64, random: &mut fastrand::Rng) {
    let log: Vec<RecordedEvent> = store.read_all(Position::START, Filter::all()).try_collect().await.unwrap();
    let Some(event) = random.choice(&log) else { return };
    let asked = [AsOf::version(random.i64(0..=version)), AsOf::position(event.position), AsOf::time(event.recorded_at)];
    let (id, with) = (id.to_owned(), store.aggregate::<EachThree>());
    for as_of in asked {
        let found = with.as_of(&id, as_of).await.unwrap();
        let expected = with.clone().without_snapshots().as_of(&id, as_of).await.unwrap();
        assert_eq!(
            (&found.state, found.version, found.position),
            (&expected.state, expected.version, expected.position),
            "`{id}` as of {as_of}"
        );
    }
}

async fn append(counters: &Repository<EachThree>, id: &str, random: &mut fastrand::Rng) {
    let event = |random: &mut fastrand::Rng| match random.u8(..4) {
        0 => Noted::Note(["x", "y", "\u{1}\"é"][random.usize(..3)].to_owned()),
        _ => Noted::Added(random.i64(..)),
    };
    let events: Vec<Noted> = (0..random.usize(1..6)).map(|_| event(random)).collect();
    counters.execute(&id.to_owned(), |_| Ok::<_, Infallible>(events.clone())).await.unwrap();
}

/// Saves a snapshot that is not to be used, in place of the latest or beside it.
async fn change(store: &Arc<dyn EventStore>, id: &str, random: &mut fastrand::Rng) {
    let counters = store.aggregate::<EachThree>();
    let (snapshots, key) = (store.snapshots().unwrap(), counters.snapshot_key().unwrap());
    let highest = StreamVersion::new(i64::MAX).unwrap();
    let Some(found) = snapshots.load_snapshot(&stream(id), key, highest).await.unwrap() else { return };
    let Snapshot { stream: of, key, version, event_id, body, digest } = found.snapshot;
    let changed = match random.u8(..4) {
        // The digest is that of another content.
        0 => Snapshot { stream: of, key, version, event_id, body: Payload::from_json("[1]").unwrap(), digest },
        // Another build wrote another shape under the same key.
        1 => Snapshot::new(of, key, version, event_id, Payload::from_json(r#"{"total": 3}"#).unwrap()),
        // It is another build's.
        2 => Snapshot::new(of, "of another build".into(), version, event_id, Payload::from_json("[]").unwrap()),
        // Under the name of another stream, with the content of this one.
        _ => {
            let other = stream(IDS[random.usize(..IDS.len())]);
            let page = store.load_page(&other, StreamVersion::NONE, 1).await.unwrap();
            let Some(first) = page.events.first() else { return };
            if other == of {
                return;
            }
            Snapshot { stream: other, key, version: first.version, event_id: first.event_id, body, digest }
        }
    };
    snapshots.save_snapshots(&[changed]).await.unwrap();
}

/// How many events the log has.
async fn count(store: &Arc<dyn EventStore>) -> usize {
    let mut events = 0;
    for id in IDS {
        events += store.load_page(&stream(id), StreamVersion::NONE, 2_000).await.unwrap().events.len();
    }
    events
}
