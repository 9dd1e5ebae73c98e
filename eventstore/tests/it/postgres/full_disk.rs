//! A server whose disk is really full, and then larger.

use annals_eventstore::{
    Append, AppendError, ErrorFamily, EventId, EventStore, EventStoreExt, ExpectedVersion, Filter, NewEvent, Payload,
    Position, PostgresOptions, PostgresStore, UnitOfWork,
};
use annals_scratch::{Server, SmallDisk};
use futures::TryStreamExt;
use sqlx::{Connection, PgConnection};

use super::{run, stream};

const ANY: ExpectedVersion = ExpectedVersion::Any;

/// An event of about 6 kB, of which none can be saved.
fn large(store: &PostgresStore) -> NewEvent {
    let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(6_000).collect();
    let id = EventId::new(store.ids().next_id()).unwrap();
    NewEvent::raw(id, "written", 1, Payload::from_json(&format!("\"{text}\"")).unwrap()).unwrap()
}

/// An append of so many of them, and their ids.
fn append(store: &PostgresStore, events: usize) -> (Append, Vec<EventId>) {
    let events: Vec<_> = (0..events).map(|_| large(store)).collect();
    let ids = events.iter().map(|event| event.event_id).collect();
    (Append::to(stream("a"), ANY, events), ids)
}

async fn ids(store: &PostgresStore) -> Vec<EventId> {
    let log = store.read_all(Position::START, Filter::all()).try_collect::<Vec<_>>().await.unwrap();
    log.iter().map(|event| event.event_id).collect()
}

fn is_full<T: std::fmt::Debug>(answer: Result<T, AppendError>) {
    match answer {
        Err(error @ AppendError::StorageFull { .. }) => assert_eq!(error.family(), ErrorFamily::Transient),
        other => panic!("expected a full disk: {other:?}"),
    }
}

/// Appends, in each way in turn, until an append is refused. Returns the ids of the acknowledged events.
async fn fill(store: &PostgresStore) -> (Vec<EventId>, AppendError) {
    let mut acknowledged = Vec::new();
    for events in [1, 3, 17].into_iter().cycle().take(1_000) {
        let (append, ids) = append(store, events);
        match store.append_many(append).await {
            Ok(_) => acknowledged.extend(ids),
            Err(error) => return (acknowledged, error),
        }
    }
    panic!("40 megabytes on a disk of less");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_appends_loses_none_and_takes_more_when_it_has_grown() {
    if !SmallDisk::may_be_mounted(
        module_path!(),
        "a_full_disk_refuses_appends_loses_none_and_takes_more_when_it_has_grown",
    ) {
        return;
    }
    let server = Server::start(&[]);
    let disk = SmallDisk::for_owner_of(server.folder(), "16m");
    let mut superuser = PgConnection::connect(&server.url("postgres")).await.unwrap();
    let tablespace = format!("CREATE TABLESPACE small LOCATION '{}'", disk.path().display());
    run(&mut superuser, &tablespace).await.unwrap();
    run(&mut superuser, "CREATE DATABASE shop TABLESPACE small").await.unwrap();
    let store = PostgresOptions::new(server.url("shop")).migrate().open().await.unwrap();
    let (mut acknowledged, refused) = fill(&store).await;
    assert!(acknowledged.len() > 100, "only {} events: {refused:?}", acknowledged.len());
    is_full::<()>(Err(refused));

    for events in [1, 3, 40] {
        // Small ones may find a last place.
        let refused = loop {
            let (append, ids) = append(&store, events);
            match store.append_many(append).await {
                Ok(_) => acknowledged.extend(ids),
                refused => break refused,
            }
        };
        is_full(refused);
    }
    let mut unit = store.begin().await.unwrap();
    is_full(unit.append(append(&store, 40).0).await);
    unit.commit().await.unwrap_err();
    assert_eq!(ids(&store).await, acknowledged);

    disk.grow("32m");
    for events in [1, 3, 40] {
        let (append, ids) = append(&store, events);
        assert!(!store.append_many(append).await.expect("there is room again").repeated);
        acknowledged.extend(ids);
    }
    assert_eq!(ids(&store).await, acknowledged);
}
