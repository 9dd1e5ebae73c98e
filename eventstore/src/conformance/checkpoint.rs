//! Checkpoints of readers, and whether the log is still the one they have read.

use futures::StreamExt;

use super::case::{Case, names_the_field};
use crate::error::{ErrorFamily, ReadError};
use crate::event::RecordedEvent;
use crate::filter::Filter;
use crate::metadata::{CorrelationId, Metadata};
use crate::position::{After, Checkpoint, Incarnation, Position};
use crate::read::EventStoreExt;
use crate::stream::ExpectedVersion;

async fn rewound(case: &Case, checkpoint: Checkpoint) {
    match case.store.check_checkpoint(&checkpoint).await {
        Err(error @ ReadError::StoreRewound { position, incarnation }) => {
            assert_eq!((position, incarnation), (checkpoint.position, checkpoint.incarnation));
            assert_eq!(error.family(), ErrorFamily::Broken);
        }
        other => panic!("expected a rewound store at {checkpoint:?}: {other:?}"),
    }
}

pub(super) async fn the_head_of_an_empty_store_is_the_start(case: Case) {
    assert_eq!(case.store.head().await.unwrap(), Checkpoint::start(case.store.incarnation()));
}

pub(super) async fn the_head_is_the_last_event(case: Case) {
    for _ in 0..3 {
        let done = case.append("a", ExpectedVersion::Any, 2).await;
        let head = case.store.head().await.unwrap();
        assert_eq!(head.position, done.position);
        assert_eq!(head.event_id, Some(case.log().await.last().unwrap().event_id));
        assert_eq!(head.incarnation, case.store.incarnation());
    }
}

pub(super) async fn the_start_is_always_a_good_checkpoint(case: Case) {
    let start = Checkpoint::start(case.store.incarnation());
    case.store.check_checkpoint(&start).await.unwrap();
    case.append("a", ExpectedVersion::Any, 1).await;
    case.store.check_checkpoint(&start).await.unwrap();
}

pub(super) async fn every_event_is_a_good_checkpoint(case: Case) {
    case.append("a", ExpectedVersion::Any, 3).await;
    case.append("b", ExpectedVersion::Any, 2).await;
    for event in case.log().await {
        let checkpoint = Checkpoint {
            incarnation: case.store.incarnation(),
            position: event.position,
            event_id: Some(event.event_id),
        };
        case.store.check_checkpoint(&checkpoint).await.unwrap();
    }
}

pub(super) async fn another_event_at_the_position_is_a_rewound_store(case: Case) {
    case.append("a", ExpectedVersion::Any, 2).await;
    let log = case.log().await;
    let head = case.store.head().await.unwrap();
    rewound(&case, Checkpoint { event_id: Some(log[0].event_id), ..head }).await;
    rewound(&case, Checkpoint { event_id: Some(case.id()), ..head }).await;
}

pub(super) async fn a_checkpoint_without_an_event_id_is_refused(case: Case) {
    case.append("a", ExpectedVersion::Any, 2).await;
    let head = case.store.head().await.unwrap();
    for incarnation in [head.incarnation, Incarnation(case.store.ids().next_id())] {
        match case.store.check_checkpoint(&Checkpoint { event_id: None, incarnation, ..head }).await {
            Err(ReadError::Invalid(invalid)) => names_the_field(&invalid, "checkpoint"),
            other => panic!("expected an error about `checkpoint`: {other:?}"),
        }
    }
}

pub(super) async fn the_start_with_an_event_id_is_a_rewound_store(case: Case) {
    case.append("a", ExpectedVersion::Any, 2).await;
    let head = case.store.head().await.unwrap();
    rewound(&case, Checkpoint { position: Position::START, ..head }).await;
}

pub(super) async fn a_checkpoint_beyond_the_log_is_a_rewound_store(case: Case) {
    case.append("a", ExpectedVersion::Any, 2).await;
    let head = case.store.head().await.unwrap();
    for beyond in [head.position.get() + 1, i64::MAX] {
        rewound(&case, Checkpoint { position: Position::new(beyond).unwrap(), ..head }).await;
    }
}

