//! News of commits between handles: each says what it has committed, coalesced, and hears what others have. What is not
//! heard is noticed by looking.
//!
//! Nothing is said inside the transaction of an append: the server lets such transactions commit one by one only
//! (measured: three times slower).

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::pool::{Held, Pool};
use super::read::Reader;
use super::writer::announce;
use crate::error::ReadError;
use crate::position::Position;

/// News may be lost in a crash. The setting is asked for in the same breath, as a pooler would forget it.
const SAY: &str = "
    SELECT pg_notify('annals', $1 || left(set_config('synchronous_commit', 'off', true), 0))
    ORDER BY 1
";

const CHANNEL: &str = "annals";

/// The least time between two news of one handle.
const PAUSE: Duration = Duration::from_millis(5);

/// How long news may take to be said.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long until it is tried again to listen.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// How often is looked all the same while news are heard.
const LOOK_WHILE_LISTENING: Duration = Duration::from_secs(1);

/// Says what this handle has committed, until it is aborted. What comes while something is being said is said together.
pub(super) async fn say(pool: Pool, mut own: watch::Receiver<Position>) {
    let mut line: Option<Held> = None;
    while own.changed().await.is_ok() {
        let position = own.borrow_and_update().get().to_string();
        let alive = match &mut line {
            Some(held) => held.is_alive().await,
            None => false,
        };
        if !alive {
            line = pool.own().await.ok();
        }
        // Whoever does not hear it looks by itself, so nothing is lost but time.
        let said = match &mut line {
            Some(held) => timeout(PATIENCE, held.fetch_all(sqlx::query(SAY).bind(position))).await,
            None => continue,
        };
        match said {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "others are not told of new events"),
            Err(_) => line = None,
        }
        sleep(PAUSE).await;
    }
}

/// Hears what others have committed and looks for it, while anybody wants to know, until it is aborted.
pub(super) async fn hear(
    reader: Arc<Reader>,
    head: watch::Sender<Position>,
    listen: Option<PgConnectOptions>,
    every: Duration,
) {
    let mut ear = Ear::new(listen);
    let mut failures = 0;
    loop {
        let pause = match failures {
            0 if ear.is_open() => every.max(LOOK_WHILE_LISTENING),
            0 => every,
            _ => after_failures(failures, every),
        };
        if let Ok(Some(position)) = timeout(pause, ear.next()).await {
            announce(&head, position);
            continue;
        }
        if head.receiver_count() == 0 {
            continue;
        }
        match reader.last_position().await {
            Ok(last) => {
                announce(&head, Position::stored(last));
                failures = 0;
            }
            Err(ReadError::Closed) => return,
            Err(error) => {
                // Said once per outage.
                if failures == 0 {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "commits of others cannot be watched; trying again"
                    );
                }
                failures += 1;
            }
        }
    }
}

/// Waits that double up to a second, or `every` if that is longer. Each is cut by up to a half at random, so that the
/// handles of a server that comes back do not all ask at once.
fn after_failures(failures: u32, every: Duration) -> Duration {
    let whole = every.saturating_mul(1 << failures.min(16)).min(every.max(TRY_AGAIN));
    whole.mul_f64(1.0 - fastrand::f64() / 2.0)
}

/// A connection that listens, if there shall be one.
struct Ear {
    listen: Option<PgConnectOptions>,
    opening: Option<BoxFuture<'static, Result<PgListener, sqlx::Error>>>,
    listener: Option<PgListener>,
}

impl Ear {
    fn new(listen: Option<PgConnectOptions>) -> Self {
        Self { listen, opening: None, listener: None }
    }

    fn is_open(&self) -> bool {
        self.listener.is_some()
    }

    /// The next position that others tell of; `None` if the connection was made or lost, so that it is time to look.
    /// Dropping the future loses nothing.
    async fn next(&mut self) -> Option<Position> {
        let Some(options) = &self.listen else { return std::future::pending().await };
        if let Some(listener) = &mut self.listener {
            match listener.try_recv().await {
                // What cannot be read is news all the same.
                Ok(Some(news)) => return news.payload().parse().ok().map(Position::stored),
                Ok(None) | Err(_) => self.listener = None,
            }
            return None;
        }
        loop {
            let opening = self.opening.get_or_insert_with(|| listener(options.clone(), Duration::ZERO).boxed());
            let opened = opening.await;
            match opened {
                Ok(listener) => {
                    self.opening = None;
                    self.listener = Some(listener);
                    return None;
                }
                Err(error) => {
                    tracing::debug!(%error, "news of commits cannot be heard; looking for them instead");
                    self.opening = Some(listener(options.clone(), TRY_AGAIN).boxed());
                }
            }
        }
    }
}

async fn listener(options: PgConnectOptions, pause: Duration) -> Result<PgListener, sqlx::Error> {
    sleep(pause).await;
    let pool = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None).connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    Ok(listener)
}
