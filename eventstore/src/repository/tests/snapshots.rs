//! What is read and taken, call by call. That loads with and without snapshots agree is checked on every store in
//! `tests/it/snapshots`.

use std::convert::Infallible;
use std::time::Duration;

use annals_macros::{Aggregate, Event};
use serde::{Deserialize, Serialize};

use super::spy::{Call, Fault, Spy};
use crate::aggregate::{Aggregate as _, Evolve};
use crate::append::Append;
use crate::as_of::AsOf;
use crate::event::{EventId, NewEvent};
use crate::name::MAX_NAME_BYTES;
use crate::payload::Payload;
use crate::position::Position;
use crate::repository::cache::Known;
use crate::repository::{AggregateStore, Repository};
use crate::snapshot::{Snapshot, SnapshotStats};
use crate::store::EventStore;
use crate::stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
enum Added {
    #[event(name = "counter.added")]
    Added(i64),
    #[event(name = "counter.closed")]
    Closed,
}

/// Two builds: the same but for one line of `evolve`.
mod as_it_was {
    use super::*;

    #[derive(Aggregate, Serialize, Deserialize, Default, Clone, Debug, PartialEq)]
    #[aggregate(name = "counter", id = String, event = Added, snapshot(every = 3))]
    pub(super) struct Counter {
        pub(super) sum: i64,
    }

    impl Evolve for Counter {
        fn evolve(&mut self, event: &Added) {
            if let Added::Added(amount) = event {
                self.sum += amount;
            }
        }
    }
}

mod changed {
    use super::*;

    #[derive(Aggregate, Serialize, Deserialize, Default, Clone, Debug, PartialEq)]
    #[aggregate(name = "counter", id = String, event = Added, snapshot(every = 3))]
    pub(super) struct Counter {
        pub(super) sum: i64,
    }

    impl Evolve for Counter {
        fn evolve(&mut self, event: &Added) {
            if let Added::Added(amount) = event {
                self.sum += 2 * amount;
            }
        }
    }
}

use as_it_was::Counter;

#[derive(Aggregate, Serialize, Deserialize, Default, Clone, PartialEq)]
#[aggregate(name = "counter", id = String, event = Added, snapshot(after = "counter.closed"))]
struct Closing(i64);

impl Evolve for Closing {
    fn evolve(&mut self, _: &Added) {
        self.0 += 1;
    }
}

fn id() -> String {
    "c".to_owned()
}

fn stream() -> StreamId {
    StreamId::new(Tenant::default(), "counter", "c").unwrap()
}

fn version(n: i64) -> StreamVersion {
    StreamVersion::stored(n)
}

async fn add(counters: &Repository<Counter>, events: usize) {
    counters.execute(&id(), |_| Ok::<_, Infallible>(vec![Added::Added(1); events])).await.unwrap();
}

