//! Connections: so many at once, and none that sends nothing for long.
//!
//! Each takes a file descriptor, of which a process often has a thousand, and the database and the port of health need some too.
//! `axum::serve` takes all that come, and waits for ever for the rest of a header; so a thousand of them that send half of one would
//! stop the service for all. A proxy in front of it bounds both as well, and for each address.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep};
use tower_service::Service;

/// A line of the log says so often at most that no connection is taken.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// How many connections there may be, and how long one may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// So many at once. Others wait at the system until one of them ends.
    pub most: u32,
    /// The longest that the header of a request may take, from the end of the answer before it.
    pub header: Duration,
}

/// Half of the thousand file descriptors that most systems give to a process.
impl Default for Connections {
    fn default() -> Self {
        Self { most: 512, header: Duration::from_secs(10) }
    }
}

/// Answers the requests of a listener until `stop` is over, and then those in flight.
pub async fn serve(listener: TcpListener, router: Router, limits: Connections, stop: impl Future<Output = ()>) {
    let room = Arc::new(Semaphore::new(limits.most as usize));
    let (stopping, stopped) = watch::channel(());
    let mut last_line = None;
    let mut stop = pin!(stop);
    loop {
        let (stream, place) = tokio::select! {
            () = &mut stop => break,
            next = next(&listener, &room, &mut last_line) => next,
        };
        let (router, stopped) = (router.clone(), stopped.clone());
        tokio::spawn(async move {
            answer(stream, router, limits.header, stopped).await;
            drop(place);
        });
    }
    drop(listener);
    drop(stopping);
    // All places are free again when the last connection has ended.
    drop(room.acquire_many(limits.most).await);
}

/// The next connection, when there is a place for it.
async fn next(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
    last_line: &mut Option<Instant>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let mut warn = |error: Option<std::io::Error>| {
        if last_line.is_none_or(|last: Instant| last.elapsed() >= BETWEEN_LINES) {
            *last_line = Some(Instant::now());
            let error = error.as_ref().map(tracing::field::display);
            tracing::warn!(error, "no connection is taken until one of those that are open ends");
        }
    };
    if room.available_permits() == 0 {
        warn(None);
    }
    // Nobody closes the semaphore.
    let Ok(place) = Arc::clone(room).acquire_owned().await else { return pending().await };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            // The client has left before it was taken.
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            // There is no file descriptor left, say, which passes.
            Err(e) => {
                warn(Some(e));
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Answers the requests of a connection, one after another, until its client closes it, is silent for too long, or the service stops.
async fn answer(stream: TcpStream, router: Router, header: Duration, mut stopped: watch::Receiver<()>) {
    let service = service_fn(move |request| call(router.clone(), request));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(header);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    // How a connection ends concerns its client alone, who knows it.
    tokio::select! {
        ended = connection.as_mut() => drop(ended),
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}

async fn call(mut router: Router, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    router.call(request).await
}
