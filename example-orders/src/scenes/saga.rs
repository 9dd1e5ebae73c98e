//! The scene `-- saga`: four checkouts. One is completed. One is not possible, and what was done is undone. In one the process
//! ends in the middle, and the next process goes on. One waits for a person, who decides.
//!
//! Where a saga stands is in its own stream of events, and nowhere else. So there is nothing to restore after a crash. The services
//! are servers, which run in this process here; the process that is killed calls them too.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use annals::sagas::{By, Intervention, SagaId, SagasExt, timeline};
use annals::{Context, EventStore, PostgresOptions, ProjectionsExt, Tenant, prelude::*};

use crate::Fault;
use crate::checkout::definition::checkout;
use crate::checkout::timeline::line;
use crate::checkout::{Cart, Checkouts, Flow, id};
use crate::domain::money::Money;
use crate::domain::order::{CustomerId, Line, OrderId};
use crate::location::Location;
use crate::services::{ClientSettings, Clients, Entry, Faults, Servers};

/// Short, so that the scene is. The default of 5 seconds costs fewer small writes, and forgives a process that is late.
const LEASE: Duration = Duration::from_millis(300);
const SOON: Duration = Duration::from_secs(60);

/// The checkouts of a shop, in this process.
struct Shop {
    store: std::sync::Arc<dyn EventStore>,
    checkouts: Checkouts,
}

impl Shop {
    async fn open(location: &Location, services: &Clients) -> Result<Self, Fault> {
        match location {
            Location::File(path) => Self::over(annals::sqlite(path).await?, services).await,
            Location::Postgres(url) => Self::over(PostgresOptions::new(url).migrate().open().await?, services).await,
        }
    }

    /// Runs the sagas in this process: new ones, and those that another process has left.
    async fn over(
        store: impl EventStore + ProjectionsExt + SagasExt + Clone,
        services: &Clients,
    ) -> Result<Self, Fault> {
        let checkouts = Checkouts::start::<30>(&store, services.clone(), LEASE).await?;
        Ok(Self { store: store.shared(), checkouts })
    }

    async fn close(self) {
        self.checkouts.close().await;
        self.store.close().await;
    }
}

/// Runs the scene with orders from `number` on, and prints to `out` what happens.
pub async fn play(location: &Location, services: &Path, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    let servers = Servers::start(services).await?;
    let played = play_with(&servers, location, number, out).await;
    servers.stop().await;
    played
}

async fn play_with(servers: &Servers, location: &Location, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    let services = servers.clients(ClientSettings::default())?;
    let shop = Shop::open(location, &services).await?;
    let played = play_at_once(&shop, servers, number, out).await;
    shop.close().await;
    played?;

    writeln!(out, "\nThe process that checks out the next order ends in the middle: the warehouse has set the pieces")?;
    writeln!(out, "aside, and nobody has its answer.")?;
    die(location, servers, number + 2).await?;
    let shop = Shop::open(location, &services).await?;
    let played = play_after_the_crash(&shop, servers, number, out).await;
    shop.close().await;
    played
}

async fn play_at_once(shop: &Shop, servers: &Servers, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    writeln!(out, "The steps of a checkout, each with those before it:")?;
    for step in checkout(&shop.checkouts.orders, &shop.checkouts.services)?.outline().lines() {
        writeln!(out, "  {step}")?;
    }

    writeln!(out, "\nAlice checks out, and all goes well.")?;
    start(shop, number).await?;
    ended(shop, servers, number, out).await?;

    writeln!(
        out,
        "\nThe warehouse is closed when Alice checks out again. So she gets her money back, and the order is"
    )?;
    writeln!(out, "cancelled: each step that may have had its effect is undone, the last one first.")?;
    servers.stock.faults.set(Faults { closed: true, ..Faults::default() });
    start(shop, number + 1).await?;
    ended(shop, servers, number + 1, out).await?;
    servers.stock.faults.set(Faults::default());
    Ok(())
}

