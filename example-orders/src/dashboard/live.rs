//! Open pages are told when something has changed, and ask for themselves again.
//!
//! There is one reader of the log for all of them, which runs as long as a page is open. It waits until the read models show what it
//! has read, and then says what it was about; each page has its own filter. So a page more costs a filter, and what it asks for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use annals::projections::{ProjectionState, ProjectionStatus, WaitError};
use annals::sagas::SagaInstances;
use annals::{EventStoreExt, Filter, Position, Projection, Projections, ReadError, StreamProjection, Tenant};
use axum::response::sse::{Event, Sse};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{Instant, interval, sleep, sleep_until, timeout, timeout_at};

use crate::dashboard::error::Trouble;
use crate::dashboard::query::Query;
use crate::dashboard::rooms::{Room, Rooms};
use crate::dashboard::state::Dashboard;
use crate::dashboard::topic::{Changed, Notice, Topic};
use crate::dashboard::visitor::Visitor;
use crate::domain::order::CustomerId;
use crate::read_models::analytics::ShopSales;
use crate::read_models::customers::Customers;
use crate::read_models::detail::OrderDetail;
use crate::read_models::list::OrderList;
use crate::service::app::App;
use crate::service::problem::Problem;

/// A page is about so many things at most.
const MOST_TOPICS: usize = 4;

/// How many notices wait for a page that is slow. One that misses some asks for itself as well.
const NOTICES: usize = 1_024;

/// How many events are taken together.
const BATCH: usize = 256;

/// The longest wait for the read models: pages are told of a read model that has stopped, too.
const WAIT: Duration = Duration::from_secs(2);

/// The states that are no events, such as those of breakers, are looked at so often.
const LOOK: Duration = Duration::from_secs(2);

/// A page says so often that it is connected still, and whether its session goes on is looked at.
const ALIVE: Duration = Duration::from_secs(5);

/// A page asks for itself at most so often; where a shop has many open, all of them together at most a hundred times a second.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_PER_PAGE: Duration = Duration::from_millis(10);

/// Tells open pages what changes.
pub struct Live {
    notices: broadcast::Sender<Notice>,
    rooms: Rooms,
    shared: Arc<Shared>,
    views: Projections,
}

/// What pages and the reader of the log tell each other.
struct Shared {
    /// A page was opened.
    opened: Notify,
    /// Whether the log is followed. Without open pages it is not.
    follows: watch::Sender<bool>,
}

impl Live {
    /// Follows the log of the shop for as long as a page is open.
    pub fn start(app: &App) -> Self {
        let (notices, _) = broadcast::channel(NOTICES);
        let shared = Shared { opened: Notify::new(), follows: watch::Sender::new(false) };
        let shared = Arc::new(shared);
        let follower = Follower { app: app.clone(), notices: notices.clone(), shared: shared.clone() };
        let live = Self { notices, rooms: Rooms::default(), shared, views: app.shop.views.clone() };
        let app = app.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = app.drain.begun() => {}
                () = follower.run() => {}
            }
        });
        live
    }

    /// Everything up to here is shown by the read models that go on.
    pub fn position(&self) -> i64 {
        position(&self.views)
    }
}

fn position(views: &Projections) -> i64 {
    views.status().iter().filter(|one| goes_on(one)).map(|one| one.position.get()).min().unwrap_or_default()
}

/// Whether it will show what it does not show yet. One that is paused or has failed will not before somebody does something.
fn goes_on(one: &ProjectionStatus) -> bool {
    matches!(one.state, ProjectionState::Live | ProjectionState::CatchingUp)
}

/// Waits for a read model, if it goes on.
async fn shown(views: &Projections, name: &str, wait: impl Future<Output = Result<(), WaitError>>) {
    if !views.status().iter().any(|one| *one.name == *name && goes_on(one)) {
        return;
    }
    if let Err(error) = wait.await {
        tracing::debug!(error = &error as &dyn std::error::Error, "a read model does not show an event");
    }
}

/// The one reader of the log.
struct Follower {
    app: App,
    notices: broadcast::Sender<Notice>,
    shared: Arc<Shared>,
}

impl Follower {
    async fn run(&self) {
        loop {
            while self.notices.receiver_count() == 0 {
                self.shared.opened.notified().await;
            }
            if let Err(error) = self.follow().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "open pages of the dashboard may be out of date"
                );
                sleep(LOOK).await;
            }
            self.shared.follows.send_replace(false);
        }
    }

    /// Until no page is open.
    async fn follow(&self) -> Result<(), ReadError> {
        let store = &self.app.shop.store;
        // Not from the end of the log: what is there and not shown yet is told when it is shown.
        let after = Position::new(position(&self.app.shop.views))?;
        let mut events = store.subscribe(after, Filter::all()).ready_chunks(BATCH);
        let mut look = interval(LOOK);
        self.shared.follows.send_replace(true);
        while self.notices.receiver_count() > 0 {
            let notice = tokio::select! {
                _ = look.tick() => Notice::Look,
                batch = events.next() => {
                    let batch = batch.into_iter().flatten().collect::<Result<Vec<_>, _>>()?;
                    let Some(last) = batch.last() else { return Ok(()) };
                    self.shown(last.position).await;
                    Notice::Streams(Arc::new(Changed::new(batch.into_iter().map(|event| event.stream).collect())))
                }
            };
            // The last page may have been closed just now.
            let _ = self.notices.send(notice);
        }
        Ok(())
    }

    /// Waits until what pages show has everything up to here.
    async fn shown(&self, position: Position) {
        let (views, sagas) = (&self.app.shop.views, self.app.checkouts.sagas.projections());
        tokio::join!(
            shown(views, <OrderList as StreamProjection>::NAME, views.wait_for_one::<OrderList>(position, WAIT)),
            shown(views, <OrderDetail as Projection>::NAME, views.wait_for_one::<OrderDetail>(position, WAIT)),
            shown(views, <ShopSales as Projection>::NAME, views.wait_for_one::<ShopSales>(position, WAIT)),
            shown(views, <Customers as Projection>::NAME, views.wait_for_one::<Customers>(position, WAIT)),
            shown(sagas, <SagaInstances as StreamProjection>::NAME, sagas.wait_for(position, WAIT)),
        );
    }
}

