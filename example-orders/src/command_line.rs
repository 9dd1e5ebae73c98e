//! The command line: the service, which is the default, and the scenes.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use annals::Tenant;
use annals::engine::{Clock, SystemClock};
use clap::{Parser, Subcommand};
use jiff::Timestamp;

use crate::Fault;
use crate::domain::order::{CustomerId, OrderId};
use crate::load;
use crate::location::Location;
use crate::scenes::{
    dead_letters, flows, generations, mail, many, on_account, past, resilience, saga, story, totals, two_processes,
    two_shops,
};
use crate::service::{self, Role, Settings};
use crate::services::{self, Kind};
use crate::shop::{self, Shop};

/// A shop: its events and read models are in one SQLite file, or in the PostgreSQL database that DATABASE_URL names. Without a
/// scene it is served over HTTP.
#[derive(Parser)]
struct Options {
    /// The file, `orders.db` by default; it is created, or the run continues with its data.
    #[arg(long)]
    db: Option<PathBuf>,
    /// Run this number of orders concurrently instead, and print the rate.
    #[arg(long)]
    orders: Option<u64>,
    /// With `--orders`: keep the totals of customers too, by SQL of the shop's own.
    #[arg(long, requires = "orders")]
    totals: bool,
    /// The number of the first order. Numbers come from the caller: here from the clock, in microseconds, so
    /// that each run has its own.
    #[arg(long)]
    first: Option<i64>,
    /// Of the service: its settings, a TOML file. Variables such as ORDERS_LISTEN and flags come before it.
    #[arg(long)]
    settings: Option<PathBuf>,
    /// Of the service: where it listens, `127.0.0.1:8080` by default; port 0 takes a free one.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// The folder in which the payment service, the warehouse and the carrier keep their files; beside the shop's by default.
    #[arg(long, global = true)]
    services: Option<PathBuf>,
    #[command(subcommand)]
    scene: Option<Scene>,
}

#[derive(Subcommand)]
enum Scene {
    /// A new API key of the service, and the lines of its settings file for it.
    NewKey {
        /// Whose data it opens.
        #[arg(long)]
        tenant: String,
        /// What its owner may do.
        #[arg(long)]
        role: Role,
        /// Which customer its owner is, for the role `customer`.
        #[arg(long, required_if_eq("role", "customer"))]
        customer: Option<String>,
    },
    /// Orders over HTTP at a fixed rate, or as many as the service takes; latencies, and whether each order is there, once.
    Load(load::Options),
    /// Four orders of two customers, step by step.
    Story,
    /// An order is placed and charged to a credit, or neither: one command over two aggregates.
    OnAccount,
    /// The events of one order, and what each of them changed.
    History {
        /// The order, such as o-1001.
        order: OrderId,
    },
    /// One order and its line in the list as they were at a time, and the order as it is now.
    AsOf {
        /// The order, such as o-1001.
        order: OrderId,
        /// A time that is over, such as 2026-03-02T09:30:00Z.
        time: Timestamp,
    },
    /// The list of orders as it was at a time, and as it is now.
    List {
        /// A time that is over, such as 2026-03-02T09:30:00Z.
        #[arg(long)]
        as_of: Timestamp,
    },
    /// Orders that three builds stored, each in its own shape, are read as orders of today.
    Evolution,
    /// Two shops share the store and have the same order numbers.
    TwoShops,
    /// A second process runs half of the read models, and is killed.
    TwoProcesses {
        /// Be the second process, until the input ends.
        #[arg(long, hide = true)]
        second: bool,
    },
    /// A build with a fault cannot show every order in the list: what is set aside, looked at, dropped and retried.
    DeadLetters,
    /// Checkouts over three services: one is completed, one undone, one goes on after a crash, and one waits for a person.
    Saga {
        /// Be the process that is killed in the middle, with the addresses of the services.
        #[arg(long, hide = true, num_args = 3)]
        dies: Vec<String>,
    },
    /// One of the services of a checkout as a process of its own, until it is asked to end.
    Service {
        /// Which one.
        kind: Kind,
        /// The port, on the loopback interface.
        #[arg(long)]
        port: u16,
    },
    /// The same checkout without a saga: reactors answer events, and what they do is followed as a flow.
    Choreography,
    /// A reactor sends a mail for each parcel, through a mail service that fails at first.
    Mail,
    /// What customers have ordered and paid, in a table that SQL of the shop's own writes.
    Totals,
    /// A payment service degrades, fails and recovers; nothing is stored.
    Resilience,
}