/// Starts another process of this program, and kills it when the warehouse has set the pieces aside. Its answer never comes.
async fn die(location: &Location, servers: &Servers, number: i64) -> Result<(), Fault> {
    servers.stock.faults.set(Faults { lost_answers: 1.0, ..Faults::default() });
    let mut command = Command::new(std::env::current_exe()?);
    match location {
        Location::File(path) => command.arg("--db").arg(path),
        Location::Postgres(url) => command.env("DATABASE_URL", url),
    };
    command.args(["--first", &number.to_string(), "saga"]);
    command.args(["--dies", &servers.payment.url, &servers.stock.url, &servers.shipping.url]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let seen = set_aside(&mut child, servers, number).await;
    child.kill()?;
    child.wait()?;
    servers.stock.faults.set(Faults::default());
    seen
}

/// Waits until the pieces of an order are set aside.
async fn set_aside(child: &mut Child, servers: &Servers, number: i64) -> Result<(), Fault> {
    let until = Instant::now() + SOON;
    while servers.stock.entry(&Tenant::default(), &order(number)?).await?.made == 0 {
        if let Some(status) = child.try_wait()? {
            return Err(format!("the other process was to be killed, and ended with {status}").into());
        }
        if Instant::now() > until {
            return Err("the other process has not come to the warehouse in a minute".into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// What the process does that is killed. It does not come to its end.
pub async fn be_the_one_that_dies(location: &Location, number: i64, services: &[String]) -> Result<(), Fault> {
    let [payment, stock, shipping] = services else { return Err("it takes three addresses".into()) };
    let shop = Shop::open(location, &Clients::new([payment, stock, shipping], ClientSettings::default())?).await?;
    start(&shop, number).await?;
    shop.checkouts.sagas.wait_for(&saga(number)?, SOON).await?;
    shop.close().await;
    Ok(())
}

async fn play_after_the_crash(shop: &Shop, servers: &Servers, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    writeln!(
        out,
        "The next process finds the saga, and makes the call again under its key. The warehouse has the key in"
    )?;
    writeln!(out, "its book, and sets nothing aside a second time.")?;
    ended(shop, servers, number + 2, out).await?;

    writeln!(
        out,
        "\nThe carrier refuses Alice's next parcel. That is behind the pivot, so the saga waits for a person."
    )?;
    servers.shipping.faults.set(Faults { closed: true, ..Faults::default() });
    let (stuck, next) = (saga(number + 3)?, number + 3);
    start(shop, next).await?;
    ended(shop, servers, next, out).await?;

    writeln!(out, "\nCarol looks at what waits, and at what her decisions would do. Nothing is stored by that.")?;
    let sagas = &shop.checkouts.sagas;
    sagas.projections().caught_up(SOON).await?;
    for row in sagas.stuck(100).await?.iter().filter(|row| row.saga_id == stuck.as_str()) {
        let step = row.current_step.as_deref().unwrap_or_default();
        writeln!(out, "  {}  at `{step}`: {}", row.saga_id, row.last_error.as_deref().unwrap_or_default())?;
    }
    let carol = By::new("carol", "the carrier is open again")?;
    match sagas.preview(&stuck, Intervention::Compensate, &carol).await {
        Err(refused) => writeln!(out, "  compensate: {refused}")?,
        Ok(would) => return Err(format!("a parcel would be taken back: {would:?}").into()),
    }
    writeln!(out, "  retry:")?;
    for event in sagas.preview(&stuck, Intervention::Retry, &carol).await? {
        print(line(&event), out)?;
    }

    writeln!(out, "\nShe retries. The saga goes on where it was.")?;
    servers.shipping.faults.set(Faults::default());
    let seen = lines(shop, next).await?.len();
    sagas.intervene(&stuck, Intervention::Retry, &carol).await?;
    sagas.wait_for(&stuck, SOON).await?;
    for line in lines(shop, next).await?.split_off(seen) {
        print(Some(line), out)?;
    }
    print_effects(shop, servers, next, out).await
}

async fn start(shop: &Shop, number: i64) -> Result<(), Fault> {
    let lines = vec![Line { product: "grinder".to_owned(), quantity: 1, price: Money::euro_cents(12_900) }];
    let cart = Cart { order: order(number)?, customer: CustomerId::new("alice")?, lines };
    shop.checkouts.begin(Flow::Orchestrated, cart, &Context::default()).await?;
    Ok(())
}

/// Waits until a saga has ended or is stuck, and prints its stream, and what it has led to.
async fn ended(shop: &Shop, servers: &Servers, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    shop.checkouts.sagas.wait_for(&saga(number)?, SOON).await?;
    for line in lines(shop, number).await? {
        print(Some(line), out)?;
    }
    print_effects(shop, servers, number, out).await
}

/// The stream of a saga.
async fn lines(shop: &Shop, number: i64) -> Result<Vec<String>, Fault> {
    let events = timeline(&shop.store, &Tenant::default(), &saga(number)?).await?;
    Ok(events.iter().filter_map(|event| line(&event.event)).collect())
}

fn print(line: Option<String>, out: &mut dyn Write) -> std::io::Result<()> {
    match line.as_deref() {
        // Where it begins and ends, or waits.
        Some(line @ ("checkout started" | "stuck" | "completed" | "compensated")) => writeln!(out, "  {line}"),
        Some(line) => writeln!(out, "    {line}"),
        None => Ok(()),
    }
}

/// The order, and the entries of the services.
async fn print_effects(shop: &Shop, servers: &Servers, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    let id = order(number)?;
    let loaded = shop.checkouts.orders.load(&id).await?;
    let paid = loaded.state.paid.as_ref().map_or(Money::euro_cents(0), |(_, paid)| *paid);
    write!(out, "  {id} is {}, {paid} are paid", loaded.state.status)?;
    for (name, server) in [("payment", &servers.payment), ("stock", &servers.stock), ("shipping", &servers.shipping)] {
        write!(out, "; {name}: {}", in_words(&server.entry(&Tenant::default(), &id).await?))?;
    }
    Ok(writeln!(out)?)
}

fn in_words(entry: &Entry) -> &'static str {
    match (entry.made, entry.taken_back) {
        (0, _) => "nothing",
        (_, 0) => "done",
        _ => "done and undone",
    }
}

fn order(number: i64) -> Result<OrderId, annals::Invalid> {
    OrderId::new(format!("o-{number}"))
}

fn saga(number: i64) -> Result<SagaId, annals::Invalid> {
    id(Flow::Orchestrated, &order(number)?)
}
