//! Appends that are stored together: each gets the answer that it would have got alone.

use std::collections::{HashMap, HashSet};

use annals_eventstore::{
    Append, AppendError, Appended, EventId, EventStore, EventStoreExt, ExpectedVersion, Filter, Fingerprint, NewEvent,
    Payload, Position, PostgresOptions, PostgresStore, RecordedEvent, RequestKey, StreamVersion,
};
use futures::TryStreamExt;
use futures::future::join_all;
use sqlx::Row;

use super::{Fixture, run, stream};

const STREAMS: usize = 4;
const AT_ONCE: usize = 60;
const ROUNDS: usize = 12;

fn seed() -> u64 {
    let seed = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("ANNALS_SEED={seed}");
    seed
}

fn event(store: &PostgresStore, n: u64) -> NewEvent {
    let id = EventId::new(store.ids().next_id()).unwrap();
    NewEvent::raw(id, "placed", 1, Payload::from_json(&format!("{{\"n\":{n}}}")).unwrap()).unwrap()
}

/// What a test knows of an append it has sent.
struct Sent {
    append: Append,
    stream: usize,
    expected: Option<i64>,
    ids: Vec<EventId>,
    answers: Vec<Result<Appended, AppendError>>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_groups_of_two_handles_answer_each_append_as_if_it_were_alone() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let fixture = Fixture::new().await;
    let other = PostgresOptions::new(fixture.database.url()).writers(1).open().await.unwrap();
    let mut heads = [0_i64; STREAMS];
    let mut all: Vec<Sent> = Vec::new();
    for round in 0..ROUNDS {
        let mut sent: Vec<Sent> = Vec::new();
        for n in 0..AT_ONCE {
            let to = random.usize(..STREAMS);
            let expected = match random.u8(..4) {
                0 => None,
                // What this test last saw, or a little later or earlier: some of them are right by then.
                _ => Some((heads[to] + random.i64(-1..6)).max(0)),
            };
            let events: Vec<_> =
                (0..random.usize(1..4)).map(|_| event(&fixture.store, (round * AT_ONCE + n) as u64)).collect();
            let ids = events.iter().map(|event| event.event_id).collect();
            let version = expected.map_or(ExpectedVersion::Any, |v| StreamVersion::new(v).unwrap().into());
            let mut append = Append::to(stream(&format!("s{to}")), version, events);
            if random.u8(..5) == 0 {
                let key = RequestKey::new(format!("{round}-{n}"), Fingerprint::of(&n).unwrap()).unwrap();
                append = append.with_request(key);
            }
            sent.push(Sent { append, stream: to, expected, ids, answers: Vec::new() });
        }
        // Every third is sent twice, by either handle.
        let calls: Vec<_> = sent
            .iter()
            .enumerate()
            .flat_map(|(place, sent)| {
                let twice = if place % 3 == 0 { 2 } else { 1 };
                (0..twice).map(move |_| (place, sent.append.clone()))
            })
            .map(|(place, append)| {
                let store = if random.bool() { fixture.store.clone() } else { other.clone() };
                async move { (place, tokio::spawn(async move { store.append_many(append).await }).await.unwrap()) }
            })
            .collect();
        for (place, answer) in join_all(calls).await {
            sent[place].answers.push(answer);
        }
        for (n, head) in heads.iter_mut().enumerate() {
            let page = fixture.store.load_page(&stream(&format!("s{n}")), StreamVersion::NONE, 10_000).await.unwrap();
            *head = page.events.last().map_or(0, |event| event.version.get());
        }
        all.extend(sent);
    }
    let log = fixture.store.read_all(Position::START, Filter::all()).try_collect::<Vec<_>>().await.unwrap();
    let by_id: HashMap<EventId, _> = log.iter().map(|event| (event.event_id, event)).collect();
    assert_eq!(by_id.len(), log.len(), "ANNALS_SEED={seed}");
    let mut stored: HashSet<EventId> = HashSet::new();
    let mut refused = 0;
    for sent in &all {
        let came = sent.answers.iter().any(Result::is_ok);
        let mut first = 0;
        for answer in &sent.answers {
            match answer {
                Ok(appended) => {
                    first += usize::from(!appended.repeated);
                    let found: Vec<_> = sent.ids.iter().map(|id| by_id[id]).collect();
                    let positions: Vec<_> = found.iter().map(|event| event.position).collect();
                    assert_eq!(appended.streams[0].positions, positions, "ANNALS_SEED={seed}");
                    assert_eq!(appended.version(), found.last().unwrap().version, "ANNALS_SEED={seed}");
                    let before = found[0].version.get() - 1;
                    assert!(sent.expected.is_none_or(|expected| expected == before), "ANNALS_SEED={seed}");
                    let versions: Vec<_> = found.iter().map(|event| event.version.get() - before).collect();
                    assert_eq!(versions, (1..=found.len() as i64).collect::<Vec<_>>(), "ANNALS_SEED={seed}");
                    assert!(found.iter().all(|event| event.stream == stream(&format!("s{}", sent.stream))));
                    stored.extend(&sent.ids);
                }
                Err(AppendError::WrongExpectedVersion { expected, actual, .. }) => {
                    refused += 1;
                    // The same append sent twice is stored or refused, but never refused because of itself.
                    assert!(!expected.holds(*actual, None), "ANNALS_SEED={seed}");
                    assert!(sent.ids.iter().all(|id| !by_id.contains_key(id)) || came, "ANNALS_SEED={seed}");
                }
                Err(error) => panic!("{error:?} (ANNALS_SEED={seed})"),
            }
        }
        assert!(first <= 1, "stored twice (ANNALS_SEED={seed})");
        assert!(!came || first == 1, "it was never stored first (ANNALS_SEED={seed})");
    }
    assert_eq!(stored.len(), log.len(), "only what was acknowledged is there (ANNALS_SEED={seed})");
    assert!(refused > AT_ONCE, "{refused} conflicts are too few to show anything");
    other.close().await;
}

