//! Lesser answers: each says that it is one, and none is given where a better one is to be had.

use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use annals::resilience::bulkhead::Pools;
use annals::resilience::toggle::Toggle;
use annals::resilience::{Deadline, Policy};
use annals::{Context, Position, ProjectionsExt, Tenant, prelude::*};
use example_orders::degradation::{
    AnsweredBy, Lanes, Notifications, Page, Pages, Preferences, PreferencesOf, Recommendations, Theme, Toggles,
};
use example_orders::domain::order::{Order, OrderCommand};
use example_orders::services::{Faults, Kind, Server};
use tokio::sync::Barrier;

use crate::{cart, order, shop};

fn down() -> Error {
    Error::from(ErrorKind::ConnectionRefused)
}

fn at(position: i64) -> Position {
    Position::new(position).expect("a position")
}

#[tokio::test]
async fn a_page_that_is_older_than_the_client_has_seen_says_so() {
    let lanes = Lanes::new(&Pools::default()).expect("they work");
    let toggle = Toggle::new("stale-pages", true);
    let pages = Pages::<&str, u32>::new(lanes.query, toggle.clone()).expect("they work");
    let read = |position| async move { Ok::<_, Error>(Page { value: 1, position: at(position) }) };
    let fails = |_| async { Err::<Page<u32>, _>(down()) };
    let (shop, other) = (shop(), Tenant::new("south").expect("a tenant"));

    let page = pages.get(&shop, &"all", Some(at(5)), Deadline::NONE, |_| read(5)).await.expect("read");
    assert_eq!((page.stale_seconds, page.older_than_asked), (None, false));
    // What is kept is never given while it can be read.
    let page = pages.get(&shop, &"all", Some(at(7)), Deadline::NONE, |_| read(7)).await.expect("read");
    assert_eq!((page.position, page.stale_seconds, page.older_than_asked), (at(7), None, false));

    let stale = pages.get(&shop, &"all", Some(at(7)), Deadline::NONE, fails).await.expect("the last one");
    assert!(stale.stale_seconds.is_some() && !stale.older_than_asked, "{stale:?}");
    let older = pages.get(&shop, &"all", Some(at(8)), Deadline::NONE, fails).await.expect("the last one");
    assert!(older.stale_seconds.is_some() && older.older_than_asked, "{older:?}");
    // Of another shop, of another question, or switched off: an error is an error.
    assert!(pages.get(&other, &"all", None, Deadline::NONE, fails).await.is_err());
    assert!(pages.get(&shop, &"paid", None, Deadline::NONE, fails).await.is_err());
    toggle.set(false, "kim");
    assert!(pages.get(&shop, &"all", None, Deadline::NONE, fails).await.is_err());
}

#[tokio::test]
async fn who_waits_for_the_page_of_another_and_has_seen_more_gets_a_page_of_their_own() {
    let lanes = Lanes::new(&Pools::default()).expect("they work");
    let pages = Pages::<&str, u32>::new(lanes.query, Toggle::new("stale-pages", true)).expect("they work");
    let (begun, head, reads) = (Barrier::new(2), AtomicI64::new(5), AtomicU32::new(0));
    let shop = shop();
    let slow = pages.get(&shop, &"all", None, Deadline::NONE, |_| async {
        reads.fetch_add(1, Ordering::Relaxed);
        let position = at(head.load(Ordering::Relaxed));
        begun.wait().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok::<_, Error>(Page { value: 1, position })
    });
    let later = async {
        begun.wait().await;
        head.store(9, Ordering::Relaxed);
        let read = |_| async {
            reads.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Error>(Page { value: 2, position: at(head.load(Ordering::Relaxed)) })
        };
        pages.get(&shop, &"all", Some(at(9)), Deadline::NONE, read).await
    };
    let (first, second) = tokio::join!(slow, later);
    assert_eq!(first.expect("read").position, at(5));
    let second = second.expect("read");
    assert_eq!((second.position, second.older_than_asked, second.stale_seconds), (at(9), false, None));
    assert_eq!(reads.into_inner(), 2);
}

#[tokio::test]
async fn reports_that_take_all_their_slots_keep_nobody_from_ordering_or_looking() {
    let lanes = Lanes::new(&Pools { query: 2, command: 1, reporting: 1 }).expect("they work");
    let gate = Barrier::new(2);
    let report = lanes.reporting.idempotent(|_| async {
        gate.wait().await;
        gate.wait().await;
        Ok::<_, Error>(())
    });
    let others = async {
        gate.wait().await;
        let ok = |policy: Policy| async move { policy.idempotent(|_| async { Ok::<_, Error>(()) }).await };
        assert!(ok(lanes.query.clone()).await.is_ok());
        assert!(ok(lanes.command.clone()).await.is_ok());
        assert!(ok(lanes.reporting.clone()).await.is_err(), "its one slot is taken");
        gate.wait().await;
    };
    let (report, ()) = tokio::join!(report, others);
    report.expect("made");
}

