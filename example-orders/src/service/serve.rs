//! Start and end of the service.

use std::future::Future;
use std::io::Write;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::Fault;
use crate::service::settings::Settings;
use crate::shop::Shop;

/// Serves the shop until `stop` is over, and then finishes the requests in flight. Prints to `out` where it is.
///
/// # Errors
/// The database cannot be opened, or the address is taken.
pub async fn serve(
    settings: Settings,
    stop: impl Future<Output = ()> + Send + 'static,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    // Addresses are few and databases are slow, so the address comes first.
    let listener =
        TcpListener::bind(settings.listen).await.map_err(|e| format!("{} cannot be had: {e}", settings.listen))?;
    let shop = Shop::open(&settings.location()?).await?;
    writeln!(out, "The shop is open at http://{}", listener.local_addr()?)?;
    out.flush()?;

    let (stopping, stopped) = oneshot::channel::<()>();
    let stop = async move {
        stop.await;
        // The receiver is in this function, and waits for it.
        let _ = stopping.send(());
    };
    let server = axum::serve(listener, Router::new()).with_graceful_shutdown(stop);
    let mut server = tokio::spawn(server.into_future());
    tokio::select! {
        ended = &mut server => ended??,
        _ = stopped => match timeout(settings.drain(), &mut server).await {
            Ok(ended) => ended??,
            Err(_) => {
                server.abort();
                writeln!(out, "Requests were still running after {} s; they were cut off.", settings.drain_seconds)?;
            }
        },
    }
    // What is acknowledged is stored; what the read models have not shown yet they show after the next start.
    shop.close().await?;
    Ok(writeln!(out, "The shop is closed.")?)
}

/// Waits until the process is asked to end: by Ctrl-C, or by the signal that supervisors send.
pub async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    // Without a handler the system ends the process itself, which loses nothing either.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
