//! The runner over a store that keeps the contract no better than it must: short pages, pages without events, wakes that
//! get lost, a panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use annals_eventstore::{After, EventStore, Filter, Page, Position, ReadError, Tenant, forward_event_store};
use async_trait::async_trait;
use tokio::sync::watch;

use super::accounts::{AccountEvent, Accounts};
use super::fixture::{Counts, Doubled, Fixture, OfTenant, not_running, pairs, until_at};
use crate::error::StopCause;

#[derive(Clone)]
pub(super) struct MinimalStore {
    shop: Fixture,
    /// How many events of the log one page looks at, at most.
    most: usize,
    /// Whether only a page without events says that it is the last.
    late_end: bool,
    /// What nobody ever announces new events by.
    never_woken: Option<Arc<watch::Sender<Position>>>,
    /// How many events are appended by somebody else between a look at the end of the log and its answer.
    rivals: Arc<AtomicU64>,
    /// Reads that begin before this position panic.
    panics_before: Arc<AtomicI64>,
}

impl MinimalStore {
    /// One whose pages look at so many events at most.
    pub(super) fn of_pages(shop: &Fixture, most: usize) -> Self {
        Self { most, ..Self::over(shop) }
    }

    fn over(shop: &Fixture) -> Self {
        Self {
            shop: shop.clone(),
            most: usize::MAX,
            late_end: false,
            never_woken: None,
            rivals: Arc::default(),
            panics_before: Arc::default(),
        }
    }
}

#[async_trait]
impl EventStore for MinimalStore {
    forward_event_store!(self => self.shop.store; except read_page, watch);

    async fn read_page(&self, after: After, filter: &Filter, limit: usize) -> Result<Page, ReadError> {
        assert!(after.position.get() >= self.panics_before.load(Ordering::Acquire), "the store has a fault");
        // Looks at a few events, whether the filter wants them or not.
        let mut page = self.shop.store.read_page(after, &Filter::all(), limit.min(self.most)).await?;
        page.events.retain(|event| filter.matches(event));
        page.end &= !self.late_end || page.checkpoint.is_none();
        let take_one = |left: u64| left.checked_sub(1);
        if page.end && self.rivals.fetch_update(Ordering::AcqRel, Ordering::Acquire, take_one).is_ok() {
            self.shop.append("rival", [AccountEvent::Paid(1)]).await;
        }
        Ok(page)
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.never_woken.as_ref().map_or_else(|| self.shop.store.watch(), |never| never.subscribe())
    }
}

/// Some events that are wanted, many that are not, and one more that is.
async fn fill(shop: &Fixture) -> Position {
    for id in ["a", "b", "a"] {
        shop.append(id, [AccountEvent::Paid(2), AccountEvent::Paid(3)]).await;
    }
    for _ in 0..40 {
        shop.append_raw("x", "somebody.elses", "1").await;
    }
    shop.append("b", [AccountEvent::Paid(7)]).await
}

#[tokio::test(start_paused = true)]
async fn short_and_empty_pages_lose_and_double_nothing() {
    for most in [1, 2, 3, 5] {
        let shop = Fixture::new();
        let last = fill(&shop).await;
        let store = MinimalStore { most, ..MinimalStore::over(&shop) };
        let views = shop.over(store).with(Accounts).with(Counts).start().await.unwrap();
        views.wait_for(last, shop.soon()).await.unwrap();
        let later = shop.append("a", [AccountEvent::Paid(1)]).await;
        views.wait_for(later, shop.soon()).await.unwrap();
        until_at(&views, later).await;
        assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 11), ("b", 12)]));
        assert_eq!(shop.rows::<Counts>().await, pairs(&[("a", 5), ("b", 3)]));
        assert!(views.status().iter().all(|status| status.applied == 8), "{:?}", views.status());
    }
}

/// A store may learn that a page was the last only from the next one, which has nothing.
#[tokio::test(start_paused = true)]
async fn a_last_page_without_events_loses_nothing_of_those_before_it() {
    let shop = Fixture::new();
    let last = fill(&shop).await;
    let store = MinimalStore { late_end: true, ..MinimalStore::over(&shop) };
    let views = shop.over(store).with(Accounts).start().await.unwrap();
    views.wait_for(last, shop.soon()).await.unwrap();
    let last = shop.append("a", [AccountEvent::Paid(1)]).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 11), ("b", 12)]));
}

