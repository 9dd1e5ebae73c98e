//! What is refused before anything runs, and where projections begin.

use annals_eventstore::Recorded;
use annals_macros::ReadModel;

use super::accounts::{Account, AccountEvent, Accounts};
use super::fixture::{Counts, Doubled, Fixed, Fixture, pairs, until_at};
use super::troubled::Trouble;
use crate::builder::ProjectionsBuilder;
use crate::{Projection, ProjectionError, Rows, StartError};

macro_rules! renamed {
    ($type:ident, $name:expr, $version:expr) => {
        struct $type;

        impl Projection for $type {
            type Event = AccountEvent;
            type Row = Account;
            const NAME: &'static str = $name;
            const VERSION: u32 = $version;

            fn apply(&self, _: &Recorded<AccountEvent>, _: &mut Rows<Account>) -> Result<(), ProjectionError> {
                Ok(())
            }
        }
    };
}

renamed!(BadlyNamed, "Bad Name", 1);
renamed!(OtherName, "other_name", 1);
renamed!(VersionZero, "accounts", 0);

async fn refused(builder: ProjectionsBuilder, what: &str) {
    let error = builder.start().await.expect_err("it must be refused").to_string();
    assert!(error.contains(what), "{error}");
}

#[tokio::test]
async fn projections_declared_wrongly_are_refused() {
    let shop = Fixture::new();
    refused(shop.projections(), "add one by `with`").await;
    refused(shop.projections().with(BadlyNamed), "`Bad Name`, which cannot be used in SQL").await;
    refused(shop.projections().with(VersionZero), "count versions from 1").await;
    refused(shop.projections().with(Accounts).with(Fixed), "`accounts` is that of two projections").await;
    refused(shop.projections().with(Accounts).with(OtherName), "a read model of its own").await;
}

#[derive(ReadModel, Clone)]
#[read_model(table = "events", key = "id")]
struct Happened {
    id: String,
}

struct Everything;

impl Projection for Everything {
    type Event = AccountEvent;
    type Row = Happened;

    fn apply(&self, event: &Recorded<AccountEvent>, rows: &mut Rows<Happened>) -> Result<(), ProjectionError> {
        rows.upsert(Happened { id: event.event_id.to_string() });
        Ok(())
    }
}

/// In an SQLite file the log is called so; the message said "a table that annals did not make".
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_read_model_called_events_is_refused_as_the_name_is_that_of_the_log() {
    use annals_eventstore::{EventStore, SqliteStore};

    use crate::ProjectionsExt;

    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("log.db")).await.unwrap();
    let error = store.projections().with(Everything).start().await.expect_err("the name is taken");
    assert!(matches!(error, StartError::NameTaken { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "projection `events` needs the name `events`, which is a table in which annals keeps what it needs itself; rename the read \
         model's table, or the other"
    );
    store.close().await;
}

pub(super) async fn a_restart_continues_where_it_ended(shop: Fixture) {
    let views = shop.start().await;
    let first = shop.append("a", [AccountEvent::Paid(1), AccountEvent::Paid(2)]).await;
    views.wait_for(first, shop.soon()).await.unwrap();
    views.close().await;
    let second = shop.append("a", [AccountEvent::Paid(4)]).await;
    let views = shop.start().await;
    views.wait_for(second, shop.soon()).await.unwrap();
    until_at(&views, second).await;
    assert_eq!(views.status()[0].applied, 1, "the events before the restart are not applied again");
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 7)]));
}

pub(super) async fn a_read_model_of_another_log_is_refused(shop: Fixture) {
    let views = shop.start().await;
    let position = shop.append("a", [AccountEvent::Paid(1)]).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    views.close().await;
    // The store was replaced by one that has as many events, and by one that has none.
    for events in [1, 0] {
        let replaced = shop.with_another_store();
        for _ in 0..events {
            replaced.append("a", [AccountEvent::Paid(8)]).await;
        }
        let error = replaced.projections().with(Accounts).start().await.expect_err("it must be refused");
        assert!(matches!(error, StartError::Rewound { .. }), "{error:?}");
        assert!(error.to_string().contains("raise its `VERSION`"), "{error}");
    }
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 1)]));
}

pub(super) async fn a_raised_version_is_built_beside_the_old_one_and_shown_when_it_has_caught_up(shop: Fixture) {
    let views = shop.start().await;
    let position = shop.append("a", [AccountEvent::Paid(1)]).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    views.close().await;
    assert_eq!(shop.shown::<Accounts>().await, Some(1));
    let views = shop.projections().with(Doubled).start().await.unwrap();
    views.wait_for(position, shop.soon()).await.unwrap();
    // The switch follows the catching up; an append to the live projection comes after it.
    let position = shop.append("a", [AccountEvent::Paid(1)]).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    assert_eq!(shop.shown::<Accounts>().await, Some(2));
    assert_eq!(shop.rows::<Doubled>().await, pairs(&[("a", 4)]));
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 1)]), "the old table stays as it was");
}

