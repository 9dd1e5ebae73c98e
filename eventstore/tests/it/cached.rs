//! Cached states equal those of a later load, on every store, also after a restore or a failover.

use std::convert::Infallible;
use std::sync::Arc;

use annals_eventstore::conformance::{Backend, Setup};
use annals_eventstore::{
    Aggregate, AggregateStore, DecodeError, Event, EventShape, EventStore, Evolve, Invalid, Limits, ManualClock,
    Payload, Repository, SnapshotPolicy, UnitOfWork,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::backends::{InMemory, OnDisk};
use crate::third_party_store::Elsewhere;

/// An event that shows everything a type can see of its payload's text.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Noted {
    raw: Box<RawValue>,
}

impl Event for Noted {
    const SHAPES: &'static [EventShape] = &[EventShape { name: "noted", version: 1, rust_name: "Noted" }];

    fn shape(&self) -> &'static EventShape {
        &Self::SHAPES[0]
    }

    fn encode(&self) -> Result<Payload, Invalid> {
        Payload::of(self)
    }

    fn decode(_: &str, _: u32, payload: &Payload) -> Result<Self, DecodeError> {
        payload.read().map_err(|source| DecodeError::Payload { source })
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Notes(Vec<String>);

impl Aggregate for Notes {
    const TYPE: &'static str = "notes";
    const FOLD: u32 = 1;
    const SNAPSHOT: SnapshotPolicy = SnapshotPolicy::Never;
    type Id = String;
    type Event = Noted;
}

impl Evolve for Notes {
    fn evolve(&mut self, event: &Noted) {
        self.0.push(event.raw.get().to_owned());
    }
}

/// A random JSON text, written in any way that JSON allows.
fn text(random: &mut fastrand::Rng, depth: usize) -> String {
    let space = |random: &mut fastrand::Rng| ["", "", " ", "\n\t"][random.usize(..4)];
    let string = |random: &mut fastrand::Rng| {
        let pieces = ["a", "zip", "\\u0061", "\\/", "\\u001F", "\\n", "\u{e9}", "\\ud83d\\ude00", "\\\"", "\u{7f}"];
        (0..random.usize(..4)).map(|_| pieces[random.usize(..pieces.len())]).collect::<String>()
    };
    match random.u8(if depth == 0 { 0..4 } else { 0..6 }) {
        0 => ["null", "true", "false", "-0", "-0.0", "0e5", "1e16", "1E+2", "1.50", "1.5e-3"][random.usize(..10)]
            .to_owned(),
        1 => {
            let sign = ["", "-"][random.usize(..2)];
            let places = ["", ".0", ".50", ".05"][random.usize(..4)];
            let exponent = ["", "e3", "E-7", "e+0", "e20"][random.usize(..5)];
            format!("{sign}{}{places}{exponent}", random.u64(..) >> random.u32(..64))
        }
        2 => f64::from_bits(random.u64(..)).to_string().replace("NaN", "1").replace("inf", "1"),
        3 => format!("\"{}\"", string(random)),
        4 => {
            let parts: Vec<_> = (0..random.usize(..4)).map(|_| text(random, depth - 1)).collect();
            format!("[{}{}]", space(random), parts.join(&format!("{},", space(random))))
        }
        _ => {
            let keys: Vec<_> = (0..random.usize(..5)).map(|n| format!("{}{n}", string(random))).collect();
            let fields: Vec<_> = keys
                .iter()
                .rev()
                .map(|key| format!("\"{key}\"{}:{}", space(random), text(random, depth - 1)))
                .collect();
            format!("{{{}{}}}", fields.join(&format!(",{}", space(random))), space(random))
        }
    }
}

/// The states that a repository decides on equal those of a load, however the payloads were written.
async fn check(backend: impl Backend) -> Vec<String> {
    let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
    let setup = Setup { clock, limits: Limits::default() };
    let store: Arc<dyn EventStore> = backend.open(&setup).await;
    let (notes, id) = (store.aggregate::<Notes>(), "n".to_owned());
    let mut random = fastrand::Rng::with_seed(17);
    let seen = async |notes: &Repository<Notes>| {
        let state = std::sync::Mutex::new(Notes::default());
        let look = |seen: &Notes| {
            *state.lock().unwrap() = seen.clone();
            Ok::<_, Infallible>(Vec::<Noted>::new())
        };
        notes.execute(&id, look).await.unwrap();
        state.into_inner().unwrap()
    };
    for _ in 0..80 {
        let raw = text(&mut random, 3);
        let event = Noted { raw: RawValue::from_string(raw.clone()).unwrap() };
        notes.execute(&id, |_| Ok::<_, Infallible>(event.clone())).await.unwrap_or_else(|e| panic!("{raw}: {e}"));
        let read = notes.clone().without_cache().load(&id).await.unwrap();
        assert_eq!(seen(&notes).await, *read.state, "{raw}");
    }
    let read = notes.without_cache().load(&id).await.unwrap().state.0.clone();
    store.close().await;
    read
}

#[tokio::test]
async fn commands_are_decided_alike_on_cached_and_on_loaded_states_and_on_every_store() {
    let memory = check(InMemory).await;
    assert_eq!(check(OnDisk::new()).await, memory);
    assert_eq!(check(Elsewhere::default()).await, memory);
    #[cfg(feature = "postgres")]
    assert_eq!(check(crate::backends::InPostgres::default()).await, memory);
}

/// An older backup that is restored under an open handle.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_command_decided_on_events_that_a_restore_has_taken_back_is_decided_again() {
    use annals_eventstore::{Append, AppendError, EventStoreExt, ExecuteError, SqliteStore};
    use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
    use sqlx::{AssertSqlSafe, Connection, Row};

    use crate::order::{Order, OrderError, OrderEvent, OrderId};

    const LATE: OrderError = OrderError::WrongAmount { due: 99_00 };

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let id = OrderId::new("o-17").unwrap();
    let orders = [(); 3].map(|()| store.aggregate::<Order>());
    for orders in &orders {
        orders.execute(&id, |order| order.place(12_00)).await.unwrap();
        orders.load(&id).await.unwrap();
    }
    let known = orders[0].load(&id).await.unwrap();

    // The file after restoring the backup of an empty store, by any program.
    let mut foreign = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await.unwrap();
    let guard = "SELECT sql FROM sqlite_schema WHERE name = 'events_are_never_deleted'";
    let guard: String = sqlx::query(guard).fetch_all(&mut foreign).await.unwrap()[0].get(0);
    let restore = format!(
        "BEGIN IMMEDIATE; DROP TRIGGER events_are_never_deleted; DELETE FROM events;
         DELETE FROM sqlite_sequence WHERE name = 'events'; {guard}; COMMIT"
    );
    sqlx::raw_sql(AssertSqlSafe(restore)).execute(&mut foreign).await.unwrap();
    let other = SqliteStore::open(&path).await.unwrap();
    other.aggregate::<Order>().execute(&id, |order| order.place(99_00)).await.unwrap();

    // By one statement, in a batch, and in a unit of work.
    for count in [1, 2, 2_000] {
        let paid = |_| store.new_event(&OrderEvent::Paid { amount: 12_00 }).unwrap();
        let append = Append::to(known.stream.clone(), known.expected(), (0..count).map(paid).collect());
        let mut unit = store.begin().await.unwrap();
        let errors = [unit.append(append.clone()).await.unwrap_err()];
        unit.rollback().await.unwrap();
        for error in errors.into_iter().chain([store.append_many(append).await.unwrap_err()]) {
            let AppendError::WrongExpectedVersion { expected, actual, .. } = &error else { panic!("{error}") };
            assert_eq!((*expected, actual.get()), (known.expected(), 1), "{count}");
        }
    }
    let error = orders[0].execute(&id, |order| order.pay(12_00)).await.unwrap_err();
    assert!(matches!(error, ExecuteError::Rejected(LATE)), "{error:?}");
    let mut unit = store.begin().await.unwrap();
    let error = unit.execute(&orders[1], &id, |order| order.pay(12_00)).await.unwrap_err();
    assert!(matches!(error, ExecuteError::Rejected(LATE)), "{error:?}");
    unit.rollback().await.unwrap();
    assert_eq!(orders[2].load(&id).await.unwrap().state.due, Some(99_00));
    orders[0].execute(&id, |order| order.pay(99_00)).await.unwrap();
    store.close().await;
    other.close().await;
}
