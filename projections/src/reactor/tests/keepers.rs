//! What every database must keep of a reactor.

use std::sync::Arc;

use annals_eventstore::{Checkpoint, EventId, Incarnation, Position, StreamId, StreamVersion, SystemClock, Tenant};
use jiff::Timestamp;
use uuid::Uuid;

use crate::EventPlace;
use crate::StartError;
use crate::database::ReadModels;
use crate::database::contract::Backend;
use crate::reactor::{ASKED, Failing, Kept, Opened, Opening};

fn at(position: i64) -> Checkpoint {
    let incarnation = Incarnation(Uuid::from_u128(7));
    match position {
        0 => Checkpoint::start(incarnation),
        n => Checkpoint {
            incarnation,
            position: Position::new(n).unwrap(),
            event_id: Some(EventId::new(Uuid::from_u128(n as u128)).unwrap()),
        },
    }
}

fn failing(id: &str, position: i64, parked: bool) -> Failing {
    Failing {
        place: EventPlace {
            position: Position::new(position).unwrap(),
            stream: StreamId::new(Tenant::new("north").unwrap(), "order", id).unwrap(),
            version: StreamVersion::new(3).unwrap(),
            name: "order.paid".into(),
        },
        tries: 4,
        unfinished: 2,
        parked,
        error: "no „answer“ 📪".to_owned(),
        next_try_at: Timestamp::from_microsecond(1_772_359_200_123_456).unwrap(),
    }
}

async fn open_of(models: &Arc<dyn ReadModels>, tenant: Option<Tenant>, start: i64) -> Result<Opened, StartError> {
    let owner = Uuid::from_u128(fastrand::u128(1..));
    let (events, clock) = ("order.paid".to_owned(), Arc::new(SystemClock));
    models.migrate().await?;
    models.open_reactor(Opening { reactor: "mailer", events, tenant, start: at(start), owner, clock }).await
}

async fn open(models: &Arc<dyn ReadModels>) -> Opened {
    open_of(models, None, 5).await.unwrap()
}

async fn a_run_keeps_what_it_has_until_another_takes_the_reactor(backend: &dyn Backend) {
    let models = backend.handle();
    models.migrate().await.unwrap();
    assert_eq!(models.reactor_checkpoint("mailer").await.unwrap(), None);
    let first = open(&models).await;
    assert_eq!((first.checkpoint, first.unclean, first.failing.len()), (at(5), 0, 0));
    assert_eq!(models.reactor_checkpoint("mailer").await.unwrap(), Some(at(5)), "where it begins is stored");
    let keeper = &first.keeper;
    let (a, b, parked) = (failing("a", 7, false), failing("b", 9, false), failing("p", 6, true));
    for failing in [&b, &failing("a", 6, false), &a, &parked] {
        assert_eq!(keeper.keep(failing).await.unwrap(), Kept::Done);
    }

    let second = open_of(&backend.handle(), None, 0).await.unwrap();
    assert_eq!((second.checkpoint, second.unclean), (at(5), 1), "what is stored wins");
    let mut stored = second.failing.clone();
    stored.sort_by_key(|failing| failing.place.position);
    assert_eq!(stored, [parked.clone(), a.clone(), b.clone()], "one for each stream, as it was kept last");
    for lost in [
        keeper.save(&at(5), &at(6)).await,
        keeper.keep(&failing("x", 8, true)).await,
        keeper.forget(&a.place.stream).await,
        keeper.release().await,
    ] {
        assert_eq!(lost.unwrap(), Kept::Lost);
    }
    assert_eq!(models.reactor_checkpoint("mailer").await.unwrap(), Some(at(5)));

    let third = open(&models).await;
    assert_eq!((third.unclean, third.failing.len()), (2, 3), "the first has changed nothing");
    let keeper = &third.keeper;
    assert_eq!(keeper.save(&at(5), &at(7)).await.unwrap(), Kept::Done);
    assert_eq!(keeper.save(&at(5), &at(7)).await.unwrap(), Kept::Done, "the answer was lost");
    assert_eq!(keeper.save(&at(6), &at(8)).await.unwrap(), Kept::Lost, "somebody has moved it");
    assert_eq!(keeper.save(&Checkpoint { event_id: at(6).event_id, ..at(7) }, &at(8)).await.unwrap(), Kept::Lost);

    let fourth = open(&models).await;
    assert_eq!((fourth.checkpoint, fourth.unclean), (at(7), 0), "the run before it made progress");
    let mut stored = fourth.failing.clone();
    stored.sort_by_key(|failing| failing.place.position);
    assert_eq!(stored, [parked.clone(), b], "what was parked stays, what is handled is forgotten");
    assert_eq!(fourth.keeper.forget(&parked.place.stream).await.unwrap(), Kept::Done);
    assert_eq!(fourth.keeper.release().await.unwrap(), Kept::Done);
    let fifth = open(&models).await;
    assert_eq!((fifth.unclean, fifth.failing.len()), (0, 1));

    let other = open_of(&models, Some(Tenant::new("north").unwrap()), 5).await.err().expect("it must be refused");
    assert!(matches!(other, StartError::ReactorTenantChanged { .. }), "{other}");
    assert_eq!(fifth.keeper.release().await.unwrap(), Kept::Done, "and takes the reactor from nobody");
    let mut longest = failing("l", 9, false);
    longest.set_error(&"é\0".repeat(5_000));
    assert_eq!(fifth.keeper.keep(&longest).await.unwrap(), Kept::Done);
}