/// Runs what the command line asks for.
pub async fn run() -> ExitCode {
    let Err(fault) = obey(Options::parse(), &mut std::io::stdout()).await else { return ExitCode::SUCCESS };
    if fault.downcast_ref().is_some_and(|e: &std::io::Error| e.kind() == ErrorKind::BrokenPipe) {
        // The reader of the output, such as `head`, has enough of it. What is acknowledged is stored.
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {fault}");
    let mut source = fault.source();
    while let Some(cause) = source {
        eprintln!("  because {cause}");
        source = cause.source();
    }
    ExitCode::FAILURE
}

/// Refuses flags that what is asked for does not look at.
fn check(options: &Options) -> Result<(), Fault> {
    let serves = options.scene.is_none() && options.orders.is_none();
    if options.orders.is_some() && options.scene.is_some() {
        return Err("`--orders` is a scene of its own; leave the other one out".into());
    }
    if options.listen.is_some() && !serves {
        return Err("`--listen` is for the shop as a service; leave it out, or leave the scene out".into());
    }
    if options.settings.is_some() && !serves && !matches!(options.scene, Some(Scene::Service { .. })) {
        return Err("`--settings` is for the services; leave it out, or leave the scene out".into());
    }
    Ok(())
}

async fn obey(options: Options, out: &mut dyn Write) -> Result<(), Fault> {
    check(&options)?;
    if let Some(Scene::Resilience) = options.scene {
        return tokio::task::spawn_blocking(in_paused_time).await?;
    }
    if let (None, None) = (&options.scene, options.orders) {
        let flags = service::Flags { listen: options.listen, database: options.db, services: options.services };
        let settings = Settings::read(options.settings.as_deref(), std::env::vars(), flags)?;
        return service::serve(settings, service::asked_to_stop(), out).await;
    }
    if let Some(Scene::NewKey { tenant, role, customer }) = &options.scene {
        if customer.is_some() && *role != Role::Customer {
            return Err("a key of this role sees the whole shop; leave `--customer` out".into());
        }
        let customer = customer.as_ref().map(CustomerId::new).transpose()?;
        let (key, lines) = service::new_key(&Tenant::new(tenant)?, *role, customer.as_ref())?;
        return Ok(writeln!(out, "# The key, which is stored nowhere: {key}\n{lines}")?);
    }
    if let Some(Scene::Load(load)) = &options.scene {
        return load::play(load, out).await;
    }
    if let Some(Scene::Service { kind, port }) = options.scene {
        let flags = service::Flags { listen: None, database: options.db, services: options.services };
        let settings = Settings::read(options.settings.as_deref(), std::env::vars(), flags)?;
        return services::serve(kind, &settings, port, service::asked_to_stop(), out).await;
    }
    let location = Location::of(options.db, std::env::var("DATABASE_URL").ok())?;
    let folder = options.services.unwrap_or_else(|| location.services());
    if let Location::Postgres(_) = location {
        writeln!(out, "Everything is stored in the database of DATABASE_URL, whose schema is migrated first.\n")?;
    }
    if let Some(Scene::TwoProcesses { second: true }) = options.scene {
        return two_processes::be_the_second(&location).await;
    }
    let first = options.first.unwrap_or_else(|| SystemClock.now().as_microsecond());
    match options.scene {
        Some(Scene::Saga { dies }) if !dies.is_empty() => {
            return saga::be_the_one_that_dies(&location, first, &dies).await;
        }
        Some(scene @ (Scene::Saga { .. } | Scene::Choreography)) => {
            match scene {
                Scene::Choreography => flows::play(&location, &folder, first, out).await?,
                _ => saga::play(&location, &folder, first, out).await?,
            }
            return Ok(location.print_next_steps("saga_instances", out)?);
        }
        Some(Scene::TwoProcesses { .. }) => two_processes::play(&location, first, out).await?,
        Some(Scene::DeadLetters) => dead_letters::play(&location, first, out).await?,
        Some(Scene::Mail) => mail::play(&location, first, out).await?,
        Some(Scene::Totals) => totals::play(&location, first, out).await?,
        scene => {
            let more = if options.totals { totals::with_totals } else { shop::with_list };
            let shop = Shop::open_with(&location, more).await?;
            play(shop, scene, options.orders, first, out).await?;
        }
    }
    Ok(location.print_next_steps("order_list", out)?)
}

/// Plays a scene in a shop that is open.
async fn play(
    shop: Shop,
    scene: Option<Scene>,
    orders: Option<u64>,
    first: i64,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let played = match (orders, scene) {
        (Some(orders), _) => many::play(&shop, first, orders, out).await,
        (None, Some(Scene::OnAccount)) => on_account::play(&shop, first, out).await,
        (None, Some(Scene::History { order })) => past::history(&shop, &order, out).await,
        (None, Some(Scene::AsOf { order, time })) => past::as_of(&shop, &order, time, out).await,
        (None, Some(Scene::List { as_of })) => past::list(&shop, as_of, out).await,
        (None, Some(Scene::Evolution)) => generations::play(&shop, first, out).await,
        (None, Some(Scene::TwoShops)) => two_shops::play(&shop, out).await,
        (None, _) => story::play(&shop, first, out).await,
    };
    shop.close().await?;
    played
}

/// A runtime of its own, as time can be paused for all of a runtime only.
fn in_paused_time() -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(resilience::play(&mut std::io::stdout()))
}
