//! Notifications of commits between handles. Each handle sends one after it has committed, coalesced, and listens for those
//! of others. A notification is only a hint to poll and has no payload: any role that may connect can send one. Commits
//! without a notification are found by polling.
//!
//! None is sent inside the transaction of an append: the server commits such transactions only one at a time
//! (measured: three times slower).

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::backoff::Backoff;
use crate::error::ReadError;
use crate::position::Position;
use crate::postgres::append::writer::announce;
use crate::postgres::connection::pool::{Pool, PooledConnection};
use crate::postgres::fault::NoConnection;
use crate::postgres::read::pages::Reader;

/// A notification may be lost in a crash. The setting is made in the same statement, as a pooler would lose it.
/// The function gives a `void`, by which nothing can be ordered.
const NOTIFY: &str = "
    SELECT pg_notify('annals', left(set_config('synchronous_commit', 'off', true), 0)) IS NULL AS sent
    ORDER BY sent
";

const CHANNEL: &str = "annals";

/// The least time between two notifications of one handle.
const PAUSE: Duration = Duration::from_millis(5);

/// How long sending a notification may take.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// How long until the next attempt to listen.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// How often to poll while listening.
const LOOK_WHILE_LISTENING: Duration = Duration::from_secs(1);

/// Sends notifications of this handle's commits until it is aborted. Commits during a send share the next one.
pub(crate) async fn notify(pool: Pool, mut own: watch::Receiver<Position>) {
    let mut connection: Option<PooledConnection> = None;
    let mut failing = false;
    while own.changed().await.is_ok() {
        let alive = match &mut connection {
            Some(connection) => connection.is_alive().await,
            None => false,
        };
        let sent = match &mut connection {
            Some(connection) if alive => send(connection).await,
            _ => match pool.own().await {
                Ok(taken) => send(connection.insert(taken)).await,
                Err(NoConnection::Closed) => return,
                Err(error) => Err(error.into_read().into()),
            },
        };
        // Handles that get no notification poll, so only time is lost. Logged once per outage.
        if let Err(error) = &sent {
            connection = None;
            if !failing {
                tracing::warn!(
                    error = &**error,
                    "other handles are not notified of new events; they find them by polling"
                );
            }
        }
        failing = sent.is_err();
        sleep(PAUSE).await;
    }
}

async fn send(connection: &mut PooledConnection) -> Result<(), BoxDynError> {
    timeout(MAX_WAIT, connection.fetch_all(sqlx::query(NOTIFY))).await??;
    Ok(())
}

/// Listens and polls for commits of other handles while readers wait, until it is aborted.
pub(crate) async fn listen(
    reader: Arc<Reader>,
    head: watch::Sender<Position>,
    listen: Option<PgConnectOptions>,
    every: Duration,
) {
    let mut listener = Listener::new(listen);
    let mut failing: Option<Backoff> = None;
    let mut ended_runs = reader.pool.ended_runs();
    loop {
        let pause = match &mut failing {
            Some(backoff) => backoff.next_wait(),
            None if listener.is_open() => every.max(LOOK_WHILE_LISTENING),
            None => every,
        };
        // A notification or the timeout: poll in both cases.
        let _ = timeout(pause, listener.next()).await;
        if head.receiver_count() == 0 {
            continue;
        }
        match reader.last_position().await {
            Ok(last) => {
                announce(&head, Position::stored(last));
                failing = None;
                let now = reader.pool.ended_runs();
                if std::mem::replace(&mut ended_runs, now) != now {
                    // Waiting readers must check whether their event still exists.
                    head.send_modify(|_| {});
                }
            }
            Err(ReadError::Closed) => return,
            Err(error) => {
                // Logged once per outage.
                if failing.is_none() {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot poll for commits of other handles; trying again"
                    );
                }
                failing.get_or_insert_with(|| Backoff::between(every.saturating_mul(2), every.max(TRY_AGAIN)));
            }
        }
    }
}

/// A connection that listens, if one is configured.
struct Listener {
    listen: Option<PgConnectOptions>,
    opening: Option<BoxFuture<'static, Result<PgListener, sqlx::Error>>>,
    listener: Option<PgListener>,
    /// Whether the last attempt to connect failed.
    failing: bool,
}

impl Listener {
    fn new(listen: Option<PgConnectOptions>) -> Self {
        Self { listen, opening: None, listener: None, failing: false }
    }

    fn is_open(&self) -> bool {
        self.listener.is_some()
    }

    /// Waits for a notification, or until the connection was made or lost: in each case it is time to poll. Dropping the
    /// future loses nothing.
    async fn next(&mut self) {
        let Some(options) = &self.listen else { return std::future::pending().await };
        if let Some(listener) = &mut self.listener {
            match listener.try_recv().await {
                // One poll covers all pending notifications.
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
                        tracing::warn!(%error, "cannot listen for commits of other handles; polling instead");
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