/// Anybody may ask for a retry; only a parked stream takes it, and it is there until the event fails again.
async fn a_retry_is_asked_for_until_it_is_kept_otherwise(backend: &dyn Backend) {
    let models = backend.handle();
    let opened = open(&models).await;
    assert_eq!(models.failing("mailer", false).await.unwrap(), []);
    let (b, parked) = (failing("b", 9, false), failing("p", 6, true));
    for failing in [&b, &parked] {
        opened.keeper.keep(failing).await.unwrap();
    }
    let other = backend.handle();
    assert_eq!(other.failing("mailer", false).await.unwrap(), [parked.clone(), b.clone()]);
    assert_eq!(other.failing("mailer", true).await.unwrap(), []);
    for (stream, is_parked) in [(&b, false), (&failing("x", 1, true), false), (&parked, true), (&parked, true)] {
        assert_eq!(other.ask_again("mailer", &stream.place.stream).await.unwrap(), is_parked);
        assert!(!other.ask_again("printer", &stream.place.stream).await.unwrap(), "that is another reactor");
    }
    assert_eq!(models.failing("mailer", true).await.unwrap(), [Failing { next_try_at: ASKED, ..parked.clone() }]);
    assert_eq!(opened.keeper.keep(&parked).await.unwrap(), Kept::Done, "it is nobody else's by that");
    assert_eq!(models.failing("mailer", true).await.unwrap(), []);
    assert_eq!(models.failing("mailer", false).await.unwrap(), [parked, b]);
}

/// Of all that open it at once, one has it.
async fn of_several_that_open_it_at_once_one_has_it(backend: &dyn Backend) {
    backend.handle().migrate().await.unwrap();
    let handles: Vec<_> = (0..6).map(|_| backend.handle()).collect();
    let opened = futures::future::join_all(handles.iter().map(open)).await;
    let mut kept = Vec::new();
    for opened in &opened {
        kept.push(opened.keeper.release().await.unwrap());
    }
    assert_eq!(kept.iter().filter(|kept| **kept == Kept::Done).count(), 1, "{kept:?}");
}

macro_rules! on_every_database {
    ($($test:ident,)*) => {
        mod in_memory {$(
            #[tokio::test]
            async fn $test() {
                super::$test(&crate::database::contract::InMemory::default()).await;
            }
        )*}

        #[cfg(feature = "sqlite")]
        mod in_file {$(
            #[tokio::test]
            async fn $test() {
                super::$test(&crate::database::contract::InFile::new().await).await;
            }
        )*}

        #[cfg(feature = "postgres")]
        mod in_postgres {$(
            #[tokio::test]
            async fn $test() {
                super::$test(&crate::database::contract::InPostgres::new().await).await;
            }
        )*}

        #[cfg(feature = "postgres")]
        mod behind_a_pooler {$(
            #[tokio::test]
            async fn $test() {
                super::$test(&crate::database::contract::InPostgres::behind_a_pooler().await).await;
            }
        )*}
    };
}

on_every_database! {
    a_run_keeps_what_it_has_until_another_takes_the_reactor,
    a_retry_is_asked_for_until_it_is_kept_otherwise,
    of_several_that_open_it_at_once_one_has_it,
}
