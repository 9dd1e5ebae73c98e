//! Request keys: the same request twice has one effect and one answer.

use std::time::Duration;

use futures::future::join_all;

use super::case::{Case, exact, request, tenant, version};
use crate::append::{Append, Appended};
use crate::error::AppendError;
use crate::position::Position;
use crate::request::RequestKey;
use crate::stream::{ExpectedVersion, StreamId, Tenant};

fn keyed(case: &Case, id: &str, expected: ExpectedVersion, key: &RequestKey) -> Append {
    Append::to(case.stream(id), expected, case.events(1)).with_request(key.clone())
}

async fn find(case: &Case, key: &RequestKey) -> Option<Appended> {
    case.store.find_request(&Tenant::default(), key).await.unwrap()
}

fn is_reused(error: &AppendError, of: &Tenant, used: &str) {
    match error {
        AppendError::RequestKeyReused { tenant, key } => assert_eq!((tenant, key.as_str()), (of, used)),
        other => panic!("expected a reused request key: {other:?}"),
    }
}

pub(super) async fn the_same_request_again_has_one_effect_and_the_first_answer(case: Case) {
    let key = request("r", "body");
    let first = case.store.append_many(keyed(&case, "a", ExpectedVersion::Any, &key)).await.unwrap();
    assert!(!first.repeated);
    let before = case.everything().await;
    // Its events have new ids, so only the key shows the duplicate.
    let again = case.store.append_many(keyed(&case, "a", ExpectedVersion::Any, &key)).await.unwrap();
    assert_eq!(again, Appended { repeated: true, ..first });
    assert_eq!(case.everything().await, before);
}

pub(super) async fn the_first_answer_is_whole(case: Case) {
    let key = request("r", "body");
    case.append("b", ExpectedVersion::Any, 3).await;
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, case.events(2))
        .and(case.stream("b"), exact(3), case.events(3))
        .with_request(key.clone());
    let first = case.store.append_many(append).await.unwrap();
    case.append("a", ExpectedVersion::Any, 4).await;
    let found = find(&case, &key).await.unwrap();
    assert_eq!(found, Appended { repeated: true, ..first });
    assert_eq!(
        found.streams.iter().map(|s| (s.version.get(), s.positions.len())).collect::<Vec<_>>(),
        [(2, 2), (6, 3)]
    );
}

pub(super) async fn a_request_is_found_only_after_its_append(case: Case) {
    let key = request("r", "body");
    assert_eq!(find(&case, &key).await, None);
    let first = case.store.append_many(keyed(&case, "a", ExpectedVersion::Any, &key)).await.unwrap();
    assert_eq!(find(&case, &key).await, Some(Appended { repeated: true, ..first }));
    assert_eq!(find(&case, &request("other", "body")).await, None);
}

pub(super) async fn another_request_under_the_key_is_refused(case: Case) {
    let key = request("r", "body");
    case.store.append_many(keyed(&case, "a", ExpectedVersion::Any, &key)).await.unwrap();
    let other = request("r", "another body");
    let error = case.refused_without_trace(keyed(&case, "a", ExpectedVersion::Any, &other)).await;
    is_reused(&error, &Tenant::default(), "r");
    let error = case.store.find_request(&Tenant::default(), &other).await.unwrap_err();
    is_reused(&error, &Tenant::default(), "r");
    assert!(find(&case, &key).await.is_some());
}

pub(super) async fn the_key_is_looked_up_before_the_versions(case: Case) {
    let key = request("r", "body");
    let first = case.store.append_many(keyed(&case, "a", ExpectedVersion::NoStream, &key)).await.unwrap();
    let again = case.store.append_many(keyed(&case, "a", ExpectedVersion::NoStream, &key)).await.unwrap();
    assert_eq!(again, Appended { repeated: true, ..first });
    let other = request("r", "another body");
    let error = case.refused_without_trace(keyed(&case, "a", ExpectedVersion::NoStream, &other)).await;
    is_reused(&error, &Tenant::default(), "r");
}

