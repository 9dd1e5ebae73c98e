//! Request keys by the server's clock. What no clock decides is held by the conformance suite.

use std::time::Duration;

use annals_eventstore::{Append, AppendError, Appended, EventStore, ExpectedVersion, Fingerprint, RequestKey, Tenant};
use sqlx::Row;

use super::{Fixture, run, stream};

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
    fixture.keyed(&request("for ever", "body").with_lifetime(Duration::MAX)).await.unwrap();
    assert_eq!(fixture.count("request_key = 'for ever' AND expires_at = 'infinity'").await, 1);
}

#[tokio::test]
async fn an_expired_key_neither_answers_nor_stands_in_the_way() {
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
