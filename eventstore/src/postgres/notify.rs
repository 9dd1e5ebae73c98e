//! Notifications of commits between handles: each sends one after it has committed, coalesced, and listens for those of
//! others. A notification is a hint to look and carries no value: any role that may connect can send one. What no
//! notification tells is noticed by looking.
//!
//! Nothing is said inside the transaction of an append: the server lets such transactions commit one by one only
//! (measured: three times slower).

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::error::ReadError;
use crate::position::Position;
use crate::postgres::append::writer::announce;
use crate::postgres::connection::pool::{Pool, PooledConnection};
use crate::postgres::fault::NoConnection;
use crate::postgres::read::pages::Reader;

/// A notification may be lost in a crash. The setting is asked for in the same statement, as a pooler would forget it.
/// The function gives a `void`, by which nothing can be ordered.
const NOTIFY: &str = "
    SELECT pg_notify('annals', left(set_config('synchronous_commit', 'off', true), 0)) IS NULL AS said
    ORDER BY said
";

const CHANNEL: &str = "annals";

/// The least time between two news of one handle.
const PAUSE: Duration = Duration::from_millis(5);

/// How long news may take to be said.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// How long until it is tried again to listen.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// How often is looked all the same while news are heard.
const LOOK_WHILE_LISTENING: Duration = Duration::from_secs(1);

/// Says what this handle has committed, until it is aborted. What comes while something is being said is said together.
pub(crate) async fn notify(pool: Pool, mut own: watch::Receiver<Position>) {
    let mut connection: Option<PooledConnection> = None;
    let mut failing = false;
    while own.changed().await.is_ok() {
        let alive = match &mut connection {
            Some(held) => held.is_alive().await,
            None => false,
        };
        let sent = match &mut connection {
            Some(held) if alive => send(held).await,
            _ => match pool.own().await {
                Ok(held) => send(connection.insert(held)).await,
                Err(NoConnection::Closed) => return,
                Err(error) => Err(error.into_read().into()),
            },
        };
        // Handles that get no notification look by themselves, so nothing is lost but time. Logged once per outage.
        if let Err(error) = &sent {
            connection = None;
            if !failing {
                tracing::warn!(
                    error = &**error,
                    "other handles are not notified of new events; they look by themselves"
                );
            }
        }
        failing = sent.is_err();
        sleep(PAUSE).await;
    }
}

async fn send(held: &mut PooledConnection) -> Result<(), BoxDynError> {
    timeout(MAX_WAIT, held.fetch_all(sqlx::query(NOTIFY))).await??;
    Ok(())
}

/// Hears what others have committed and looks for it, while anybody wants to know, until it is aborted.
pub(crate) async fn listen(
    reader: Arc<Reader>,
    head: watch::Sender<Position>,
    listen: Option<PgConnectOptions>,
    every: Duration,
) {
    let mut listener = Listener::new(listen);
    let mut failures = 0;
    let mut ended_runs = reader.pool.ended_runs();
    loop {
        let pause = match failures {
            0 if listener.is_open() => every.max(LOOK_WHILE_LISTENING),
            0 => every,
            _ => after_failures(failures, every),
        };
        // Notified, or the time has come: both are a reason to look.
        let _ = timeout(pause, listener.next()).await;
        if head.receiver_count() == 0 {
            continue;
        }
        match reader.last_position().await {
            Ok(last) => {
                announce(&head, Position::stored(last));
                failures = 0;
                let now = reader.pool.ended_runs();
                if std::mem::replace(&mut ended_runs, now) != now {
                    // Readers that wait must see whether their event is still there.
                    head.send_modify(|_| {});
                }
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
struct Listener {
    listen: Option<PgConnectOptions>,
    opening: Option<BoxFuture<'static, Result<PgListener, sqlx::Error>>>,
    listener: Option<PgListener>,
    /// Whether the connection could not be made when it was tried last.
    failing: bool,
}

impl Listener {
    fn new(listen: Option<PgConnectOptions>) -> Self {
        Self { listen, opening: None, listener: None, failing: false }
    }

    fn is_open(&self) -> bool {
        self.listener.is_some()
    }

    /// Waits for a notification, or until the connection was made or lost: it is time to look. Dropping the future loses
    /// nothing.
    async fn next(&mut self) {
        let Some(options) = &self.listen else { return std::future::pending().await };
        if let Some(listener) = &mut self.listener {
            match listener.try_recv().await {
                // One look answers all that have come.
                Ok(Some(_)) => while listener.next_buffered().is_some() {},
                Ok(None) | Err(_) => self.listener = None,
            }
            return;
        }
        loop {
            let opening = self.opening.get_or_insert_with(|| listener(options.clone(), Duration::ZERO).boxed());
            let opened = opening.await;
            match opened {
                Ok(listener) => {
                    self.opening = None;
                    self.listener = Some(listener);
                    self.failing = false;
                    return;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(%error, "cannot listen for commits of other handles; looking for them instead");
                    }
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
