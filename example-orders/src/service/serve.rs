//! Start and end of the service.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use annals::resilience::health::Health;
use annals::resilience::rate_limit::RateLimiter;
use annals::resilience::receiver::{Caller as Sender, MemoryRecords, MemorySettings, Receiver, ReceiverSettings};
use annals::sagas::SagasExt;
use annals::{EventStore, Position, PostgresOptions, ProjectionsExt, Tenant, prelude::*};
use axum::http::request::Parts;
use axum::middleware::from_fn;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::Fault;
use crate::checkout::Checkouts;
use crate::connections;
use crate::dashboard::Dashboard;
use crate::degradation::{Degradation, Notifications, Toggles};
use crate::location::Location;
use crate::service::access::{Caller, Keys, Rights, of_the_demo};
use crate::service::api::{self, Gates, Once};
use crate::service::app::App;
use crate::service::drain::Drain;
use crate::service::partners::Partners;
use crate::service::settings::Settings;
use crate::service::telemetry::{Metrics, Telemetry};
use crate::service::{health, seed, unread};
use crate::services::Clients;
use crate::shop::{Shop, with_list};

/// Serves the shop until `stop` is over, and then finishes the requests in flight. Prints to `out` where it is.
///
/// # Errors
/// A setting cannot work, the database cannot be opened, or the address is taken.
pub async fn serve(
    settings: Settings,
    stop: impl Future<Output = ()> + Send + 'static,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let is_demo = settings.keys.is_empty();
    if is_demo && !settings.listen.ip().is_loopback() {
        let fix = "name `keys` in the settings file; `-- new-key` makes one";
        return Err(format!(
            "{} is no loopback address, and the keys of the demonstration are known to all: {fix}",
            settings.listen
        )
        .into());
    }
    let telemetry = Telemetry::start(&settings.log, &settings.traces)?;
    let keys = Keys::new(&if is_demo { of_the_demo() } else { settings.keys.clone() })?;
    let rights = Rights::of(&api::document())?;
    // Addresses are few and databases are slow, so the address comes first.
    let taken = |e| format!("{} cannot be had: {e}", settings.listen);
    let listener = TcpListener::bind(settings.listen).await.map_err(taken)?;
    let location = settings.location()?;
    let folder = settings.services_folder()?;
    let (partners, clients, notification) = Partners::start(&settings.services, &folder).await?;
    let (shop, checkouts, degradation) = open(&location, clients, &notification, (&settings, &keys.shops())).await?;
    if is_demo && shop.store.head().await?.position == Position::START {
        seed::seed(&shop).await?;
        // The first request finds all of it.
        shop.caught_up(shop.store.head().await?.position).await?;
    }
    let records = MemoryRecords::new(shared(&settings.idempotency, &keys))?;
    let app = App::new(shop, checkouts, degradation, keys, rights)?;
    let once = once(&settings, records.clone());
    let health = health::start(&app, &records, &settings)?;
    let gates = Gates {
        limiter: RateLimiter::new("tenants", settings.limits.clone())?,
        once: once.clone(),
        longest: settings.longest_deadline,
        kept: settings.traces.kept,
        metrics: Metrics::new(&telemetry, &app, &health, &records),
        body_bytes: settings.body_bytes,
    };
    let dashboard = Dashboard::start(app.clone(), settings.limits.clone(), health.clone())?;
    let router = dashboard
        .counted(api::router(app.clone(), gates, &health))
        .merge(dashboard.routes())
        .layer(from_fn(unread::close));
    // Nobody waits for read models that are behind: each read says up to where it shows everything, and health how far that is.
    welcome(listener.local_addr()?, &partners, is_demo, out)?;
    health.started();

    run(listener, router, stop, &settings, (&health, &app.drain), &once, out).await?;
    // No request begins a checkout any more. Those that run call the services and write to the store, and messages are sent by one of
    // them, so they end before both; what they have not done they do after the next start.
    app.checkouts.close().await;
    app.shop.views.close().await;
    partners.stop().await;
    // What is acknowledged is stored; what the read models have not shown yet they show after the next start.
    app.shop.close().await?;
    telemetry.close().await;
    Ok(writeln!(out, "The shop is closed.")?)
}

/// Opens the store, and starts the read models and the checkouts of it.
async fn open(
    location: &Location,
    clients: Clients,
    notification: &str,
    (settings, shops): (&Settings, &[Tenant]),
) -> Result<(Shop, Checkouts, Degradation), Fault> {
    match location {
        Location::File(path) => over(annals::sqlite(path).await?, clients, notification, (settings, shops)).await,
        Location::Postgres(url) => {
            let store = PostgresOptions::new(url).migrate().open().await?;
            over(store, clients, notification, (settings, shops)).await
        }
    }
}

