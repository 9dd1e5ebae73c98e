//! Programs on a store that fails on the n-th call, for n = 1, 2, 3 .. until the program makes fewer calls than that:
//! a caller that repeats the calls as the contract allows ends with the same log as on a store without failures.

use annals_eventstore::testing::{Fault, FaultyStore};
use annals_eventstore::{
    Append, AppendError, Appended, ErrorFamily, EventId, EventStore, EventStoreExt, ExpectedVersion, Filter,
    Fingerprint, MemoryStore, NewEvent, Payload, Position, ReadError, RecordedEvent, RequestKey, StreamId,
    StreamVersion, Tenant,
};
use futures::{StreamExt, TryStreamExt};

type Store = FaultyStore<MemoryStore>;

fn stream(id: &str) -> StreamId {
    StreamId::new(Tenant::default(), "order", id).unwrap()
}

fn event(store: &Store, name: &str) -> NewEvent {
    let id = EventId::new(store.ids().next_id()).unwrap();
    NewEvent::raw(id, name, 1, Payload::of(&name).unwrap()).unwrap()
}

/// Appends, and repeats the same append while the contract allows it.
async fn settle(store: &Store, append: Append) -> Appended {
    loop {
        match store.append_many(append.clone()).await {
            Ok(done) => return done,
            Err(error) => may_be_repeated(&error),
        }
    }
}

fn may_be_repeated(error: &AppendError) {
    assert!(matches!(error.family(), ErrorFamily::Transient | ErrorFamily::OutcomeUnknown), "{error:?}");
}

async fn log(store: &MemoryStore) -> Vec<RecordedEvent> {
    store.read_all(Position::START, Filter::all()).try_collect().await.unwrap()
}

/// What of a log must be the same in every run: ids and times are others each time.
fn outline(log: &[RecordedEvent]) -> Vec<(i64, String, i64, String)> {
    log.iter().map(|e| (e.position.get(), e.stream.to_string(), e.version.get(), e.name.to_string())).collect()
}

/// Runs a program without failures, then with a failure of each of its calls, before and after the store has done its
/// work, and compares what is stored at the end.
async fn with_a_failure_of_every_call(program: impl AsyncFn(&Store)) {
    let calm = FaultyStore::new(MemoryStore::new());
    program(&calm).await;
    let expected = outline(&log(calm.inner()).await);
    assert!(calm.calls() >= 5 && !expected.is_empty(), "a program that does nothing");
    for fault in [Fault::Before, Fault::After] {
        for call in 1.. {
            let store = FaultyStore::new(MemoryStore::new());
            store.fail_call(call, fault);
            program(&store).await;
            assert_eq!(outline(&log(store.inner()).await), expected, "call {call} failed, {fault:?}");
            if store.calls() < call {
                assert!(call > calm.calls(), "the program ended before its call {call}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn appending_the_same_events_again_settles_every_failure() {
    with_a_failure_of_every_call(async |store| {
        let mut version = StreamVersion::NONE;
        for n in 0..4 {
            let first = Append::to(stream("a"), version.into(), vec![event(store, "one"), event(store, "two")]).and(
                stream(&format!("b{n}")),
                ExpectedVersion::NoStream,
                vec![event(store, "three")],
            );
            let done = settle(store, first).await;
            assert_eq!(done.version().get(), version.get() + 2);
            version = done.version();
            settle(store, Append::to(stream("c"), ExpectedVersion::Any, vec![event(store, "four")])).await;
        }
    })
    .await;
}

#[tokio::test]
async fn asking_again_under_the_same_key_settles_every_failure_without_the_same_events() {
    with_a_failure_of_every_call(async |store| {
        for n in 0..5 {
            let key = RequestKey::new(format!("r{n}"), Fingerprint::of_bytes(b"body")).unwrap();
            let done = loop {
                // The client knows nothing but its key, so each try makes new events.
                let append = Append::to(stream("a"), ExpectedVersion::Any, vec![event(store, "done")]);
                match store.append_many(append.with_request(key.clone())).await {
                    Ok(done) => break done,
                    Err(error) => may_be_repeated(&error),
                }
            };
            assert_eq!(done.version().get(), n + 1);
            let found = loop {
                match store.find_request(&Tenant::default(), &key).await {
                    Ok(found) => break found,
                    Err(error) => may_be_repeated(&error),
                }
            };
            assert_eq!(found.map(|found| found.position), Some(done.position));
        }
    })
    .await;
}

#[tokio::test]
async fn deciding_again_on_what_is_stored_settles_every_failure() {
    with_a_failure_of_every_call(async |store| {
        while {
            // Load, decide, append under the version that was loaded; on any failure begin again with the load.
            let loaded: Result<Vec<_>, ReadError> = store.load(&stream("a")).try_collect().await;
            match loaded {
                Ok(events) if events.len() >= 6 => false,
                Ok(events) => {
                    let version = events.last().map_or(StreamVersion::NONE, |e| e.version);
                    let name = format!("step-{}", version.get());
                    let append = Append::to(stream("a"), version.into(), vec![event(store, &name)]);
                    if let Err(error) = store.append_many(append).await {
                        may_be_repeated(&error);
                    }
                    true
                }
                Err(error) => {
                    assert!(error.is_transient(), "{error:?}");
                    true
                }
            }
        } {}
    })
    .await;
}

#[tokio::test]
async fn a_failure_before_stores_nothing_and_a_failure_after_stores_all() {
    for (fault, stored) in [(Fault::Before, 0), (Fault::After, 3)] {
        let store = FaultyStore::new(MemoryStore::new());
        store.fail_call(1, fault);
        let events = vec![event(&store, "one"), event(&store, "two"), event(&store, "three")];
        let error = store.append(&stream("a"), ExpectedVersion::NoStream, events).await.unwrap_err();
        let family = if stored == 0 { ErrorFamily::Transient } else { ErrorFamily::OutcomeUnknown };
        assert_eq!((error.family(), log(store.inner()).await.len()), (family, stored));
    }
}

#[tokio::test]
async fn an_invalid_append_is_refused_even_if_the_answer_is_lost() {
    let store = FaultyStore::new(MemoryStore::new());
    store.fail_call(1, Fault::After);
    let refused = store.append(&stream("a"), ExpectedVersion::Any, Vec::new()).await;
    assert!(matches!(refused, Err(AppendError::Invalid(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_misses_and_repeats_nothing_whichever_read_fails() {
    for fault in [Fault::Before, Fault::After] {
        for call in 1.. {
            let store = FaultyStore::new(MemoryStore::new());
            let writer = store.inner().clone();
            let fill = async |count: usize| {
                let events = (0..count).map(|_| event(&store, "n")).collect();
                writer.append(&stream("a"), ExpectedVersion::Any, events).await.unwrap();
            };
            fill(300).await;
            store.fail_call(call, fault);
            let mut subscription = store.subscribe(Position::START, Filter::all());
            for n in 1..=400 {
                if n > 300 && n % 10 == 1 {
                    fill(10).await;
                }
                assert_eq!(subscription.next().await.unwrap().unwrap().position.get(), n, "call {call} failed");
            }
            if store.calls() < call {
                assert!(call > 10, "the subscription made only {} calls", store.calls());
                break;
            }
        }
    }
}