#[tokio::test]
async fn one_append_that_the_database_refuses_is_refused_alone() {
    let fixture = Fixture::new().await;
    let constraint = "ALTER TABLE annals.events ADD CONSTRAINT no_thirteen CHECK (event_data ->> 'n' <> '13')";
    run(&mut fixture.foreign().await, constraint).await.unwrap();
    let appends = (0..40_u64).map(|n| {
        let (store, event) = (fixture.store.clone(), event(&fixture.store, n));
        async move { store.append(&stream(&format!("s{n}")), ExpectedVersion::NoStream, vec![event]).await }
    });
    for (n, answer) in join_all(appends).await.into_iter().enumerate() {
        match answer {
            Ok(appended) => assert!(n != 13 && appended.version().get() == 1),
            Err(error) => assert!(n == 13 && matches!(error, AppendError::Broken { .. }), "{n}: {error}"),
        }
    }
    let log = fixture.store.read_all(Position::START, Filter::all()).try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(log.len(), 39);
}

#[tokio::test]
async fn each_request_of_a_group_is_stored_with_its_own_answer() {
    let fixture = Fixture::new().await;
    let request = |n: u64| RequestKey::new(format!("k{n}"), Fingerprint::of(&n).unwrap()).unwrap();
    let store = &fixture.store;
    let appends = |expected: ExpectedVersion| {
        (0..30_u64).map(move |n| {
            let events = (0..=n % 3).map(|_| event(store, n)).collect();
            Append::to(stream(&format!("s{}", n % 7)), expected, events).with_request(request(n))
        })
    };
    let send = |all: Vec<Append>| {
        let store = fixture.store.clone();
        join_all(all.into_iter().map(move |append| {
            let store = store.clone();
            async move { store.append_many(append).await }
        }))
    };
    let first: Vec<_> = send(appends(ExpectedVersion::Any).collect()).await.into_iter().map(Result::unwrap).collect();
    assert!(first.iter().all(|answer| !answer.repeated));
    // Other events with the same keys, which expect what cannot be any more.
    let again = send(appends(ExpectedVersion::NoStream).collect()).await;
    for (first, again) in first.iter().zip(again) {
        let again = again.unwrap();
        assert!(again.repeated);
        assert_eq!((&again.streams, again.recorded_at), (&first.streams, first.recorded_at));
    }
    let log = fixture.store.read_all(Position::START, Filter::all()).try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(log.len(), first.iter().map(|answer| answer.streams[0].positions.len()).sum::<usize>());
}

/// Appends to several streams of two handles cross each other and the groups of both: each has the positions of its events
/// in the order in which it names them, and no two wait for each other in a ring.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_to_several_streams_keep_their_order_and_meet_no_deadlock() {
    let Crossed { seed, answers, log, deadlocks } = cross("", 300).await;
    let by_id: HashMap<EventId, Position> = log.iter().map(|event| (event.event_id, event.position)).collect();
    let mut stored = 0;
    for (appended, ids) in answers {
        let appended = appended.unwrap_or_else(|error| panic!("{error:?} (ANNALS_SEED={seed})"));
        let answered: Vec<_> = appended.streams.iter().flat_map(|s| s.positions.iter().copied()).collect();
        assert_eq!(answered, ids.iter().map(|id| by_id[id]).collect::<Vec<_>>(), "ANNALS_SEED={seed}");
        assert!(answered.is_sorted(), "{answered:?} (ANNALS_SEED={seed})");
        stored += ids.len();
    }
    assert_eq!(stored, log.len(), "ANNALS_SEED={seed}");
    let mut versions = HashMap::new();
    for event in &log {
        let version = versions.entry(event.stream.clone()).or_insert(0);
        *version += 1;
        assert_eq!(event.version.get(), *version, "ANNALS_SEED={seed}");
    }
    assert_eq!(deadlocks, 0, "ANNALS_SEED={seed}");
}