pub(super) async fn the_key_is_looked_up_before_the_event_ids(case: Case) {
    let key = request("r", "body");
    let first = case.store.append_many(keyed(&case, "a", ExpectedVersion::Any, &key)).await.unwrap();
    let taken = case.event();
    case.store.append(&case.stream("b"), ExpectedVersion::Any, vec![taken.clone()]).await.unwrap();
    let append = Append::to(case.stream("a"), ExpectedVersion::Any, vec![taken]).with_request(key);
    assert_eq!(case.store.append_many(append).await.unwrap(), Appended { repeated: true, ..first });
}

pub(super) async fn a_request_without_events_is_remembered_too(case: Case) {
    let key = request("r", "body");
    let nothing = Append::request_only(Tenant::default(), key.clone());
    let first = case.store.append_many(nothing.clone()).await.unwrap();
    assert_eq!((first.streams.len(), first.position, first.repeated), (0, Position::START, false));
    assert_eq!(first.version(), version(0));
    let again = case.store.append_many(nothing).await.unwrap();
    assert_eq!(again, Appended { repeated: true, ..first.clone() });
    assert_eq!(find(&case, &key).await, Some(Appended { repeated: true, ..first }));
    assert_eq!(case.log().await, []);
}

pub(super) async fn a_request_without_events_reserves_its_key(case: Case) {
    case.store.append_many(Append::request_only(Tenant::default(), request("r", "body"))).await.unwrap();
    let other = keyed(&case, "a", ExpectedVersion::Any, &request("r", "another body"));
    is_reused(&case.refused_without_trace(other).await, &Tenant::default(), "r");
}

pub(super) async fn a_refused_append_leaves_its_key_free(case: Case) {
    let key = request("r", "body");
    case.append("a", ExpectedVersion::Any, 1).await;
    let conflict = keyed(&case, "a", ExpectedVersion::NoStream, &key);
    case.refused_without_trace(conflict).await;
    let empty = Append::to(case.stream("a"), ExpectedVersion::Any, Vec::new()).with_request(key.clone());
    case.invalid_without_trace(empty, "events").await;
    let late = keyed(&case, "a", ExpectedVersion::Any, &key).with_deadline(tokio::time::Instant::now());
    case.refused_without_trace(late).await;
    assert_eq!(find(&case, &key).await, None);
    // Another request may use it, then.
    case.store.append_many(keyed(&case, "a", exact(1), &request("r", "another body"))).await.unwrap();
}

pub(super) async fn each_tenant_has_its_own_keys(case: Case) {
    let (ours, theirs) = (request("r", "body"), request("r", "another body"));
    let stream = StreamId::new(tenant("theirs"), "order", "a").unwrap();
    case.store.append_many(keyed(&case, "a", ExpectedVersion::Any, &ours)).await.unwrap();
    assert_eq!(case.store.find_request(&tenant("theirs"), &theirs).await.unwrap(), None);
    let append = Append::to(stream, ExpectedVersion::NoStream, case.events(1)).with_request(theirs.clone());
    let done = case.store.append_many(append).await.unwrap();
    assert!(!done.repeated);
    assert!(find(&case, &ours).await.is_some());
    assert!(case.store.find_request(&tenant("theirs"), &theirs).await.unwrap().is_some());
}

pub(super) async fn keys_are_compared_byte_for_byte(case: Case) {
    let keys = ["r", "R", "r ", " r", "\u{e9}", "e\u{301}", "%", "_", "r'--", "1", "01", "1.0"];
    for key in keys {
        let done = case.store.append_many(keyed(&case, "a", ExpectedVersion::Any, &request(key, key))).await.unwrap();
        assert!(!done.repeated, "`{key}` was taken for another key");
    }
    for (n, key) in keys.iter().enumerate() {
        let found = find(&case, &request(key, key)).await.unwrap();
        assert_eq!(found.version().get(), i64::try_from(n).unwrap() + 1, "`{key}`");
    }
}