#[tokio::test(start_paused = true)]
async fn a_shop_whose_reads_take_too_long_takes_no_slot_of_another_and_opens_no_breaker_but_its_own() {
    let shops = [shop(), Tenant::new("south").expect("a tenant")];
    let lanes = Lanes::of(&Pools::default(), &shops).expect("they work");
    let pages = Pages::<u32, u32>::new(lanes.reads.clone(), Toggle::new("stale-pages", true)).expect("they work");
    let hangs = |number| {
        let read = |_| std::future::pending::<Result<Page<u32>, Error>>();
        let (pages, shop) = (&pages, &shops[0]);
        async move { pages.get(shop, &number, None, Deadline::NONE, read).await }
    };
    let reads = async |number| {
        let read = |_| async { Ok::<_, Error>(Page { value: 1, position: at(5) }) };
        pages.get(&shops[1], &number, None, Deadline::NONE, read).await
    };
    let all = futures::future::join_all((0..100).map(hangs));
    let others = async {
        for number in 0..20 {
            reads(number).await.expect("its slots are its own");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::join!(all, others);
    while lanes.reads.of(&shops[0]).breaker().check().is_ok() {
        assert!(hangs(7).await.is_err());
    }
    assert!(reads(99).await.is_ok() && lanes.reads.of(&shops[1]).breaker().check().is_ok());
    assert_eq!(lanes.reads.all().count(), 3);
}

#[tokio::test]
async fn preferences_and_recommendations_fall_back_to_defaults_and_switches_outlast_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("orders.db");
    let store = annals::sqlite(&file).await.expect("a store");
    let toggles = Toggles::open(&store).await.expect("opened");
    let lanes = Lanes::new(&Pools::default()).expect("they work");
    let toggle = |name| toggles.get(name).expect("there is one").clone();
    let preferences = PreferencesOf::new(&store, &lanes.query, toggle(Toggles::PREFERENCES)).expect("they work");
    let alice = cart(1, 1).customer;
    let given = preferences.get(&shop(), &alice, Deadline::NONE).await;
    assert_eq!((given.value, given.from), (Preferences::default(), AnsweredBy::Source));
    let dark = Preferences { theme: Theme::Dark, language: "de".to_owned(), ..Preferences::default() };
    preferences.set(Context::of(shop()), &alice, dark.clone()).await.expect("stored");
    assert_eq!(preferences.get(&shop(), &alice, Deadline::NONE).await.value, dark, "what was kept is forgotten");
    let south = Tenant::new("south").expect("a tenant");
    assert_eq!(preferences.get(&south, &alice, Deadline::NONE).await.value, Preferences::default(), "of another shop");

    let tips = Recommendations::new(store.clone(), &lanes.reporting, toggle(Toggles::RECOMMENDATIONS));
    let tips = tips.expect("they work");
    let orders = store.aggregate::<Order>();
    for (number, quantity, product) in [(1, 2, "grinder"), (2, 5, "kettle"), (3, 2, "cup")] {
        let mut cart = cart(number, quantity);
        cart.lines[0].product = product.to_owned();
        let place = OrderCommand::Place { customer: cart.customer, lines: cart.lines };
        orders.send(&order(number), place).await.expect("placed");
    }
    assert_eq!(tips.get(&shop(), Deadline::NONE).await.value, ["kettle", "cup", "grinder"]);

    for name in [Toggles::PREFERENCES, Toggles::RECOMMENDATIONS] {
        toggles.set(Context::default(), name, false, "kim", "they are slow").await.expect("set");
    }
    assert!(toggles.set(Context::default(), "no-such", false, "kim", "x").await.is_err());
    assert_eq!(preferences.get(&shop(), &alice, Deadline::NONE).await.from, AnsweredBy::Default);
    assert_eq!(tips.get(&shop(), Deadline::NONE).await.from, AnsweredBy::Default);
    store.close().await;

    // The next process, whose store is gone soon.
    let store = annals::sqlite(&file).await.expect("a store");
    let toggles = Toggles::open(&store).await.expect("opened");
    assert_eq!(toggles.all().values().filter(|on| !**on).count(), 2, "{:?}", toggles.all());
    toggles.set(Context::default(), Toggles::PREFERENCES, true, "kim", "they are quick again").await.expect("set");
    let toggle = toggles.get(Toggles::PREFERENCES).expect("there is one").clone();
    let preferences = PreferencesOf::new(&store, &lanes.query, toggle).expect("they work");
    store.close().await;
    let given = preferences.get(&shop(), &alice, Deadline::NONE).await;
    assert_eq!((given.value, given.from), (Preferences::default(), AnsweredBy::Default));
}

#[tokio::test]
async fn each_message_is_sent_once_although_the_service_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = annals::sqlite(folder.path().join("orders.db")).await.expect("a store");
    let server = Server::start(Kind::Notification, folder.path(), 0).await.expect("it starts");
    let toggle = Toggle::new(Toggles::NOTIFICATIONS, true);
    let notifications = Notifications::new(Notifications::client(&server.url).expect("it works"), toggle.clone());
    let views = store.projections().react(notifications).start().await.expect("they start");
    let orders = store.aggregate::<Order>();
    server.faults.set(Faults { errors: 0.2, ..Faults::default() });
    for number in 0..5 {
        let cart = cart(number, 1);
        let place = OrderCommand::Place { customer: cart.customer, lines: cart.lines };
        orders.send(&order(number), place).await.expect("placed");
        let cancel = OrderCommand::Cancel { reason: "too dear".to_owned() };
        orders.send(&order(number), cancel).await.expect("cancelled");
    }
    handled(&store, &views).await;
    let sums = server.sums(&shop()).await.expect("read");
    assert_eq!((sums.entries, sums.made), (10, 10));
    // While they are switched off, messages are left out.
    toggle.set(false, "kim");
    let cart = cart(9, 1);
    let place = OrderCommand::Place { customer: cart.customer, lines: cart.lines };
    orders.send(&order(9), place).await.expect("placed");
    handled(&store, &views).await;
    assert_eq!(server.sums(&shop()).await.expect("read").entries, 10);
    views.close().await;
    server.stop().await;
}

/// Waits until the reactor has handled what there is.
async fn handled(store: &annals::SqliteStore, views: &annals::Projections) {
    let (head, until) = (store.head().await.expect("read").position, Instant::now() + Duration::from_secs(30));
    while views.reactors().iter().any(|reactor| reactor.position < head) {
        assert!(Instant::now() < until, "{:?}", views.reactors());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
