//! Concurrent calls.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};

use super::case::{Case, exact, ids, increases, positions, request, seed, versions};
use crate::append::{Append, Appended};
use crate::error::AppendError;
use crate::filter::Filter;
use crate::position::Position;
use crate::read::EventStoreExt;
use crate::stream::{ExpectedVersion, StreamVersion};

/// Runs `count` tasks at once and returns their results.
async fn at_once<T, F>(count: usize, task: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = (0..count).map(|n| tokio::spawn(task(n))).collect();
    let mut made = Vec::with_capacity(count);
    for task in tasks {
        made.push(task.await.unwrap());
    }
    made
}

pub(super) async fn one_of_many_begins_a_stream(case: Case) {
    let answers = at_once(20, |_| {
        let case = case.clone();
        async move { case.store.append(&case.stream("a"), ExpectedVersion::NoStream, case.events(1)).await }
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for error in answers.into_iter().filter_map(Result::err) {
        super::case::is_conflict(&error, &case.stream("a"), ExpectedVersion::NoStream, 1);
    }
    assert_eq!(case.log().await.len(), 1);
}

pub(super) async fn each_version_of_a_raced_stream_has_exactly_one_winner(case: Case) {
    let won = at_once(8, |_| {
        let case = case.clone();
        async move {
            let (mut at, mut won) = (0, Vec::new());
            while at < 10 {
                match case.store.append(&case.stream("a"), exact(at), case.events(1)).await {
                    Ok(done) => {
                        assert_eq!(done.version().get(), at + 1);
                        at += 1;
                        won.push(at);
                    }
                    Err(AppendError::WrongExpectedVersion { actual, .. }) => {
                        assert!(actual.get() > at, "refused at {at}, but the stream is at {actual}");
                        at = actual.get();
                    }
                    Err(other) => panic!("neither taken nor a conflict: {other:?}"),
                }
            }
            won
        }
    })
    .await;
    let mut all: Vec<_> = won.into_iter().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (1..=10).collect::<Vec<_>>());
    assert_eq!(versions(&case.load(&case.stream("a")).await), all);
}

pub(super) async fn each_append_at_any_version_gets_its_own_version(case: Case) {
    let done = at_once(30, |n| {
        let case = case.clone();
        async move { case.append("a", ExpectedVersion::Any, 1 + n % 3).await }
    })
    .await;
    let stored = case.load(&case.stream("a")).await;
    assert_eq!(versions(&stored), (1..=60).collect::<Vec<_>>());
    for answer in done {
        let end = usize::try_from(answer.version().get()).unwrap();
        let count = answer.streams[0].positions.len();
        assert_eq!(positions(&stored)[end - count..end], answer.streams[0].positions);
    }
}

pub(super) async fn the_same_events_from_many_are_one_append(case: Case) {
    let append = Append::to(case.stream("a"), ExpectedVersion::NoStream, case.events(3));
    let answers = at_once(20, |_| {
        let (case, append) = (case.clone(), append.clone());
        async move { case.store.append_many(append).await.unwrap() }
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1);
    let first = Appended { repeated: false, ..answers[0].clone() };
    assert!(answers.iter().all(|answer| Appended { repeated: false, ..answer.clone() } == first));
    assert_eq!(versions(&case.load(&case.stream("a")).await), [1, 2, 3]);
}

pub(super) async fn the_same_request_from_many_has_one_effect(case: Case) {
    let key = request("r", "body");
    let answers = at_once(20, |n| {
        let (case, key) = (case.clone(), key.clone());
        async move {
            let stream = case.stream(&format!("{}", n % 3));
            let append = Append::to(stream, ExpectedVersion::Any, case.events(2)).with_request(key);
            case.store.append_many(append).await.unwrap()
        }
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1);
    let first = Appended { repeated: false, ..answers[0].clone() };
    assert!(answers.iter().all(|answer| Appended { repeated: false, ..answer.clone() } == first));
    assert_eq!(case.log().await.len(), 2);
}

/// A batch that carries both, or a transaction that looked before the other committed, would store both.
pub(super) async fn a_key_that_waits_twice_has_one_effect(case: Case) {
    for round in 0..10 {
        let key = request(&format!("r{round}"), "body");
        let keyed =
            |id: &str| Append::to(case.stream(id), ExpectedVersion::Any, case.events(1)).with_request(key.clone());
        // The first one is under way while the others wait together.
        let first = Append::to(case.stream("first"), ExpectedVersion::Any, case.events(1));
        let appends = [first, keyed("a"), keyed("a"), keyed("b")];
        let answers = join_all(appends.map(|append| case.store.append_many(append))).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers[1..].iter().filter(|answer| !answer.repeated).count(), 1, "round {round}");
        assert!(answers[1..].iter().all(|answer| answer.streams == answers[1].streams), "round {round}");
        assert_eq!(case.log().await.len(), 2 * (round + 1));
    }
}

pub(super) async fn a_key_of_appends_to_several_streams_by_two_handles_has_one_effect(case: Case) {
    let Some(other) = case.second_handle().await else { return };
    for round in 0..10 {
        let key = request(&format!("r{round}"), "body");
        let answers = at_once(4, |n| {
            let (case, key) = (if n % 2 == 0 { case.clone() } else { other.clone() }, key.clone());
            async move {
                // Each has its own stream, so that only the key makes them conflict.
                let part = |s: &str| (case.stream(&format!("{n}{s}")), ExpectedVersion::Any, case.events(1));
                let ((one, any, events), (two, _, more)) = (part("a"), part("b"));
                let append = Append::to(one, any, events).and(two, any, more).with_request(key);
                case.store.append_many(append).await.unwrap()
            }
        })
        .await;
        assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1, "round {round}");
        assert!(answers.iter().all(|answer| answer.streams == answers[0].streams), "round {round}");
        assert_eq!(case.log().await.len(), 2 * (round + 1));
    }
    other.store.close().await;
}

pub(super) async fn of_two_requests_under_one_key_one_is_refused(case: Case) {
    let answers = at_once(10, |n| {
        let case = case.clone();
        async move {
            let key = request("r", ["body", "another body"][n % 2]);
            let append = Append::to(case.stream("a"), ExpectedVersion::Any, case.events(1)).with_request(key);
            case.store.append_many(append).await
        }
    })
    .await;
    let taken = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(taken, 5, "the first request and its repeats");
    let refused = answers.iter().filter(|a| matches!(a, Err(AppendError::RequestKeyReused { .. }))).count();
    assert_eq!(refused, 5);
    assert_eq!(case.log().await.len(), 1);
}

pub(super) async fn appends_to_the_same_streams_in_any_order_all_end(case: Case) {
    let mut random = fastrand::Rng::with_seed(seed());
    let orders: Vec<Vec<usize>> = (0..20)
        .map(|_| {
            let mut order = vec![0, 1, 2, 3];
            random.shuffle(&mut order);
            order
        })
        .collect();
    at_once(20, |n| {
        let (case, order) = (case.clone(), orders[n].clone());
        async move {
            let part = |s: usize| (case.stream(&s.to_string()), ExpectedVersion::Any, case.events(2));
            let (stream, expected, events) = part(order[0]);
            let mut append = Append::to(stream, expected, events);
            for &s in &order[1..] {
                let (stream, expected, events) = part(s);
                append = append.and(stream, expected, events);
            }
            case.store.append_many(append).await.unwrap();
        }
    })
    .await;
    for s in 0..4 {
        let stored = case.load(&case.stream(&s.to_string())).await;
        assert_eq!(versions(&stored), (1..=40).collect::<Vec<_>>());
        increases(&positions(&stored));
        // Contiguous in their stream: no append is between the two events of another.
        assert!(stored.chunks(2).all(|pair| pair[0].append_id == pair[1].append_id));
    }
}

pub(super) async fn a_stream_is_never_begun_by_half_of_an_append(case: Case) {
    let answers = at_once(10, |n| {
        let case = case.clone();
        async move {
            let (one, two) = if n % 2 == 0 { ("a", "b") } else { ("b", "a") };
            let append = Append::to(case.stream(one), ExpectedVersion::NoStream, case.events(1)).and(
                case.stream(two),
                ExpectedVersion::NoStream,
                case.events(1),
            );
            case.store.append_many(append).await
        }
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    let log = case.log().await;
    assert_eq!(log.len(), 2);
    assert_eq!(log[0].append_id, log[1].append_id);
}

pub(super) async fn a_load_during_appends_is_a_prefix(case: Case) {
    let writing = Arc::new(AtomicBool::new(true));
    let reader = {
        let (case, writing) = (case.clone(), writing.clone());
        tokio::spawn(async move {
            let mut length = 0;
            while writing.load(Ordering::Relaxed) {
                let stored = case.load(&case.stream("a")).await;
                assert_eq!(versions(&stored), (1..=i64::try_from(stored.len()).unwrap()).collect::<Vec<_>>());
                assert!(stored.len() >= length, "the stream became shorter");
                assert_eq!(stored.len() % 3, 0, "a part of an append");
                length = stored.len();
                tokio::task::yield_now().await;
            }
        })
    };
    at_once(4, |_| {
        let case = case.clone();
        async move {
            for _ in 0..10 {
                case.append("a", ExpectedVersion::Any, 3).await;
            }
        }
    })
    .await;
    writing.store(false, Ordering::Relaxed);
    reader.await.unwrap();
}

pub(super) async fn racing_writers_never_publish_before_a_reader(case: Case) {
    let reader = {
        let case = case.clone();
        tokio::spawn(async move {
            let (mut after, mut seen) = (Position::START, Vec::new());
            while seen.len() < 120 {
                let page = case.store.read_page(after.into(), &Filter::all(), 7).await.unwrap();
                assert!(page.events.iter().all(|event| event.position > after));
                after = page.checkpoint.map_or(after, |checkpoint| checkpoint.position);
                seen.extend(page.events);
                tokio::task::yield_now().await;
            }
            seen
        })
    };
    at_once(8, |n| {
        let case = case.clone();
        async move {
            for round in 0..10 {
                case.append(&format!("s{n}"), ExpectedVersion::Any, 1 + round % 2).await;
            }
        }
    })
    .await;
    assert_eq!(reader.await.unwrap(), case.log().await);
}

pub(super) async fn a_subscriber_racing_eight_writers_sees_every_event_once_in_order(case: Case) {
    let subscribers: Vec<_> = (0..3)
        .map(|_| {
            let subscription = case.store.subscribe(Position::START, Filter::all());
            tokio::spawn(subscription.take(120).try_collect::<Vec<_>>())
        })
        .collect();
    at_once(8, |n| {
        let case = case.clone();
        async move {
            for round in 0..10 {
                case.append(&format!("s{}", n % 4), ExpectedVersion::Any, 1 + round % 2).await;
            }
        }
    })
    .await;
    let log = case.log().await;
    assert_eq!(log.len(), 120);
    increases(&positions(&log));
    for subscriber in subscribers {
        assert_eq!(ids(&subscriber.await.unwrap().unwrap()), ids(&log));
    }
}

pub(super) async fn a_filtered_subscriber_among_writers_misses_nothing(case: Case) {
    let subscription = case.store.subscribe(Position::START, Filter::all().event_name("matching").unwrap());
    let reading = tokio::spawn(subscription.take(40).try_collect::<Vec<_>>());
    at_once(8, |n| {
        let case = case.clone();
        async move {
            for _ in 0..5 {
                case.append_named(&case.stream(&n.to_string()), "matching").await;
                case.append_named(&case.stream(&n.to_string()), "other").await;
            }
        }
    })
    .await;
    let expected: Vec<_> = case.log().await.into_iter().filter(|event| &*event.name == "matching").collect();
    assert_eq!(reading.await.unwrap().unwrap(), expected);
}

pub(super) async fn an_append_after_an_answered_one_has_a_later_position(case: Case) {
    let answered = Arc::new(std::sync::Mutex::new(Position::START));
    at_once(8, |n| {
        let (case, answered) = (case.clone(), answered.clone());
        async move {
            for _ in 0..10 {
                let before = *answered.lock().unwrap();
                let done = case.append(&format!("s{n}"), ExpectedVersion::Any, 1).await;
                assert!(done.position > before, "{} was appended after {before} was answered", done.position);
                let mut latest = answered.lock().unwrap();
                *latest = done.position.max(*latest);
            }
        }
    })
    .await;
}

pub(super) async fn an_answered_writer_reads_its_own_write(case: Case) {
    at_once(8, |n| {
        let case = case.clone();
        async move {
            let stream = case.stream(&format!("s{n}"));
            for version in 1..=8 {
                let done = case.store.append(&stream, exact(version - 1), case.events(1)).await.unwrap();
                let last = StreamVersion::new(version - 1).unwrap();
                let page = case.store.load_page(&stream, last, 10).await.unwrap();
                assert_eq!(positions(&page.events), [done.position]);
                assert!(case.store.head().await.unwrap().position >= done.position);
            }
        }
    })
    .await;
}

pub(super) async fn aborted_writers_leave_whole_appends_and_a_working_store(case: Case) {
    let tasks: Vec<_> = (0..30)
        .map(|n| {
            let case = case.clone();
            tokio::spawn(async move {
                for _ in 0..5 {
                    case.append(&format!("s{}", n % 5), ExpectedVersion::Any, 3).await;
                }
            })
        })
        .collect();
    for (n, task) in tasks.iter().enumerate() {
        if n % 2 == 0 {
            task.abort();
        }
        tokio::task::yield_now().await;
    }
    for (n, task) in tasks.into_iter().enumerate() {
        assert!(task.await.is_ok() || n % 2 == 0);
    }
    case.append("s0", ExpectedVersion::Any, 3).await;
    let log = case.log().await;
    assert_eq!(log.iter().map(|event| event.event_id).collect::<HashSet<_>>().len(), log.len());
    for s in 0..5 {
        let stored = case.load(&case.stream(&format!("s{s}"))).await;
        assert_eq!(versions(&stored), (1..=i64::try_from(stored.len()).unwrap()).collect::<Vec<_>>());
        assert!(stored.chunks(3).all(|part| part.len() == 3 && part.iter().all(|e| e.append_id == part[0].append_id)));
    }
}
