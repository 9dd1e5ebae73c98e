//! A changed projection is deployed: an old and a new build side by side, in every order of starts and ends.

use std::time::Duration;

use annals_eventstore::{Event, Position, Recorded, Tenant};
use annals_macros::{Event, ReadModel};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::accounts::{AccountEvent, Accounts};
use super::fixture::{Doubled, Fixture, OfTenant, pairs, said, until_at};
use super::troubled::Trouble;
use crate::{Projection, ProjectionError, Projections, Rows, WaitError};

/// Long enough for a runner that is at work, short enough to wait in vain.
const BRIEFLY: Duration = Duration::from_millis(300);

/// [`Accounts`] with a column more, under the next version.
#[derive(ReadModel, Clone)]
#[read_model(table = "accounts", key = "id")]
struct Noted {
    id: String,
    cents: i64,
    share: f64,
    note: Option<String>,
    next: Option<String>,
    touched: Timestamp,
}

struct WithNotes;

impl Projection for WithNotes {
    type Event = AccountEvent;
    type Row = Noted;
    const VERSION: u32 = 2;

    fn apply(&self, event: &Recorded<AccountEvent>, rows: &mut Rows<Noted>) -> Result<(), ProjectionError> {
        let AccountEvent::Paid(cents) = event.event else { return Ok(()) };
        let id = event.stream.aggregate_id().to_owned();
        let new = || Noted {
            id: id.clone(),
            cents: 0,
            share: 0.0,
            note: Some("paid".to_owned()),
            next: None,
            touched: event.recorded_at,
        };
        rows.get_or_insert_with(&id, new)?.cents += cents;
        Ok(())
    }
}

async fn pay(shop: &Fixture) -> Position {
    shop.append("a", [AccountEvent::Paid(1)]).await
}

async fn old(shop: &Fixture) -> Projections {
    shop.start().await
}

async fn new(shop: &Fixture) -> Projections {
    shop.projections().with(WithNotes).start().await.unwrap()
}

/// Waits until the stable name shows a version.
async fn until_shown<P: Projection>(shop: &Fixture, version: u32) {
    let shown = async {
        while shop.shown::<P>().await != Some(version) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(shop.soon(), shown).await.expect("it is switched");
}

pub(super) async fn an_old_build_that_starts_beside_a_newer_one_leaves_it_the_name(shop: Fixture) {
    let beside = shop.beside();
    let newer = new(&shop).await;
    newer.wait_for(pay(&shop).await, shop.soon()).await.unwrap();
    let older = old(&beside).await;
    for _ in 0..3 {
        let position = pay(&shop).await;
        older.wait_for(position, shop.soon()).await.unwrap();
        newer.wait_for(position, shop.soon()).await.unwrap();
    }
    assert_eq!(shop.shown::<Accounts>().await, Some(2));
    assert_eq!(shop.named::<WithNotes>().await, pairs(&[("a", 4)]));
    older.close().await;
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 4)]), "the old build feeds its own table quietly");
    // Nor by a restart, when the newer one is away.
    newer.close().await;
    let older = old(&beside).await;
    pay(&shop).await;
    tokio::time::sleep(BRIEFLY).await;
    assert_eq!(shop.shown::<Accounts>().await, Some(2));
    older.close().await;
}

pub(super) async fn a_version_that_took_the_name_over_keeps_it_when_the_old_build_restarts(shop: Fixture) {
    let beside = shop.beside();
    let older = old(&shop).await;
    older.wait_for(pay(&shop).await, shop.soon()).await.unwrap();
    let newer = new(&beside).await;
    until_shown::<Accounts>(&shop, 2).await;
    older.close().await;
    let older = old(&shop).await;
    let position = pay(&shop).await;
    older.wait_for(position, shop.soon()).await.unwrap();
    assert_eq!(shop.named::<WithNotes>().await, pairs(&[("a", 2)]));
    older.close().await;
    assert_eq!(shop.shown::<Accounts>().await, Some(2));
    newer.close().await;
}