/// What a page asks for.
#[derive(Deserialize)]
pub struct LiveQuery {
    topics: String,
    /// Everything up to here is on the page.
    seen: i64,
}

/// An open page.
struct Open {
    dashboard: Dashboard,
    token: String,
    /// Nothing for those who run the service, who see all of them.
    shop: Option<Tenant>,
    /// Of a page of a customer: which one.
    customer: Option<CustomerId>,
    topics: Vec<Topic>,
    notices: broadcast::Receiver<Notice>,
    sent_at: Option<Instant>,
    /// When it was told anything.
    told_at: Instant,
    /// Whether something has changed between the making of the page and now.
    is_old: bool,
    /// Whether the page was told that its session has ended.
    has_ended: bool,
    room: Room,
}

/// The notices for a page, as events of the name `changed`; `alive` says that there is none, and that there is a service.
pub async fn events(
    visitor: Visitor,
    Query(LiveQuery { topics, seen }): Query<LiveQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Trouble> {
    let topics = topics.split(',').map(str::parse).collect::<Result<Vec<Topic>, Problem>>()?;
    if topics.len() > MOST_TOPICS {
        return Err(Problem::bad(
            "topic",
            format!("{} topics are named; a page has {MOST_TOPICS} at most", topics.len()),
        )
        .into());
    }
    for topic in &topics {
        topic.is_for(&visitor).await?;
    }
    let dashboard = visitor.dashboard.clone();
    let live = &dashboard.live;
    let full =
        || Problem::later("too-many-pages", "too many pages are open; close some, or wait until others are closed");
    let shop = Some(visitor.caller().tenant.clone()).filter(|_| !visitor.runs_the_service());
    let room = live.rooms.take(shop.clone(), visitor.caller().key.clone()).ok_or_else(full)?;
    let notices = live.notices.subscribe();
    live.shared.opened.notify_one();
    // What is shown from here on is told; what was shown before is found by the comparison.
    let mut follows = live.shared.follows.subscribe();
    let _ = timeout(WAIT, follows.wait_for(|follows| *follows)).await;
    let is_old = live.position() > seen;
    let open = Open {
        token: visitor.token.clone(),
        shop,
        customer: visitor.caller().customer.clone(),
        topics,
        notices,
        sent_at: None,
        told_at: Instant::now(),
        is_old,
        has_ended: false,
        room,
        dashboard,
    };
    let events = stream::unfold(open, |mut open| async move {
        let name = open.next().await?;
        Some((Ok(Event::default().event(name).data("")), open))
    });
    Ok(Sse::new(events))
}

impl Open {
    /// Waits until the page has to be made again, or for a while; `None` at the end of the session or of the service.
    async fn next(&mut self) -> Option<&'static str> {
        let drain = self.dashboard.app.drain.clone();
        tokio::select! {
            () = drain.begun() => None,
            name = self.notice() => name,
        }
    }

    async fn wants(&self, notice: &Notice) -> bool {
        for topic in &self.topics {
            if topic.wants(notice, &self.dashboard.app, self.shop.as_ref(), self.customer.as_ref()).await {
                return true;
            }
        }
        false
    }

    async fn notice(&mut self) -> Option<&'static str> {
        loop {
            if !self.dashboard.sessions.goes_on(&self.token) {
                // The page is told once more: it asks for itself, and is led to where one signs in.
                return (!std::mem::replace(&mut self.has_ended, true)).then_some("changed");
            }
            if std::mem::take(&mut self.is_old) {
                break;
            }
            let alive_at = self.told_at + ALIVE;
            if Instant::now() >= alive_at {
                self.told_at = Instant::now();
                return Some("alive");
            }
            match timeout_at(alive_at, self.notices.recv()).await {
                Ok(Ok(notice)) => self.is_old = self.wants(&notice).await,
                // Some were missed, and one of them may have been for this page.
                Ok(Err(RecvError::Lagged(_))) => self.is_old = true,
                Ok(Err(RecvError::Closed)) => return None,
                Err(_) => {}
            }
        }
        if let Some(sent_at) = self.sent_at {
            let pages = u32::try_from(self.room.beside()).unwrap_or(u32::MAX);
            sleep_until(sent_at + PAUSE.max(PAUSE_PER_PAGE.saturating_mul(pages))).await;
        }
        // The page will have those, too.
        while !matches!(self.notices.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
        self.told_at = Instant::now();
        self.sent_at = Some(self.told_at);
        Some("changed")
    }
}
