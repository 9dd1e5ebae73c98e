//! Request keys by the server's clock. What no clock decides is held by the conformance suite.

use std::time::Duration;

use annals_eventstore::{
    After, Append, AppendError, Appended, EventStore, ExpectedVersion, Filter, Fingerprint, RequestKey, Tenant,
    UnitOfWork,
};
use sqlx::Row;

use super::{Fixture, insert, run, stream};

fn request(key: &str, body: &str) -> RequestKey {
    RequestKey::new(key, Fingerprint::of_bytes(body.as_bytes())).unwrap()
}

impl Fixture {
    async fn keyed(&self, request: &RequestKey) -> Result<Appended, AppendError> {
        let append = Append::to(stream("a"), ExpectedVersion::Any, vec![self.event()]);
        self.store.append_many(append.with_request(request.clone())).await
    }

    async fn count(&self, from_keys_where: &str) -> i64 {
        let text = format!("SELECT count(*) FROM annals.request_keys WHERE {from_keys_where}");
        let query = sqlx::query(sqlx::AssertSqlSafe(text));
        query.fetch_all(&mut self.foreign().await).await.unwrap()[0].get(0)
    }
}

#[tokio::test]
async fn a_key_is_kept_for_its_lifetime_by_the_clock_of_the_server() {
    let fixture = Fixture::new().await;
    let lifetimes = [
        ("short", Duration::from_micros(1_234_567), "interval '1.234567 seconds'"),
        ("usual", RequestKey::LIFETIME, "interval '24 hours'"),
    ];
    for (key, lifetime, interval) in lifetimes {
        let done = fixture.keyed(&request(key, "body").with_lifetime(lifetime)).await.unwrap();
        let at = format!("timestamptz '{}' + {interval}", done.recorded_at);
        assert_eq!(fixture.count(&format!("request_key = '{key}' AND expires_at = {at}")).await, 1, "{key}");
    }
    fixture.keyed(&request("unlimited", "body").with_lifetime(Duration::MAX)).await.unwrap();
    assert_eq!(fixture.count("request_key = 'unlimited' AND expires_at = 'infinity'").await, 1);
}

#[tokio::test]
async fn an_expired_key_neither_answers_nor_blocks() {
    let fixture = Fixture::new().await;
    let key = request("r", "body");
    fixture.keyed(&key).await.unwrap();
    assert!(fixture.keyed(&key).await.unwrap().repeated);
    run(&mut fixture.foreign().await, "UPDATE annals.request_keys SET expires_at = clock_timestamp()").await.unwrap();
    assert_eq!(fixture.store.find_request(&Tenant::default(), &key).await.unwrap(), None);
    let other = request("r", "another body");
    let done = fixture.keyed(&other).await.unwrap();
    assert_eq!((done.version().get(), done.repeated), (2, false));
    assert!(fixture.keyed(&other).await.unwrap().repeated);
    assert!(matches!(fixture.keyed(&key).await, Err(AppendError::RequestKeyReused { .. })));
}

#[tokio::test]
async fn expired_keys_are_swept_in_bounded_batches_and_others_are_left_alone() {
    let fixture = Fixture::new().await;
    let old = "INSERT INTO annals.request_keys (tenant, request_key, fingerprint, result, expires_at)
               SELECT 'default', 'old-' || n, gen_random_uuid(), '{}', clock_timestamp() - interval '1 second'
               FROM generate_series(1, 120) AS n";
    run(&mut fixture.foreign().await, old).await.unwrap();
    for (key, left) in [("new-1", 20), ("new-2", 0), ("new-3", 0)] {
        fixture.keyed(&request(key, "body")).await.unwrap();
        assert_eq!(fixture.count("request_key LIKE 'old-%'").await, left, "after {key}");
    }
    assert_eq!(fixture.count("request_key LIKE 'new-%'").await, 3);
}

/// Its events without the key would be stored again by the repeat.
#[tokio::test]
async fn an_append_whose_key_cannot_be_stored_stores_nothing() {
    let fixture = Fixture::new().await;
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
                  BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'check_violation'; END $$;
                  CREATE TRIGGER refuse BEFORE INSERT ON annals.request_keys FOR EACH ROW EXECUTE FUNCTION refuse()";
    run(&mut fixture.foreign().await, refuse).await.unwrap();
    let events = |count: usize| (0..count).map(|_| fixture.event()).collect();
    let one = Append::to(stream("a"), ExpectedVersion::Any, events(1));
    let large = Append::to(stream("a"), ExpectedVersion::Any, events(40));
    let several = one.clone().and(stream("b"), ExpectedVersion::Any, events(2));
    for append in [one.clone(), large, several] {
        let refused = fixture.store.append_many(append.with_request(request("r", "body"))).await.unwrap_err();
        assert!(matches!(refused, AppendError::Broken { .. }), "{refused:?}");
    }
    let mut unit = fixture.store.begin().await.unwrap();
    unit.append(one.clone().with_request(request("r", "body"))).await.unwrap_err();
    unit.rollback().await.unwrap();
    let log = fixture.store.read_page(After::START, &Filter::all(), 10).await.unwrap();
    assert_eq!(log.events, []);
    run(&mut fixture.foreign().await, "DROP TRIGGER refuse ON annals.request_keys").await.unwrap();
    let done = fixture.store.append_many(one.with_request(request("r", "body"))).await.unwrap();
    assert_eq!((done.version().get(), done.repeated), (1, false));
}

/// A server whose clock was slow and is set right must not execute the requests of that time again.
#[tokio::test]
async fn a_lifetime_counts_from_the_last_event_if_the_clock_is_earlier() {
    let fixture = Fixture::new().await;
    let mut foreign = fixture.foreign().await;
    insert(&mut foreign, "of a clock that was right").await;
    let ahead = "ALTER TABLE annals.events DISABLE TRIGGER USER;
                 UPDATE annals.events SET recorded_at = timestamptz '2999-01-01 00:00Z';
                 ALTER TABLE annals.events ENABLE TRIGGER USER";
    let by = Duration::from_secs(60);
    let streams = [vec!["a"], vec!["b", "c"]];
    for (n, streams) in streams.iter().enumerate() {
        run(&mut foreign, ahead).await.unwrap();
        let key = request(&format!("r{n}"), "body").with_lifetime(by);
        let mut parts = streams.iter().map(|id| (stream(id), ExpectedVersion::Any, vec![fixture.event()]));
        let (to, expected, events) = parts.next().unwrap();
        let append = Append::to(to, expected, events);
        let append = parts.fold(append, |append, (to, expected, events)| append.and(to, expected, events));
        fixture.store.append_many(append.with_request(key)).await.unwrap();
        let until = format!("request_key = 'r{n}' AND expires_at = timestamptz '2999-01-01 00:01Z'");
        assert_eq!(fixture.count(&until).await, 1);
    }
}