async fn over(
    store: impl EventStore + ProjectionsExt + SagasExt + Clone,
    clients: Clients,
    notification: &str,
    (settings, shops): (&Settings, &[Tenant]),
) -> Result<(Shop, Checkouts, Degradation), Fault> {
    let degradation = Degradation::open(&store.clone().shared(), (&settings.pools, shops), notification).await?;
    let toggle = degradation.toggles.get(Toggles::NOTIFICATIONS)?.clone();
    let notifications = Notifications::new(degradation.notification.clone(), toggle);
    let lease = settings.lease();
    let shop = Shop::over_with(store.clone(), |views| with_list(views).react(notifications).lease(lease)).await?;
    Ok((shop, Checkouts::start::<30>(&store, clients, lease).await?, degradation))
}

/// Answers requests until the end, and then those in flight.
async fn run(
    listener: TcpListener,
    router: axum::Router,
    stop: impl Future<Output = ()> + Send + 'static,
    settings: &Settings,
    (health, drain): (&Health, &Drain),
    once: &Once,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let (stopping, stopped) = oneshot::channel::<()>();
    let (draining, drain, time) = (health.clone(), drain.clone(), settings.drain());
    let stop = async move {
        stop.await;
        // From now on a balancer sends no more, and no connection is taken.
        draining.begin_shutdown();
        drain.begin(time);
        // The receiver is in this function, and waits for it.
        let _ = stopping.send(());
    };
    let mut server = tokio::spawn(connections::serve(listener, router, settings.connections(), stop));
    tokio::select! {
        ended = &mut server => ended?,
        _ = stopped => {
            let end = Instant::now() + settings.drain();
            match timeout_at(end, &mut server).await {
                Ok(ended) => ended?,
                Err(_) => {
                    server.abort();
                    writeln!(out, "Requests were running for {} s more, and were cut off.", settings.drain_seconds)?;
                }
            }
            // Writes go on when their clients have left.
            if timeout_at(end, once.drained()).await.is_err() {
                writeln!(out, "Writes whose clients have left were cut off.")?;
            }
        }
    }
    Ok(())
}

/// The room for keys, shared out so that no shop takes that of another.
fn shared(room: &MemorySettings, keys: &Keys) -> MemorySettings {
    let share = (room.keys / keys.tenants().max(1)).max(1);
    MemorySettings { keys_of_a_group: room.keys_of_a_group.min(share), ..room.clone() }
}

/// Every write needs a key. JSON that is sent again may come from another library, which may order it otherwise. What is refused has
/// stored nothing, so that its repeat is decided on the order as it is then, by whichever process gets it.
fn once(settings: &Settings, records: MemoryRecords) -> Once {
    let receiver = ReceiverSettings {
        request_bytes: settings.body_bytes,
        required: true,
        json_by_content: true,
        keep_refusals: false,
        ..ReceiverSettings::default()
    };
    Receiver::with(records, sender, receiver)
}

fn sender(parts: &Parts) -> Option<Sender> {
    let caller = parts.extensions.get::<Caller>()?;
    Some(Sender::new(Arc::<str>::from(caller.name())).of_group(caller.tenant.as_str()))
}

fn welcome(address: SocketAddr, partners: &Partners, is_demo: bool, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "The shop is open at http://{address}; Ctrl-C closes it.")?;
    writeln!(out, "  the dashboard                    http://{address}/dashboard")?;
    writeln!(out, "  all routes, to read and to try   http://{address}/docs")?;
    writeln!(out, "  how it is                        http://{address}/health/ready")?;
    for (name, url) in partners.here() {
        writeln!(out, "  what goes wrong with {name:<12} {url}/faults")?;
    }
    if is_demo {
        writeln!(
            out,
            "\nThe keys of the demonstration: alpha-admin.demo, alpha-alice.demo, alpha-operator.demo, beta-admin.demo, operator.demo"
        )?;
        writeln!(out, "\nThree things to try:")?;
        writeln!(
            out,
            "  curl -s 'http://{address}/orders?sort=-total&limit=3' -H 'Authorization: Bearer alpha-admin.demo'"
        )?;
        writeln!(
            out,
            "  curl -si 'http://{address}/orders' -H 'Authorization: Bearer alpha-alice.demo' -H 'Idempotency-Key: mine-1' \\"
        )?;
        writeln!(
            out,
            "    --json '{{\"lines\": [{{\"product\": \"kettle\", \"quantity\": 1, \"price\": {{\"minor\": 4900, \"currency\": \"EUR\"}}}}]}}'"
        )?;
        writeln!(
            out,
            "  curl -s 'http://{address}/orders/o-1005/history' -H 'Authorization: Bearer alpha-admin.demo'"
        )?;
    }
    out.flush()
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
