//! Streams that have come to their last version, which nobody reaches by appending.

use sqlx::{AssertSqlSafe, Row};

use super::{ANY, Fixture, event, stream};
use crate::append::Append;
use crate::error::{AppendError, ErrorFamily};
use crate::store::EventStore;
use crate::stream::{ExpectedVersion, StreamVersion};
use crate::unit_of_work::UnitOfWork;

const NO_STREAM: ExpectedVersion = ExpectedVersion::NoStream;

fn exact(version: i64) -> ExpectedVersion {
    StreamVersion::new(version).expect("not negative").into()
}

/// Puts an event at `version` of a stream that has none before it, past the guard that refuses this.
async fn plant(fixture: &Fixture, id: &str, version: i64) {
    const GUARD: &str = "events_are_never_replaced";
    let mut foreign = fixture.foreign().await;
    let guard = sqlx::query("SELECT sql FROM sqlite_schema WHERE name = ?1").bind(GUARD);
    let guard: String = guard.fetch_one(&mut foreign).await.expect("it is there").get(0);
    let planting = format!(
        "BEGIN IMMEDIATE;
         DROP TRIGGER {GUARD};
         INSERT INTO events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version, event_data, metadata, recorded_at)
         VALUES (randomblob(16), 'default', 'counter', '{id}', {version}, 'counted', 1, '{{}}', '{{}}', 0);
         {guard};
         COMMIT"
    );
    sqlx::raw_sql(AssertSqlSafe(planting)).execute(&mut foreign).await.expect("planted");
}

fn is_full(refused: Result<crate::Appended, AppendError>, at: i64) {
    match &refused {
        Err(error @ AppendError::StreamFull { stream: full, actual }) => {
            assert_eq!((full, actual.get(), error.family()), (&stream("full"), at, ErrorFamily::Invalid));
        }
        other => panic!("expected a full stream: {other:?}"),
    }
}

#[tokio::test]
async fn a_full_stream_takes_no_more_events_and_the_rest_of_the_append_is_refused_with_it() {
    let fixture = Fixture::new().await;
    fixture.append("other", NO_STREAM, 1).await.expect("appended");
    plant(&fixture, "full", i64::MAX).await;
    let before = fixture.log().await;
    for expected in [ANY, exact(i64::MAX)] {
        is_full(fixture.append("full", expected, 2).await, i64::MAX);
        let both = |first: &str, second: &str| {
            let expected = |id| if id == "full" { expected } else { ANY };
            let append = Append::to(stream(first), expected(first), vec![event(3)]);
            append.and(stream(second), expected(second), vec![event(4)])
        };
        is_full(fixture.store.append_many(both("full", "other")).await, i64::MAX);
        is_full(fixture.store.append_many(both("other", "full")).await, i64::MAX);
    }
    let stale = fixture.append("full", exact(i64::MAX - 1), 5).await;
    assert!(matches!(stale, Err(AppendError::WrongExpectedVersion { .. })), "{stale:?}");
    assert_eq!(fixture.log().await, before);
}

#[tokio::test]
async fn a_full_stream_leaves_a_unit_of_work_usable() {
    let fixture = Fixture::new().await;
    plant(&fixture, "full", i64::MAX).await;
    let mut work = fixture.store.begin().await.expect("begun");
    for expected in [ANY, exact(i64::MAX)] {
        is_full(work.append(Append::to(stream("full"), expected, vec![event(1)])).await, i64::MAX);
        let both = Append::to(stream("other"), ANY, vec![event(2)]).and(stream("full"), expected, vec![event(3)]);
        is_full(work.append(both).await, i64::MAX);
    }
    let done = work.append(Append::to(stream("other"), NO_STREAM, vec![event(4)])).await.expect("appended");
    work.commit().await.expect("committed");
    assert_eq!(fixture.log().await.len(), 2);
    assert_eq!(done.version().get(), 1);
}

#[tokio::test]
async fn the_last_version_is_taken_and_never_passed() {
    for expected in [ANY, exact(i64::MAX - 1)] {
        let fixture = Fixture::new().await;
        plant(&fixture, "full", i64::MAX - 1).await;
        let before = fixture.log().await;
        is_full(fixture.store.append(&stream("full"), expected, vec![event(1), event(2)]).await, i64::MAX - 1);
        assert_eq!(fixture.log().await, before);
        let last = fixture.append("full", expected, 3).await.expect("one more has room");
        assert_eq!(last.version().get(), i64::MAX);
        is_full(fixture.append("full", ANY, 4).await, i64::MAX);
        let page = fixture.store.load_page(&stream("full"), StreamVersion::NONE, 10).await.expect("a page");
        let versions: Vec<_> = page.events.iter().map(|event| event.version.get()).collect();
        assert_eq!((versions, page.end), (vec![i64::MAX - 1, i64::MAX], true));
    }
}