pub(super) async fn a_wait_ends_when_the_name_shows_the_event_and_not_before(shop: Fixture) {
    let older = old(&shop).await;
    older.wait_for(pay(&shop).await, shop.soon()).await.unwrap();
    older.close().await;
    let position = pay(&shop).await;
    shop.models.trouble_shows(vec![Some(Trouble::Passing); 2]);
    let newer = new(&shop).await;
    let error = newer.wait_for(position, BRIEFLY).await.unwrap_err();
    assert!(matches!(error, WaitError::TimedOut { .. }), "{error}");
    newer.wait_for(position, shop.soon()).await.unwrap();
    assert_eq!(shop.named::<WithNotes>().await, pairs(&[("a", 2)]));
    newer.close().await;
}

/// How far the old build had read what a failover has lost is no measure for the new build.
pub(super) async fn a_version_built_from_events_that_are_lost_gives_the_name_up(shop: Fixture) {
    let [shop, anew] = shop.with_two_histories();
    let older = old(&shop).await;
    for _ in 0..3 {
        older.wait_for(pay(&shop).await, shop.soon()).await.unwrap();
    }
    older.close().await;
    pay(&anew).await;
    let newer = new(&anew).await;
    until_shown::<WithNotes>(&anew, 2).await;
    assert_eq!(anew.named::<WithNotes>().await, pairs(&[("a", 1)]));
    newer.close().await;
}

pub(super) async fn a_wait_for_a_version_that_nobody_feeds_says_so(shop: Fixture) {
    let beside = shop.beside();
    let older = old(&shop).await;
    older.wait_for(pay(&shop).await, shop.soon()).await.unwrap();
    assert_eq!(older.progress().await.unwrap()[0].elsewhere, None);
    let newer = new(&beside).await;
    until_shown::<Accounts>(&shop, 2).await;
    newer.close().await;
    let position = pay(&shop).await;
    until_at(&older, position).await;
    let progress = older.progress().await.unwrap().remove(0);
    assert!(progress.position < position, "queries do not see it: {progress:?}");
    let elsewhere = progress.elsewhere.expect("the name shows another version");
    assert_eq!((elsewhere.version, elsewhere.here, elsewhere.here_position), (2, 1, position));
    let error = older.wait_for(position, BRIEFLY).await.unwrap_err();
    let message = said(&error);
    assert!(message.contains("`accounts` shows version 2"), "{message}");
    assert!(message.contains("start it again, or show version 1 by `Projections::show`"), "{message}");
    let newer = new(&beside).await;
    older.wait_for(position, shop.soon()).await.unwrap();
    assert_eq!(shop.named::<WithNotes>().await, pairs(&[("a", 2)]));
    newer.close().await;
    older.close().await;
}

#[derive(Event, Serialize, Deserialize, Clone)]
enum Sent {
    #[event(name = "bill.sent")]
    Sent { cents: i64 },
}

#[derive(Event, Serialize, Deserialize, Clone)]
enum SentOrCredited {
    #[event(name = "bill.credited")]
    Credited { cents: i64 },
    #[event(name = "bill.sent")]
    Sent { cents: i64 },
}

#[derive(ReadModel, Clone)]
#[read_model(table = "bills", key = "id")]
struct Bill {
    id: String,
    cents: i64,
}

macro_rules! bills {
    ($type:ident, $event:ident, $version:expr) => {
        struct $type;

        impl Projection for $type {
            type Event = $event;
            type Row = Bill;
            const VERSION: u32 = $version;

            fn apply(&self, event: &Recorded<$event>, rows: &mut Rows<Bill>) -> Result<(), ProjectionError> {
                let id = event.stream.aggregate_id().to_owned();
                let cents = event.event.cents();
                rows.get_or_insert_with(&id, || Bill { id: id.clone(), cents: 0 })?.cents += cents;
                Ok(())
            }
        }
    };
}