/// Waits until the snapshots that are due were saved or skipped.
async fn taken<A: Evolve>(repository: &Repository<A>, snapshots: u64) {
    let done = |stats: SnapshotStats| stats.saved + stats.skipped == snapshots;
    while !done(repository.snapshot_stats()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The versions of the snapshots under the key of the repository, the latest first.
async fn versions<A: Evolve>(spy: &Spy, repository: &Repository<A>) -> Vec<i64> {
    let (mut found, mut below) = (Vec::new(), i64::MAX);
    let key = repository.snapshot_key().unwrap();
    while let Some(next) = spy.snapshots().unwrap().load_snapshot(&stream(), key, version(below)).await.unwrap() {
        below = next.snapshot.version.get() - 1;
        found.push(below + 1);
    }
    found
}

#[tokio::test(start_paused = true)]
async fn a_load_reads_the_last_event_of_the_snapshot_and_what_follows() {
    let spy = Spy::new();
    let counters = spy.aggregate::<Counter>();
    for _ in 0..4 {
        add(&counters, 1).await;
    }
    taken(&counters, 1).await;
    assert_eq!(versions(&spy, &counters).await, [3]);
    // The first one is compared with its events.
    assert_eq!(spy.aggregate::<Counter>().load(&id()).await.unwrap().state.sum, 4);
    spy.calls();
    let fresh = spy.aggregate::<Counter>();
    let loaded = fresh.load(&id()).await.unwrap();
    assert_eq!((loaded.state.sum, loaded.version), (4, version(4)));
    assert_eq!(spy.calls(), [Call::Load { after: 2, events: 2 }]);
    assert_eq!(fresh.snapshot_stats(), SnapshotStats { hits: 2, misses: 1, saved: 1, ..SnapshotStats::default() });
    assert_eq!(fresh.without_snapshots().without_cache().load(&id()).await.unwrap().state.sum, 4);
    assert_eq!(spy.calls(), [Call::Load { after: 0, events: 4 }]);
}

#[tokio::test(start_paused = true)]
async fn one_append_over_several_multiples_gives_one_snapshot_at_its_end() {
    let spy = Spy::new();
    let counters = spy.aggregate::<Counter>();
    for (events, due) in [(2, 0), (5, 1), (1, 1), (1, 2)] {
        add(&counters, events).await;
        taken(&counters, due).await;
    }
    assert_eq!(versions(&spy, &counters).await, [9, 7]);
}

#[tokio::test(start_paused = true)]
async fn a_load_of_many_events_is_followed_by_a_snapshot_and_a_load_of_few_is_not() {
    let spy = Spy::new();
    add(&spy.aggregate::<Counter>().without_snapshots(), 5).await;
    let counters = spy.aggregate::<Counter>();
    counters.load(&id()).await.unwrap();
    taken(&counters, 1).await;
    add(&spy.aggregate::<Counter>().without_snapshots(), 2).await;
    counters.load(&id()).await.unwrap();
    spy.aggregate::<Counter>().load(&id()).await.unwrap();
    counters.load(&id()).await.unwrap();
    spy.close().await;
    assert_eq!(counters.snapshot_stats().saved, 1);
}

/// A position and a time say nothing of versions, and still not all events are read.
#[tokio::test(start_paused = true)]
async fn a_read_of_the_past_begins_with_a_snapshot_of_that_past() {
    let spy = Spy::new();
    let counters = spy.aggregate::<Counter>();
    for _ in 0..8 {
        add(&counters, 1).await;
    }
    taken(&counters, 2).await;
    assert_eq!(versions(&spy, &counters).await, [6, 3]);
    // The first one is compared with its events.
    counters.as_of(&id(), AsOf::version(3)).await.unwrap();
    spy.calls();
    let position = |n| AsOf::position(Position::new(n).unwrap());
    for (asked, sum, after, events) in [
        (position(5), 5, 2, 6),
        (AsOf::version(5), 5, 2, 3),
        (position(3), 3, 2, 6),
        (position(7), 7, 5, 3),
        (position(2), 2, 0, 8),
        (AsOf::version(2), 2, 0, 2),
    ] {
        let then = spy.aggregate::<Counter>().as_of(&id(), asked).await.unwrap();
        assert_eq!((then.state.sum, then.position.get()), (sum, sum), "{asked}");
        assert_eq!(spy.calls(), [Call::Load { after, events }], "{asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_of_the_past_reads_little_more_than_it_needs_and_takes_a_snapshot_of_what_was_long() {
    let spy = Spy::new();
    for _ in 0..20 {
        add(&spy.aggregate::<Counter>().without_snapshots(), 100).await;
    }
    let counters = spy.aggregate::<Counter>();
    let position = spy.load_page(&stream(), version(599), 1).await.unwrap().events[0].position;
    spy.calls();
    assert_eq!(counters.as_of(&id(), AsOf::position(position)).await.unwrap().state.sum, 600);
    let pages =
        [(0, 128), (127, 128), (254, 128), (381, 192), (572, 288)].map(|(after, events)| Call::Load { after, events });
    assert_eq!(spy.calls(), pages);
    taken(&counters, 1).await;
    assert_eq!(versions(&spy, &counters).await, [600]);
    // The first one is compared with its events.
    counters.as_of(&id(), AsOf::version(601)).await.unwrap();
    spy.calls();
    counters.as_of(&id(), AsOf::version(601)).await.unwrap();
    assert_eq!(spy.calls(), [Call::Load { after: 599, events: 2 }]);
    spy.close().await;
    assert_eq!(counters.snapshot_stats().saved, 1, "one event more is no reason for another");
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_events_takes_snapshots_after_these_alone() {
    let spy = Spy::new();
    let counters = spy.aggregate::<Closing>();
    for events in [vec![Added::Added(1)], vec![Added::Added(1), Added::Closed, Added::Added(1)], vec![Added::Added(1)]]
    {
        counters.execute(&id(), |_| Ok::<_, Infallible>(events.clone())).await.unwrap();
    }
    taken(&counters, 1).await;
    assert_eq!(versions(&spy, &counters).await, [4]);
}

/// A snapshot of what was decided and never stored would be a state of another history.
#[tokio::test(start_paused = true)]
async fn no_snapshot_is_taken_of_events_that_were_not_stored() {
    for fault in ["conflict", "lost", "lost but stored"] {
        let spy = Spy::new();
        let counters = spy.aggregate::<Counter>().attempts(1);
        add(&counters, 2).await;
        match fault {
            "conflict" => {
                let new = NewEvent::of(EventId::new(spy.ids().next_id()).unwrap(), &Added::Added(100)).unwrap();
                spy.next([Fault::Rival(Append::to(stream(), ExpectedVersion::Any, vec![new]))]);
            }
            lost => spy.next((0..7).map(|_| Fault::AnswerLost { stored: lost == "lost but stored" })),
        }
        let failed = counters.execute(&id(), |_| Ok::<_, Infallible>(Added::Added(1))).await;
        assert!(failed.is_err(), "{fault}");
        let SnapshotStats { saved, skipped, .. } = counters.snapshot_stats();
        assert_eq!((saved, skipped), (0, 0), "{fault}");
        let loaded = spy.aggregate::<Counter>().without_snapshots().load(&id()).await.unwrap();
        assert_eq!(
            loaded.state.sum,
            match fault {
                "conflict" => 102,
                "lost" => 2,
                _ => 3,
            },
            "{fault}"
        );
    }
}

/// The comparison reads all events, so that also the first load gives what they give.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_gives_another_state_than_its_events_disables_snapshots() {
    let spy = Spy::new();
    let before = spy.aggregate::<Counter>();
    add(&before, 3).await;
    taken(&before, 1).await;
    let counters = spy.aggregate::<changed::Counter>();
    assert_eq!(counters.snapshot_key(), before.snapshot_key());
    for _ in 0..2 {
        assert_eq!(spy.aggregate::<changed::Counter>().load(&id()).await.unwrap().state.sum, 6);
    }
    counters.execute(&id(), |_| Ok::<_, Infallible>(vec![Added::Added(1); 3])).await.unwrap();
    spy.close().await;
    let expected = SnapshotStats { misses: 2, saved: 1, disabled: true, ..SnapshotStats::default() };
    assert_eq!(counters.snapshot_stats(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_changes_when_it_is_written_is_never_saved() {
    #[derive(Aggregate, Serialize, Deserialize, Default, Clone, PartialEq)]
    #[aggregate(name = "counter", id = String, event = Added, snapshot(every = 1))]
    struct Rounded {
        #[serde(serialize_with = "halved")]
        sum: i64,
    }

    fn halved<S: serde::Serializer>(sum: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(sum / 2)
    }

    impl Evolve for Rounded {
        fn evolve(&mut self, _: &Added) {
            self.sum += 4;
        }
    }

    let spy = Spy::new();
    let counters = spy.aggregate::<Rounded>();
    counters.execute(&id(), |_| Ok::<_, Infallible>(Added::Added(1))).await.unwrap();
    taken(&counters, 1).await;
    assert_eq!(counters.snapshot_stats().skipped, 1);
    assert!(versions(&spy, &counters).await.is_empty());
}

/// The task must not end with it.
#[tokio::test(start_paused = true)]
async fn a_state_that_panics_when_it_is_written_is_skipped_and_the_next_is_saved() {
    #[derive(Aggregate, Serialize, Deserialize, Default, Clone, PartialEq)]
    #[aggregate(name = "counter", id = String, event = Added, snapshot(every = 1))]
    struct Panicking {
        #[serde(serialize_with = "not_one")]
        events: i64,
    }

    fn not_one<S: serde::Serializer>(events: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        assert_ne!(*events, 1, "it panics");
        serializer.serialize_i64(*events)
    }

    impl Evolve for Panicking {
        fn evolve(&mut self, _: &Added) {
            self.events += 1;
        }
    }

    let spy = Spy::new();
    let counters = spy.aggregate::<Panicking>();
    for due in [1, 2] {
        counters.execute(&id(), |_| Ok::<_, Infallible>(Added::Added(1))).await.unwrap();
        taken(&counters, due).await;
    }
    assert_eq!(versions(&spy, &counters).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_skips_snapshots_and_closing_saves_those_that_wait() {
    let spy = Spy::new();
    let counters = spy.aggregate::<Counter>();
    // The task does not run between these, as nothing here waits.
    for _ in 0..100 {
        add(&counters, 3).await;
    }
    spy.close().await;
    let stats = counters.snapshot_stats();
    assert_eq!((stats.saved + stats.skipped, stats.skipped > 0, stats.saved > 0), (100, true, true), "{stats:?}");
    spy.close().await;
    counters.take_snapshot(&stream(), &Known::start());
    assert_eq!(counters.snapshot_stats(), stats);
}

/// What is saved under the same fold number by a build with other fields or other events.
#[test]
fn the_key_changes_with_the_fold_the_fields_and_the_events() {
    #[derive(Aggregate, Serialize, Deserialize, Default, Clone, PartialEq)]
    #[aggregate(name = "counter", id = String, event = Added, snapshot(every = 3), fold = 2)]
    struct Fold {
        sum: i64,
    }
    #[derive(Aggregate, Serialize, Deserialize, Default, Clone, PartialEq)]
    #[aggregate(name = "counter", id = String, event = Added, snapshot(every = 3))]
    struct Renamed {
        total: i64,
    }
    #[derive(Aggregate, Serialize, Deserialize, Default, Clone, PartialEq)]
    #[aggregate(name = "counter", id = String, event = Added, snapshot(every = 3))]
    struct RenamedBySerde {
        #[serde(rename = "total")]
        sum: i64,
    }
    #[derive(Aggregate, Serialize, Deserialize, Default, Clone, PartialEq)]
    #[aggregate(name = "counter", id = String, event = Raised, snapshot(every = 3))]
    struct Events {
        sum: i64,
    }
    #[derive(Event, Serialize, Deserialize, Clone, Debug)]
    enum Raised {
        #[event(name = "counter.added", version = 2)]
        Added(i64),
        #[event(name = "counter.closed")]
        Closed,
    }
    /// Comments, visibility, name and policy do not count.
    #[derive(Aggregate, Serialize, Deserialize, Default, Clone, PartialEq)]
    #[aggregate(name = "counter", id = String, event = Added, snapshot(every = 100))]
    struct Same {
        /// A sum.
        pub(super) sum: i64,
    }

    macro_rules! keys { ($($a:ty),*) => { vec![$(<$a>::snapshot_codec().unwrap().key()),*] } }
    let keys = keys![Counter, Fold, Renamed, RenamedBySerde, Events];
    for (at, key) in keys.iter().enumerate() {
        assert!(key.len() <= MAX_NAME_BYTES && !keys[..at].contains(key), "{at}: {key}");
    }
    assert_eq!(keys![Same, changed::Counter], vec![keys[0].clone(); 2]);
}

#[test]
fn a_digest_covers_every_column() {
    let payload = |text| Payload::from_json(text).unwrap();
    let event = |n| EventId::new(uuid::Uuid::from_u128(n)).unwrap();
    let sound = Snapshot::new(stream(), "1.a".into(), version(3), event(7), payload("[1]"));
    assert!(sound.is_intact());
    let other = StreamId::new(Tenant::new("other").unwrap(), "counter", "c").unwrap();
    for changed in [
        Snapshot { stream: other, ..sound.clone() },
        Snapshot { key: "1.b".into(), ..sound.clone() },
        Snapshot { version: version(4), ..sound.clone() },
        Snapshot { event_id: event(8), ..sound.clone() },
        Snapshot { body: payload("[2]"), ..sound.clone() },
    ] {
        assert!(!changed.is_intact(), "{changed:?}");
    }
}

/// The events of a snapshot cannot be read at once, so the comparison must stop at its version.
#[tokio::test(start_paused = true)]
async fn a_snapshot_is_compared_page_by_page_with_the_events_up_to_its_own() {
    let spy = Spy::new().paged(2);
    let counters = spy.aggregate::<Counter>();
    for _ in 0..7 {
        add(&counters, 1).await;
    }
    taken(&counters, 2).await;
    spy.calls();
    let fresh = spy.aggregate::<Counter>();
    assert_eq!(fresh.load(&id()).await.unwrap().state.sum, 7);
    let SnapshotStats { hits, misses, disabled, .. } = fresh.snapshot_stats();
    assert_eq!((hits, misses, disabled), (1, 1, false), "the first command has found none");
}

/// A load would give another state with such a snapshot than without.
#[tokio::test(start_paused = true)]
async fn a_state_whose_json_is_read_as_another_state_is_never_saved() {
    #[derive(Serialize, Deserialize, Clone, PartialEq)]
    #[serde(untagged)]
    enum Amount {
        Small(u32),
        Large(i64),
    }

    #[derive(Serialize, Deserialize, Default, Clone, PartialEq)]
    struct Parts {
        #[serde(skip)]
        hidden: i64,
    }

    macro_rules! check {
        ($field:ident: $ty:ty = $value:expr) => {{
            #[derive(Aggregate, Serialize, Deserialize, Default, Clone, PartialEq)]
            #[aggregate(name = "counter", id = String, event = Added, snapshot(every = 1))]
            struct Ambiguous {
                $field: $ty,
            }

            impl Evolve for Ambiguous {
                fn evolve(&mut self, _: &Added) {
                    self.$field = $value;
                }
            }

            let spy = Spy::new();
            let counters = spy.aggregate::<Ambiguous>();
            counters.execute(&id(), |_| Ok::<_, Infallible>(Added::Added(1))).await.unwrap();
            taken(&counters, 1).await;
            assert_eq!(counters.snapshot_stats().skipped, 1);
            assert!(versions(&spy, &counters).await.is_empty());
        }};
    }
    check!(note: Option<Option<i64>> = Some(None));
    check!(amounts: Vec<Amount> = vec![Amount::Large(5)]);
    check!(parts: Parts = Parts { hidden: 1 });
}

/// `HashSet` has no order, so that its JSON is often another one; the state is the same.
#[tokio::test(start_paused = true)]
async fn a_state_whose_json_has_another_order_is_saved_and_used() {
    #[derive(Aggregate, Serialize, Deserialize, Default, Clone, PartialEq)]
    #[aggregate(name = "counter", id = String, event = Added, snapshot(every = 100))]
    struct Seen(std::collections::HashSet<usize>);

    impl Evolve for Seen {
        fn evolve(&mut self, _: &Added) {
            self.0.insert(self.0.len());
        }
    }

    let spy = Spy::new();
    let counters = spy.aggregate::<Seen>().without_cache();
    counters.execute(&id(), |_| Ok::<_, Infallible>(vec![Added::Added(1); 100])).await.unwrap();
    taken(&counters, 1).await;
    counters.load(&id()).await.unwrap();
    let stats = counters.snapshot_stats();
    assert_eq!((stats.saved, stats.hits, stats.disabled), (1, 1, false));
}

/// A snapshot must never be the reason why an aggregate cannot be loaded.
#[tokio::test(start_paused = true)]
async fn a_snapshot_whose_reading_panics_is_not_used() {
    use std::sync::atomic::{AtomicBool, Ordering};

    static PANICS: AtomicBool = AtomicBool::new(false);

    #[derive(Aggregate, Serialize, Deserialize, Default, Clone, PartialEq)]
    #[aggregate(name = "counter", id = String, event = Added, snapshot(every = 1))]
    struct Fragile {
        #[serde(deserialize_with = "sometimes")]
        events: i64,
    }

    fn sometimes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        assert!(!PANICS.load(Ordering::SeqCst), "it panics");
        i64::deserialize(deserializer)
    }

    impl Evolve for Fragile {
        fn evolve(&mut self, _: &Added) {
            self.events += 1;
        }
    }

    let spy = Spy::new();
    let counters = spy.aggregate::<Fragile>().without_cache();
    counters.execute(&id(), |_| Ok::<_, Infallible>(Added::Added(1))).await.unwrap();
    taken(&counters, 1).await;
    let SnapshotStats { misses, .. } = counters.snapshot_stats();
    PANICS.store(true, Ordering::SeqCst);
    assert_eq!(counters.load(&id()).await.unwrap().state.events, 1);
    assert_eq!(counters.snapshot_stats().misses, misses + 1);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_too_large_is_not_saved() {
    #[derive(Aggregate, Serialize, Deserialize, Default, Clone, PartialEq)]
    #[aggregate(name = "counter", id = String, event = Added, snapshot(every = 1))]
    struct Large(String);

    impl Evolve for Large {
        fn evolve(&mut self, event: &Added) {
            // The quotation marks of the JSON count.
            if let Added::Added(bytes) = event {
                self.0 = "x".repeat(usize::try_from(*bytes).unwrap() - 2);
            }
        }
    }

    let spy = Spy::new();
    let counters = spy.aggregate::<Large>();
    for (due, bytes) in [(1, 16 << 20), (2, (16 << 20) + 1)] {
        counters.execute(&id(), |_| Ok::<_, Infallible>(Added::Added(bytes))).await.unwrap();
        taken(&counters, due).await;
    }
    assert_eq!(versions(&spy, &counters).await, [1]);
}