/// A long query of the view blocks the switch; meanwhile the projection continues.
#[tokio::test(start_paused = true)]
async fn a_view_that_cannot_be_switched_yet_is_tried_again_now_and_then() {
    let shop = Fixture::new();
    shop.append("a", [AccountEvent::Paid(1)]).await;
    let views = shop.start().await;
    views.close().await;
    shop.models.trouble_shows(vec![Some(Trouble::Passing); 3]);
    let views = shop.projections().with(Doubled).start().await.unwrap();
    for _ in 0..50 {
        let position = shop.append("a", [AccountEvent::Paid(1)]).await;
        while views.status()[0].position < position {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(shop.models.shown(), 1, "time stands still, so it is not time to try again");
    assert_eq!(shop.shown::<Accounts>().await, Some(1));
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    assert_eq!((shop.models.shown(), shop.shown::<Accounts>().await), (4, Some(2)));
}

pub(super) async fn a_new_projection_catches_up_while_the_others_follow_the_log(shop: Fixture) {
    for _ in 0..3 {
        shop.append("a", (0..9_000).map(|_| AccountEvent::Paid(1))).await;
    }
    let views = shop.start().await;
    let position = shop.append("a", [AccountEvent::Paid(1)]).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    views.close().await;
    let views = shop.projections().with(Accounts).with(Counts).start().await.unwrap();
    let position = shop.append("b", [AccountEvent::Paid(5)]).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    until_at(&views, position).await;
    assert_eq!(views.status()[0].applied, 1);
    assert_eq!(views.status()[1].applied, 27_002);
    // Behind the join both follow the log.
    let position = shop.append("b", [AccountEvent::Paid(5)]).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 27_001), ("b", 10)]));
    assert_eq!(shop.rows::<Counts>().await, pairs(&[("a", 27_001), ("b", 2)]));
}

#[tokio::test(start_paused = true)]
async fn a_store_without_events_starts_and_waits() {
    let shop = Fixture::new();
    let views = shop.projections().with(Accounts).with(Counts).start().await.unwrap();
    views.wait_for(annals_eventstore::Position::START, shop.soon()).await.unwrap();
    views.close().await;
    assert_eq!((shop.position::<Accounts>().await, shop.models.tried()), (0, 0), "there was nothing to commit");
}

/// The statement `start().await?;` ends the projections at once, so the compiler warns of it: else this does not compile.
#[tokio::test]
#[expect(unused_must_use, reason = "the handle is dropped to show that the compiler says so")]
async fn a_handle_that_is_not_kept_is_a_warning() {
    Fixture::new().start().await;
}

#[tokio::test(start_paused = true)]
async fn names_that_no_event_of_the_log_has_are_reported_once_the_log_was_read() {
    let shop = Fixture::new();
    shop.append("a", [AccountEvent::Opened, AccountEvent::Paid(1)]).await;
    let views = shop.start().await;
    views.caught_up(shop.soon()).await.unwrap();
    until_live(&views).await;
    let unseen = views.status().remove(0).unseen;
    assert!(unseen.contains(&"closed") && unseen.contains(&"moved"), "{unseen:?}");
    assert!(!unseen.contains(&"opened") && !unseen.contains(&"paid"), "{unseen:?}");
    views.close().await;

    let views = shop.start().await;
    shop.append("a", [AccountEvent::Paid(1)]).await;
    views.caught_up(shop.soon()).await.unwrap();
    until_live(&views).await;
    assert!(views.status().remove(0).unseen.is_empty(), "what was not read from the beginning says nothing");
    views.close().await;

    let empty = Fixture::new();
    let views = empty.start().await;
    views.caught_up(empty.soon()).await.unwrap();
    until_live(&views).await;
    assert!(views.status().remove(0).unseen.is_empty(), "nor does an empty log");
    views.close().await;
}

async fn until_live(views: &crate::Projections) {
    while !views.status().iter().all(|status| matches!(status.state, crate::ProjectionState::Live)) {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_projection_of_one_tenant_is_not_started_for_another() {
    let shop = Fixture::new();
    let [north, south] = ["north", "south"].map(|name| annals_eventstore::Tenant::new(name).unwrap());
    let builder = shop.projections().with(super::fixture::OfTenant(north.clone()));
    refused(builder.for_tenant(south), "`south`, but projection `accounts` is of tenant `north`").await;
    let views =
        shop.projections().for_tenant(north.clone()).with(super::fixture::OfTenant(north)).start().await.unwrap();
    views.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_log_when_it_is_called_is_waited_for() {
    let shop = Fixture::new();
    let views = shop.start().await;
    views.caught_up(shop.soon()).await.unwrap();
    shop.append("a", [AccountEvent::Opened, AccountEvent::Paid(3)]).await;
    views.caught_up(shop.soon()).await.unwrap();
    assert_eq!(shop.named::<Accounts>().await, pairs(&[("a", 3)]));
    shop.append("a", [AccountEvent::Refused]).await;
    let refused = views.caught_up(shop.soon()).await.unwrap_err();
    let said = refused.to_string();
    assert!(said.contains("before event `refused` at position 3") && said.contains("the domain says no"), "{said}");
    annals_eventstore::EventStore::close(&shop.store).await;
    let closed = views.caught_up(shop.soon()).await.unwrap_err();
    assert!(matches!(closed, crate::WaitError::HeadUnknown { cause: Some(_), .. }), "{closed}");
    assert!(closed.to_string().contains("the store handle is closed"), "{closed}");
    views.close().await;
}