/// The control: where appends take no turns, the same load does meet deadlocks, and they are counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_to_several_streams_without_turn_locks_meet_deadlocks() {
    let without_turns = "DO $$ DECLARE
                             whole text := pg_get_functiondef('annals.append'::regproc);
                             without text := replace(whole, 'NOT pg_try_advisory_xact_lock(', '0 = least(');
                         BEGIN
                             ASSERT without <> whole;
                             EXECUTE without;
                         END $$";
    let Crossed { deadlocks, .. } = cross(without_turns, 100).await;
    assert!(deadlocks > 0, "the load is too light to show anything");
}

/// Groups write their streams in one order, so that those of two handles do not deadlock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_of_two_handles_do_not_wait_for_each_other_in_a_ring() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let fixture = Fixture::new().await;
    // So soon that the server finds a ring before a group has given way.
    let stores = two_handles(&fixture, "2ms").await;
    for n in 0..80 {
        let mut calls = Vec::new();
        for store in &stores {
            let mut streams: Vec<usize> = (0..16).collect();
            random.shuffle(&mut streams);
            for to in streams {
                let (store, events) = (store.clone(), (0..3).map(|_| event(store, n)).collect());
                let append =
                    async move { store.append(&stream(&format!("s{to}")), ExpectedVersion::Any, events).await };
                calls.push(tokio::spawn(append));
            }
        }
        for answer in join_all(calls).await {
            answer.unwrap().unwrap();
        }
    }
    assert_eq!(deadlocks(&fixture, &stores).await, 0, "ANNALS_SEED={seed}");
}

/// The results of appends to the same streams in different orders.
struct Crossed {
    seed: u64,
    answers: Vec<(Result<Appended, AppendError>, Vec<EventId>)>,
    log: Vec<RecordedEvent>,
    deadlocks: i64,
}

/// So many appends by two handles, each third of which is to several streams, after `prepare` was run in the database.
async fn cross(prepare: &str, appends: u64) -> Crossed {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let fixture = Fixture::new().await;
    run(&mut fixture.foreign().await, prepare).await.unwrap();
    // Later than groups time out on a lock.
    let stores = two_handles(&fixture, "40ms").await;
    let any = ExpectedVersion::Any;
    let mut calls = Vec::new();
    for n in 0..appends {
        let mut streams: Vec<usize> = (0..12).collect();
        random.shuffle(&mut streams);
        streams.truncate(if n % 3 == 0 { random.usize(2..=12) } else { 1 });
        let parts = streams.iter().map(|to| {
            let events: Vec<_> = (0..random.usize(1..4)).map(|_| event(&fixture.store, n)).collect();
            (stream(&format!("s{to}")), events)
        });
        let mut parts: Vec<_> = parts.collect();
        let ids: Vec<_> = parts.iter().flat_map(|(_, events)| events.iter().map(|event| event.event_id)).collect();
        let (first, events) = parts.remove(0);
        let append = parts.into_iter().fold(Append::to(first, any, events), |all, (to, e)| all.and(to, any, e));
        let store = stores[usize::from(n % 2 == 0)].clone();
        calls.push(tokio::spawn(async move { (store.append_many(append).await, ids) }));
    }
    let answers = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    let log = fixture.store.read_all(Position::START, Filter::all()).try_collect().await.unwrap();
    let deadlocks = deadlocks(&fixture, &stores).await;
    Crossed { seed, answers, log, deadlocks }
}

/// Handles for whose connections the server looks for a ring once they have waited for so long.
async fn two_handles(fixture: &Fixture, deadlock_timeout: &str) -> Vec<PostgresStore> {
    let name = fixture.database.name();
    let look = format!("ALTER DATABASE {name} SET deadlock_timeout = '{deadlock_timeout}'");
    run(&mut fixture.foreign().await, &look).await.unwrap();
    let opened = [(), ()].map(|()| PostgresOptions::new(fixture.database.url()).open());
    join_all(opened).await.into_iter().map(Result::unwrap).collect()
}

/// The number of deadlocks. Closes the handles, as a session reports its count at the latest when it ends.
async fn deadlocks(fixture: &Fixture, stores: &[PostgresStore]) -> i64 {
    join_all(stores.iter().chain([&fixture.store]).map(|store| store.close())).await;
    let mut foreign = fixture.foreign().await;
    let alone = "DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                     AND pid <> pg_backend_pid() AND backend_type = 'client backend') LOOP
                     PERFORM pg_sleep(0.005), pg_stat_clear_snapshot(); END LOOP; END $$";
    run(&mut foreign, alone).await.unwrap();
    let deadlocks = sqlx::query("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()");
    deadlocks.fetch_one(&mut foreign).await.unwrap().get(0)
}
