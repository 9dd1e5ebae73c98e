//! Streams at their last version, which cannot be reached by appending.

use annals_eventstore::{
    After, Append, AppendError, Appended, ErrorFamily, EventStore, ExpectedVersion, Filter, RecordedEvent,
    StreamVersion,
};

use super::{Fixture, run, stream};

const ANY: ExpectedVersion = ExpectedVersion::Any;

fn exact(version: i64) -> ExpectedVersion {
    StreamVersion::new(version).unwrap().into()
}

/// Puts an event at `version` of a stream that has none before it, past the guard that refuses this.
async fn plant(fixture: &Fixture, id: &str, version: i64) {
    let planting = format!(
        "BEGIN;
         ALTER TABLE annals.events DISABLE TRIGGER events_continue_their_stream;
         INSERT INTO annals.events (event_id, tenant, aggregate_type, aggregate_id, version, event_type, schema_version,
                                    event_data, metadata)
         VALUES (gen_random_uuid(), 'default', 'order', '{id}', {version}, 'placed', 1, '{{}}', '{{}}');
         ALTER TABLE annals.events ENABLE ALWAYS TRIGGER events_continue_their_stream;
         COMMIT"
    );
    run(&mut fixture.foreign().await, &planting).await.unwrap();
}

fn is_full(refused: Result<Appended, AppendError>, at: i64) {
    match &refused {
        Err(error @ AppendError::StreamFull { stream: full, actual }) => {
            assert_eq!((full, actual.get(), error.family()), (&stream("full"), at, ErrorFamily::Invalid));
        }
        other => panic!("expected a full stream: {other:?}"),
    }
}

async fn log(fixture: &Fixture) -> Vec<RecordedEvent> {
    fixture.store.read_page(After::START, &Filter::all(), 100).await.unwrap().events
}

#[tokio::test]
async fn a_full_stream_takes_no_more_events_and_the_rest_of_the_append_is_refused_with_it() {
    let fixture = Fixture::new().await;
    fixture.append("other").await.unwrap();
    plant(&fixture, "full", i64::MAX).await;
    let before = log(&fixture).await;
    for expected in [ANY, exact(i64::MAX)] {
        // One event and several are appended by different functions.
        for count in [1, 2] {
            let events = (0..count).map(|_| fixture.event()).collect();
            is_full(fixture.store.append(&stream("full"), expected, events).await, i64::MAX);
        }
        let both = |first: &str, second: &str| {
            let expected = |id| if id == "full" { expected } else { ANY };
            let append = Append::to(stream(first), expected(first), vec![fixture.event()]);
            append.and(stream(second), expected(second), vec![fixture.event()])
        };
        is_full(fixture.store.append_many(both("full", "other")).await, i64::MAX);
        is_full(fixture.store.append_many(both("other", "full")).await, i64::MAX);
    }
    let stale = fixture.store.append(&stream("full"), exact(i64::MAX - 1), vec![fixture.event()]).await;
    assert!(matches!(stale, Err(AppendError::WrongExpectedVersion { .. })), "{stale:?}");
    assert_eq!(log(&fixture).await, before);
}

#[tokio::test]
async fn the_last_version_is_taken_and_never_passed() {
    for (expected, with_another) in [(ANY, false), (exact(i64::MAX - 1), true)] {
        let fixture = Fixture::new().await;
        plant(&fixture, "full", i64::MAX - 1).await;
        let before = log(&fixture).await;
        let two = vec![fixture.event(), fixture.event()];
        is_full(fixture.store.append(&stream("full"), expected, two).await, i64::MAX - 1);
        assert_eq!(log(&fixture).await, before);
        let mut append = Append::to(stream("full"), expected, vec![fixture.event()]);
        if with_another {
            append = append.and(stream("other"), ANY, vec![fixture.event()]);
        }
        let last = fixture.store.append_many(append).await.unwrap();
        assert_eq!(last.version().get(), i64::MAX);
        is_full(fixture.store.append(&stream("full"), ANY, vec![fixture.event()]).await, i64::MAX);
        let page = fixture.store.load_page(&stream("full"), StreamVersion::NONE, 10).await.unwrap();
        let versions: Vec<_> = page.events.iter().map(|event| event.version.get()).collect();
        assert_eq!((versions, page.end), (vec![i64::MAX - 1, i64::MAX], true));
    }
}

#[tokio::test]
async fn an_append_after_the_last_position_is_broken_and_not_transient() {
    let fixture = Fixture::new().await;
    run(&mut fixture.foreign().await, "SELECT setval('annals.events_position', 9223372036854775806)").await.unwrap();
    let last = fixture.append("full").await.unwrap();
    assert_eq!(last.position.get(), i64::MAX);
    for count in [1, 2] {
        let events = (0..count).map(|_| fixture.event()).collect();
        let error = fixture.store.append(&stream("full"), ANY, events).await.unwrap_err();
        let said = matches!(&error, AppendError::Broken { what, .. } if what.contains("last position"));
        assert!(said && error.family() == ErrorFamily::Broken, "{error:?}");
    }
    assert_eq!(log(&fixture).await.len(), 1);
}