#[tokio::test(start_paused = true)]
async fn a_raised_version_is_shown_once_and_not_before_the_last_event() {
    let shop = Fixture::new();
    let views = shop.start().await;
    let last = fill(&shop).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    views.close().await;
    let store = MinimalStore { most: 1, ..MinimalStore::over(&shop) };
    let views = shop.over(store).with(Doubled).start().await.unwrap();
    views.wait_for(last, shop.soon()).await.unwrap();
    for _ in 0..5 {
        let last = shop.append("a", [AccountEvent::Paid(1)]).await;
        views.wait_for(last, shop.soon()).await.unwrap();
    }
    assert_eq!(shop.shown::<Accounts>().await, Some(2));
    assert_eq!(shop.models.shown_at(), [last.get()], "where the version was each time that it was shown");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_comes_between_a_look_and_the_wait_is_applied_at_once() {
    let shop = Fixture::new();
    let store = MinimalStore::over(&shop);
    let views = shop.over(store.clone()).with(Accounts).start().await.unwrap();
    for n in 1..=20 {
        store.rivals.store(1, Ordering::Release);
        shop.append("a", [AccountEvent::Paid(1)]).await;
        views.wait_for(Position::new(2 * n).unwrap(), shop.soon()).await.unwrap();
    }
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 20), ("rival", 20)]));
}

#[tokio::test(start_paused = true)]
async fn wakes_that_get_lost_cost_a_few_seconds_and_no_more() {
    let shop = Fixture::new();
    let store =
        MinimalStore { never_woken: Some(Arc::new(watch::Sender::new(Position::START))), ..MinimalStore::over(&shop) };
    let views = shop.over(store).with(Accounts).start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    for _ in 0..3 {
        let last = shop.append("a", [AccountEvent::Paid(1)]).await;
        views.wait_for(last, Duration::from_secs(6)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_projection_that_has_caught_up_with_others_still_gets_what_they_do_not_want() {
    let shop = Fixture::new();
    for _ in 0..2 {
        shop.append("a", (0..8_000).map(|_| AccountEvent::Paid(1))).await;
    }
    let of_one = || OfTenant(Tenant::default());
    let views = shop.projections().with(of_one()).start().await.unwrap();
    let ahead = shop.append("a", [AccountEvent::Paid(1)]).await;
    views.wait_for(ahead, shop.soon()).await.unwrap();
    views.close().await;
    // One follows the log of its tenant from the start, the other catches up with all tenants and joins.
    let views = shop.projections().with(of_one()).with(Counts).start().await.unwrap();
    views.wait_for(ahead, shop.soon()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let south = Tenant::new("south").unwrap();
    let last = shop.append_of(south, "z", [AccountEvent::Paid(5)]).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<Counts>().await, pairs(&[("a", 16_001), ("z", 1)]));
    assert_eq!(shop.rows::<OfTenant>().await, pairs(&[("a", 16_001)]));
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_the_runner_stops_everything_and_says_so() {
    let shop = Fixture::new();
    for _ in 0..2 {
        shop.append("a", (0..8_000).map(|_| AccountEvent::Paid(1))).await;
    }
    let views = shop.start().await;
    let ahead = shop.append("a", [AccountEvent::Paid(1)]).await;
    views.wait_for(ahead, shop.soon()).await.unwrap();
    views.close().await;
    // The pass that catches up panics; the other one follows the log.
    let store = MinimalStore::over(&shop);
    store.panics_before.store(16_001, Ordering::Release);
    let views = shop.over(store).with(Accounts).with(Counts).start().await.unwrap();
    let stopped = views.stopped().await.unwrap_err();
    assert!(
        matches!(&*stopped.cause, StopCause::Runner(what) if what.contains("the store has a fault")),
        "{stopped:?}"
    );
    shop.append("a", [AccountEvent::Paid(1)]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(not_running(&views).len(), 2, "{:?}", views.status());
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 16_001)]), "what is stopped applies nothing");
}