pub(super) async fn a_key_is_remembered_for_its_lifetime_and_no_longer(case: Case) {
    let Some(clock) = case.clock().await else { return };
    let key = request("r", "body").with_lifetime(Duration::from_secs(10));
    let first = case.store.append_many(keyed(&case, "a", ExpectedVersion::Any, &key)).await.unwrap();
    clock.advance(Duration::from_micros(9_999_999));
    assert_eq!(find(&case, &key).await, Some(Appended { repeated: true, ..first }));
    clock.advance(Duration::from_micros(1));
    assert_eq!(find(&case, &key).await, None);
    let again = case.store.append_many(keyed(&case, "a", ExpectedVersion::Any, &key)).await.unwrap();
    assert_eq!((again.version(), again.repeated), (version(2), false));
}

pub(super) async fn a_day_is_the_default_lifetime(case: Case) {
    let Some(clock) = case.clock().await else { return };
    let key = request("r", "body");
    case.store.append_many(keyed(&case, "a", ExpectedVersion::Any, &key)).await.unwrap();
    clock.advance(Duration::from_secs(24 * 60 * 60 - 1));
    assert!(find(&case, &key).await.is_some());
    clock.advance(Duration::from_secs(1));
    assert_eq!(find(&case, &key).await, None);
}

pub(super) async fn an_expired_key_is_free_for_another_request(case: Case) {
    let Some(clock) = case.clock().await else { return };
    let key = request("r", "body").with_lifetime(Duration::from_secs(10));
    case.store.append_many(keyed(&case, "a", ExpectedVersion::Any, &key)).await.unwrap();
    clock.advance(Duration::from_secs(11));
    let other = request("r", "another body");
    let done = case.store.append_many(keyed(&case, "a", ExpectedVersion::Any, &other)).await.unwrap();
    assert!(!done.repeated);
    is_reused(&case.store.find_request(&Tenant::default(), &key).await.unwrap_err(), &Tenant::default(), "r");
}

pub(super) async fn asking_again_does_not_lengthen_the_lifetime(case: Case) {
    let Some(clock) = case.clock().await else { return };
    let key = request("r", "body").with_lifetime(Duration::from_secs(10));
    for _ in 0..2 {
        case.store.append_many(keyed(&case, "a", ExpectedVersion::Any, &key)).await.unwrap();
        assert!(find(&case, &key).await.is_some());
        clock.advance(Duration::from_secs(6));
    }
    assert_eq!(find(&case, &key).await, None);
}

pub(super) async fn a_lifetime_without_end_ends_with_the_calendar(case: Case) {
    let key = request("r", "body").with_lifetime(Duration::MAX);
    case.store.append_many(keyed(&case, "a", ExpectedVersion::Any, &key)).await.unwrap();
    assert!(find(&case, &key).await.is_some());
}

pub(super) async fn many_expired_keys_neither_answer_nor_block(case: Case) {
    let Some(clock) = case.clock().await else { return };
    let remember_all = |body: &'static str, lifetime: Duration| {
        let keys = (0..150).map(move |n| request(&format!("r{n}"), body).with_lifetime(lifetime));
        join_all(keys.map(|key| case.store.append_many(Append::request_only(Tenant::default(), key))))
    };
    for answer in remember_all("body", Duration::from_secs(1)).await {
        answer.unwrap();
    }
    clock.advance(Duration::from_secs(2));
    for n in 0..150 {
        assert_eq!(find(&case, &request(&format!("r{n}"), "body")).await, None, "r{n}");
    }
    for answer in remember_all("another body", Duration::from_secs(60)).await {
        assert!(!answer.unwrap().repeated);
    }
    // Nor were the new ones removed with the old.
    clock.advance(Duration::from_secs(2));
    for n in 0..3 {
        case.store
            .append_many(Append::request_only(Tenant::default(), request(&format!("s{n}"), "body")))
            .await
            .unwrap();
    }
    for n in 0..150 {
        assert!(find(&case, &request(&format!("r{n}"), "another body")).await.is_some(), "r{n}");
    }
}
