//! One of the services as a server: its store, its participant, its book, and the faults in front of it.
//!
//! Each has a store of its own, an SQLite file, wherever that of the shop is: a service is another system, whose database is its own
//! business. The shop reaches nothing of it but by HTTP. Within it each shop is a tenant, as two shops may have the same order
//! numbers; a shop is known by the header `x-shop`. That is enough between services of one house. Another house would ask for a key.

use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use annals::engine::{TimeOrderedIds, TraceParent};
use annals::sagas::participant::Participant;
use annals::{Context, EventStore, Repository, SqliteStore, Tenant, prelude::*};
use axum::extract::{Path as Segment, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router, middleware};
use clap::ValueEnum;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::book::{Entry, Sums};
use super::clients::{ClientSettings, Clients};
use super::faults::{self, Switch};
use super::{notification, payment, shipping, stock};
use crate::Fault;
use crate::connections::{self, Connections};
use crate::domain::order::OrderId;
use crate::service::{Settings, Telemetry, Tracing, trace};

/// The header that names the shop.
pub const SHOP: &str = "x-shop";
/// The header of the W3C trace context.
pub const TRACE: &str = "traceparent";
/// How long requests may take when a service is stopped.
const GRACE: Duration = Duration::from_secs(2);

/// Which service it is.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Charges orders.
    Payment,
    /// Sets pieces aside.
    Stock,
    /// Fetches parcels.
    Shipping,
    /// Sends messages to customers.
    Notification,
}

impl Kind {
    /// The name, also of its file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::Stock => "stock",
            Self::Shipping => "shipping",
            Self::Notification => "notification",
        }
    }

    fn routes(self, participant: &Participant, book: &Repository<Entry>) -> Router {
        match self {
            Self::Payment => payment::routes(participant, book),
            Self::Stock => stock::routes(participant, book),
            Self::Shipping => shipping::routes(participant, book),
            Self::Notification => notification::routes(participant, book),
        }
    }
}

/// A service that runs in this process.
pub struct Server {
    /// Where it is, such as `http://127.0.0.1:4101`.
    pub url: String,
    /// What goes wrong; also by `PUT /faults`.
    pub faults: Switch,
    store: SqliteStore,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Server {
    /// Starts a service on a port of the loopback interface, or on a free one if that is 0. Its store is a file in `folder`, which
    /// is created if it is missing.
    pub async fn start(kind: Kind, folder: &Path, port: u16) -> Result<Self, Fault> {
        Self::start_with(kind, folder, port, |routes| routes).await
    }

    /// The same with layers around its routes.
    async fn start_with(
        kind: Kind,
        folder: &Path,
        port: u16,
        layers: impl FnOnce(Router) -> Router,
    ) -> Result<Self, Fault> {
        let not_made = |e| format!("the folder of the services, `{}`, cannot be made: {e}", folder.display());
        tokio::fs::create_dir_all(folder).await.map_err(not_made)?;
        let store = annals::sqlite(folder.join(format!("{}.db", kind.name()))).await?;
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let faults = Switch::new(u64::from(port));
        let routes = layers(router(kind, &store, &faults));
        let (stop, stopped) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        let serving = tokio::spawn(connections::serve(listener, routes, Connections::default(), stopped));
        Ok(Self { url, faults, store, stop, serving })
    }

    /// Takes no further requests, ends those that are under way, and closes the store.
    pub async fn stop(mut self) {
        drop(self.stop);
        // Requests whose answers are to be lost never end by themselves.
        if tokio::time::timeout(GRACE, &mut self.serving).await.is_err() {
            self.serving.abort();
        }
        self.store.close().await;
    }

    /// The entry of an order in the book.
    pub async fn entry(&self, shop: &Tenant, order: &OrderId) -> Result<Entry, Fault> {
        let book = self.store.aggregate::<Entry>().with(Context::of(shop.clone()));
        Ok(book.load(order).await?.state.as_ref().clone())
    }

    /// The sums of the book.
    pub async fn sums(&self, shop: &Tenant) -> Result<Sums, Fault> {
        Ok(Sums::of(&self.store, shop).await?)
    }
}

/// All three services in this process.
pub struct Servers {
    /// The payment service.
    pub payment: Server,
    /// The warehouse.
    pub stock: Server,
    /// The carrier.
    pub shipping: Server,
}

impl Servers {
    /// Starts them, each on a free port.
    pub async fn start(folder: &Path) -> Result<Self, Fault> {
        Ok(Self {
            payment: Server::start(Kind::Payment, folder, 0).await?,
            stock: Server::start(Kind::Stock, folder, 0).await?,
            shipping: Server::start(Kind::Shipping, folder, 0).await?,
        })
    }