pub(super) async fn a_checkpoint_of_another_incarnation_is_a_rewound_store(case: Case) {
    case.append("a", ExpectedVersion::Any, 2).await;
    let other = Incarnation(case.store.ids().next_id());
    rewound(&case, Checkpoint { incarnation: other, ..case.store.head().await.unwrap() }).await;
    rewound(&case, Checkpoint::start(other)).await;
}

pub(super) async fn the_checkpoints_of_pages_are_good(case: Case) {
    case.append("a", ExpectedVersion::Any, 5).await;
    let nothing = Filter::all().event_name("never.used").unwrap();
    for (filter, limit) in [(Filter::all(), 2), (Filter::all(), 10), (nothing, 10)] {
        let page = case.store.read_page(After::START, &filter, limit).await.unwrap();
        case.store.check_checkpoint(&page.checkpoint.unwrap()).await.unwrap();
    }
}

/// Filters that are answered in different ways: everything, a part, one correlation, nothing.
fn filters() -> [Filter; 4] {
    let [expected, unknown] = ["order.paid", "never.stored"].map(|name| Filter::all().event_name(name).unwrap());
    let correlation = Filter::all().correlation(CorrelationId::new("ours").unwrap());
    [Filter::all(), expected, correlation, unknown]
}

async fn some_events(case: &Case) -> Vec<RecordedEvent> {
    for stream in ["a", "b"] {
        let ours = Metadata { correlation_id: Some(CorrelationId::new("ours").unwrap()), ..Metadata::default() };
        let paid = case.named("order.paid").with_metadata(ours.clone());
        let events = vec![case.event(), paid, case.event().with_metadata(ours)];
        case.store.append(&case.stream(stream), ExpectedVersion::NoStream, events).await.unwrap();
    }
    case.log().await
}

pub(super) async fn a_read_after_an_event_continues_after_it(case: Case) {
    for event in some_events(&case).await {
        for (filter, limit) in filters().into_iter().flat_map(|filter| [(filter.clone(), 1), (filter, 10)]) {
            let after = After { position: event.position, event_id: Some(event.event_id) };
            let page = case.store.read_page(after, &filter, limit).await.unwrap();
            assert_eq!(page, case.store.read_page(event.position.into(), &filter, limit).await.unwrap());
        }
    }
}

/// A reader whose log was rewound and has grown again continues only if its own event is still in it.
pub(super) async fn a_read_after_an_event_that_is_not_there_is_a_rewound_store(case: Case) {
    let log = some_events(&case).await;
    let head = log.last().unwrap().position;
    let places = log.iter().map(|event| event.position).chain([Position::START, next(head), next(next(head))]);
    for (position, filter) in places.flat_map(|at| filters().map(|filter| (at, filter))) {
        let other = log.iter().find(|event| event.position != position).unwrap().event_id;
        for event_id in [case.id(), other] {
            let after = After { position, event_id: Some(event_id) };
            match case.store.read_page(after, &filter, 10).await {
                Err(ReadError::StoreRewound { position: at, .. }) => assert_eq!(at, position),
                answer => panic!("expected a rewound store after {after:?} of {filter:?}: {answer:?}"),
            }
            let last = case.store.read_all(after, filter.clone()).collect::<Vec<_>>().await.pop();
            assert!(matches!(last, Some(Err(ReadError::StoreRewound { .. }))), "{last:?}");
        }
    }
}

fn next(position: Position) -> Position {
    Position::new(position.get() + 1).unwrap()
}

pub(super) async fn the_incarnation_stays_while_the_log_grows(case: Case) {
    let before = case.store.incarnation();
    case.append("a", ExpectedVersion::Any, 5).await;
    assert_eq!(case.store.incarnation(), before);
    assert_eq!(case.store.clone().incarnation(), before);
}

pub(super) async fn a_refused_append_moves_no_head(case: Case) {
    case.append("a", ExpectedVersion::Any, 2).await;
    let head = case.store.head().await.unwrap();
    for _ in 0..3 {
        let refused = case.store.append(&case.stream("a"), ExpectedVersion::NoStream, case.events(1)).await;
        assert!(refused.is_err());
    }
    assert_eq!(case.store.head().await.unwrap(), head);
}