impl Sent {
    fn cents(&self) -> i64 {
        let Self::Sent { cents } = self;
        *cents
    }
}

impl SentOrCredited {
    fn cents(&self) -> i64 {
        match self {
            Self::Sent { cents } => *cents,
            Self::Credited { cents } => -cents,
        }
    }
}

bills!(SentAlone, Sent, 1);
bills!(Both, SentOrCredited, 1);
bills!(BothRaised, SentOrCredited, 2);

pub(super) async fn an_event_that_a_projection_learns_needs_a_raised_version(shop: Fixture) {
    assert_eq!(Sent::SHAPES.len(), 1);
    let views = shop.projections().with(SentAlone).start().await.unwrap();
    shop.append_raw("a", "bill.sent", "{\"cents\":100}").await;
    let position = shop.append_raw("a", "bill.credited", "{\"cents\":30}").await;
    views.wait_for(position, shop.soon()).await.unwrap();
    views.close().await;
    let error = shop.projections().with(Both).start().await.expect_err("it must be refused");
    assert_eq!(
        said(&error),
        "projection `bills` was built as version 1 from other events: `bill.credited` is new; \
         raise its `VERSION` to build it anew"
    );
    let views = shop.projections().with(BothRaised).start().await.unwrap();
    until_shown::<BothRaised>(&shop, 2).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    assert_eq!(shop.named::<BothRaised>().await, pairs(&[("a", 70)]));
    views.close().await;
    shop.projections().with(SentAlone).start().await.expect("the old build continues").close().await;
}

pub(super) async fn another_tenant_needs_a_raised_version(shop: Fixture) {
    let of = |name: &str| OfTenant(Tenant::new(name).unwrap());
    let views = shop.projections().with(of("north")).start().await.unwrap();
    views.close().await;
    for (refused, declared) in [
        (shop.projections().with(of("south")).start().await, "of tenant `south`"),
        (shop.projections().with(Accounts).start().await, "of all tenants"),
    ] {
        let error = refused.expect_err("it must be refused");
        assert_eq!(
            said(&error),
            format!(
                "projection `accounts` was built as version 1 from the events of tenant `north`, but now wants those \
                 {declared}; raise its `VERSION` to build it anew"
            )
        );
    }
    shop.projections().with(of("north")).start().await.expect("nothing has changed").close().await;
    let views = shop.projections().with(Doubled).start().await.expect("the version is raised");
    views.close().await;
}

/// [`WithNotes`] under a version of its own.
struct Third;

impl Projection for Third {
    type Event = AccountEvent;
    type Row = Noted;
    const VERSION: u32 = 3;

    fn apply(&self, event: &Recorded<AccountEvent>, rows: &mut Rows<Noted>) -> Result<(), ProjectionError> {
        WithNotes.apply(event, rows)
    }
}

pub(super) async fn the_name_goes_down_only_on_request_and_stays_there(shop: Fixture) {
    let beside = shop.beside();
    let older = old(&shop).await;
    older.wait_for(pay(&shop).await, shop.soon()).await.unwrap();
    let newer = new(&beside).await;
    until_shown::<Accounts>(&shop, 2).await;
    older.show::<Accounts>(shop.soon()).await.unwrap();
    assert_eq!(shop.shown::<Accounts>().await, Some(1));
    newer.close().await;
    let newer = new(&beside).await;
    let position = pay(&shop).await;
    newer.wait_for(position, shop.soon()).await.unwrap();
    older.wait_for(position, shop.soon()).await.unwrap();
    assert_eq!(shop.named::<Accounts>().await, pairs(&[("a", 2)]));
    tokio::time::sleep(BRIEFLY).await;
    assert_eq!(
        shop.shown::<Accounts>().await,
        Some(1),
        "the version that was taken back does not come again by itself"
    );
    assert_eq!(shop.rows::<WithNotes>().await, pairs(&[("a", 2)]), "and is fed all the same");
    newer.show::<WithNotes>(shop.soon()).await.unwrap();
    assert_eq!(shop.shown::<Accounts>().await, Some(2));
    older.show::<Accounts>(shop.soon()).await.unwrap();
    newer.close().await;
    let newest = beside.projections().with(Third).start().await.unwrap();
    until_shown::<Accounts>(&shop, 3).await;

    // A version that is behind does not get the name: what a wait has promised stays true.
    let held = shop.models.hold_commits().await;
    let position = pay(&shop).await;
    newest.wait_for(position, shop.soon()).await.unwrap();
    let error = older.show::<Accounts>(BRIEFLY).await.unwrap_err();
    assert_eq!(
        said(&error),
        "after 300ms `accounts` does not show version 1 of projection `accounts` yet: version 1 is at 2, and what is shown \
         at 3; try again"
    );
    assert_eq!(shop.named::<Third>().await, pairs(&[("a", 3)]));
    drop(held);
    older.show::<Accounts>(shop.soon()).await.unwrap();
    assert_eq!(shop.named::<Accounts>().await, pairs(&[("a", 3)]));
    newest.close().await;
    older.close().await;
}