    /// Clients of them.
    pub fn clients(&self, settings: ClientSettings) -> Result<Clients, Fault> {
        Clients::new([&self.payment.url, &self.stock.url, &self.shipping.url], settings)
    }

    /// Stops them.
    pub async fn stop(self) {
        futures::join!(self.payment.stop(), self.stock.stop(), self.shipping.stop());
    }
}

/// Serves until `stop` is over, and logs each request; the command `service`. Services in the process of the shop do not: what they
/// are asked are steps of its checkouts, which are lines of its log.
pub async fn serve(
    kind: Kind,
    settings: &Settings,
    port: u16,
    stop: impl Future<Output = ()>,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let telemetry = Telemetry::start(&settings.log, &settings.traces)?;
    let tracing = Tracing { ids: TimeOrderedIds, kept: settings.traces.kept };
    let logged = |routes: Router| routes.layer(middleware::from_fn_with_state(tracing, trace));
    let server = Server::start_with(kind, &settings.services_folder()?, port, logged).await?;
    let (name, url) = (kind.name(), &server.url);
    writeln!(out, "The service `{name}` is at {url}. What goes wrong with it is set by: PUT {url}/faults")?;
    out.flush()?;
    stop.await;
    server.stop().await;
    telemetry.close().await;
    Ok(())
}

fn router(kind: Kind, store: &SqliteStore, faults: &Switch) -> Router {
    let participant = Participant::new(store.clone()).contexts(context);
    let work = kind.routes(&participant, &store.aggregate()).route("/health", get(async || StatusCode::NO_CONTENT));
    let book =
        Router::new().route("/book", get(sums)).route("/book/{order}", get(entry)).with_state(Arc::new(store.clone()));
    let control = Router::new().route("/faults", get(faults::show).put(faults::change)).with_state(faults.clone());
    work.layer(middleware::from_fn_with_state(faults.clone(), faults::meet)).merge(book).merge(control)
}

/// For whom a request is made, and in which trace; `None` without a shop.
fn context(request: &Parts) -> Option<Context> {
    let context = Context::of(shop(&request.headers)?);
    let trace = request.headers.get(TRACE).and_then(|trace| TraceParent::new(trace.to_str().ok()?).ok());
    Some(match trace {
        Some(trace) => context.with_trace_parent(trace),
        None => context,
    })
}

fn shop(headers: &HeaderMap) -> Option<Tenant> {
    Tenant::new(headers.get(SHOP)?.to_str().ok()?).ok()
}

/// `GET /book`.
async fn sums(State(store): State<Arc<SqliteStore>>, headers: HeaderMap) -> Result<Json<Sums>, StatusCode> {
    let shop = shop(&headers).ok_or(StatusCode::UNAUTHORIZED)?;
    Sums::of(&*store, &shop).await.map(Json).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

/// `GET /book/{order}`.
async fn entry(
    State(store): State<Arc<SqliteStore>>,
    Segment(order): Segment<OrderId>,
    headers: HeaderMap,
) -> Result<Json<serde_json::Value>, StatusCode> {
    let shop = shop(&headers).ok_or(StatusCode::UNAUTHORIZED)?;
    let book = store.aggregate::<Entry>().with(Context::of(shop));
    let entry = book.load(&order).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(serde_json::json!({ "made": entry.state.made, "taken_back": entry.state.taken_back })))
}
