//! What all pages share.

use std::ops::Deref;
use std::sync::Arc;

use annals::resilience::SettingsError;
use annals::resilience::health::Health;
use annals::resilience::rate_limit::{RateLimit, RateLimiter};
use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;

use crate::dashboard::breakers::Breakers;
use crate::dashboard::hour::{self, Hour};
use crate::dashboard::live::Live;
use crate::dashboard::router;
use crate::dashboard::sessions::Sessions;
use crate::service::app::App;
use crate::service::problem::Problem;

/// So many pages a second are made for a key, and so many at once after a pause: twice what the open pages of a shop ask
/// for by themselves, where all of them are of one key.
const PAGES: u32 = 200;
const PAGES_AT_ONCE: u32 = 400;

/// The dashboard; a clone is the same one.
#[derive(Clone)]
pub struct Dashboard(Arc<Parts>);

/// What it is made of.
pub struct Parts {
    pub app: App,
    pub sessions: Sessions,
    pub live: Live,
    pub hour: Arc<Hour>,
    pub breakers: Breakers,
    /// So many pages may be asked for with a key.
    pages: RateLimiter<Arc<str>>,
    /// So much may come from a shop.
    pub limits: RateLimit,
    pub health: Health,
}

impl Dashboard {
    /// Begins to follow the log.
    ///
    /// # Errors
    /// The limit of pages is none.
    pub fn start(app: App, limits: RateLimit, health: Health) -> Result<Self, SettingsError> {
        let live = Live::start(&app);
        let hour = Arc::new(Hour::default());
        let (looks, of) = (hour.clone(), app.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = of.drain.begun() => {}
                () = looks.look(&of) => {}
            }
        });
        let (sessions, breakers) = (Sessions::default(), Breakers::follow(&app));
        let pages =
            RateLimiter::new("pages", RateLimit { burst: Some(PAGES_AT_ONCE), ..RateLimit::per_second(PAGES) })?;
        Ok(Self(Arc::new(Parts { app, sessions, live, hour, breakers, pages, limits, health })))
    }

    /// Counts a page of a key.
    ///
    /// # Errors
    /// The key has asked for too many.
    pub fn count_page(&self, key: &Arc<str>) -> Result<(), Problem> {
        let detail = "this key has asked for too many pages; load it again in a second";
        let limited = |_| Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", detail).in_a_second();
        self.pages.check(key).map(drop).map_err(limited)
    }

    /// The API, whose requests are counted.
    pub fn counted(&self, api: Router) -> Router {
        api.layer(from_fn_with_state(self.hour.clone(), hour::count))
    }

    /// Its routes, below `/dashboard`.
    pub fn routes(&self) -> Router {
        router::routes(self.clone())
    }
}

impl Deref for Dashboard {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