/// An old build starts or ends (`a`), so does a new one (`b`), the old one asks for the name (`A`), or the new one (`B`). After
/// each step the name shows what it should, and a wait promises what a query by the name then sees.
async fn go_through(shop: &Fixture, steps: &str) {
    let beside = shop.beside();
    let (mut older, mut newer): (Option<Projections>, Option<Projections>) = (None, None);
    let (mut shows, mut highest, mut cents) = (0, 0, 0);
    for (at, step) in steps.char_indices() {
        match step {
            'a' => match older.take() {
                Some(views) => views.close().await,
                None => older = Some(old(shop).await),
            },
            'b' => match newer.take() {
                Some(views) => views.close().await,
                None => newer = Some(new(&beside).await),
            },
            'A' => {
                let Some(views) = &older else { continue };
                views.show::<Accounts>(shop.soon()).await.unwrap();
                shows = 1;
            }
            _ => {
                let Some(views) = &newer else { continue };
                views.show::<WithNotes>(shop.soon()).await.unwrap();
                shows = 2;
            }
        }
        // A version takes the name by itself if it is higher than all before.
        for (version, runs) in [(1, older.is_some()), (2, newer.is_some())] {
            if runs && version > highest {
                until_shown::<Accounts>(shop, version).await;
                (shows, highest) = (version, version);
            }
        }
        let position = pay(shop).await;
        cents += 1;
        let fed = if shows == 1 { older.is_some() } else { newer.is_some() };
        for views in older.iter().chain(&newer) {
            let waited = views.wait_for(position, if fed { shop.soon() } else { BRIEFLY }).await;
            assert_eq!(waited.is_ok(), fed, "{steps}, step {at}: {waited:?}");
            if fed {
                assert_eq!(shop.named::<Accounts>().await, pairs(&[("a", cents)]), "{steps}, step {at}");
            }
        }
        let shown = shop.shown::<Accounts>().await;
        assert_eq!(shown.unwrap_or_default(), shows, "{steps}, step {at}");
    }
    for views in older.iter().chain(&newer) {
        views.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn in_every_order_of_starts_and_ends_a_wait_promises_what_the_name_shows() {
    for order in 0..4_usize.pow(5) {
        let steps: String = (0..5).map(|step| char::from(b"abAB"[order / 4_usize.pow(step) % 4])).collect();
        go_through(&Fixture::new(), &steps).await;
    }
}

pub(super) async fn old_starts_first_and_both_start_again(shop: Fixture) {
    go_through(&shop, "abaabba").await;
}

pub(super) async fn new_starts_first_and_ends_before_the_old(shop: Fixture) {
    go_through(&shop, "babab").await;
}

pub(super) async fn old_ends_before_new_starts_and_takes_the_name_back(shop: Fixture) {
    go_through(&shop, "aabaAbbBA").await;
}
