//! The scene `-- two-processes`: a second process of this program shares the work on the read models, and is killed.
//!
//! Nobody is told that it has died. A process says now and then that it is alive; what it runs is its own for the time of its
//! lease, counted by the clock of the database; then another process may take it.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use annals::projections::{ProjectionState, ProjectionStatus};
use annals::{Position, ProjectionsBuilder, Tenant};

use crate::Fault;
use crate::domain::money::Money;
use crate::domain::order::OrderCommand::Place;
use crate::domain::order::{CustomerId, Line, OrderId};
use crate::location::Location;
use crate::read_models::analytics::DailySales;
use crate::read_models::list::OrderList;
use crate::shop::{Shop, with_list};

/// Short, so that the scene is. The default of 5 seconds costs fewer small writes, and forgives a process that is late.
const LEASE: Duration = Duration::from_millis(300);
/// How many orders are placed; the second process is killed behind the first third of them.
const ORDERS: i64 = 30;

fn as_the_first(views: ProjectionsBuilder) -> ProjectionsBuilder {
    with_list(views).lease(LEASE).runner_name("first")
}

fn as_the_second(views: ProjectionsBuilder) -> ProjectionsBuilder {
    with_list(views).lease(LEASE).runner_name("second")
}

/// Runs the scene with orders from `number` on, and prints to `out` what happens.
pub async fn play(location: &Location, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    let shop = Shop::open_with(location, as_the_first).await?;
    let played = play_in(&shop, location, number, out).await;
    shop.close().await?;
    played
}

async fn play_in(shop: &Shop, location: &Location, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    writeln!(out, "This process calls itself `first`. It is alone, so it runs all read models.")?;
    print(&shop.until(|all| of_first(all).len() == all.len()).await?, out)?;

    writeln!(out, "\nIt starts a second process, which opens the same store. They share the work.")?;
    let mut second = Second::start(location)?;
    let shared =
        |all: &[ProjectionStatus]| of_first(all).len() * 2 == all.len() && of_second(all).len() * 2 == all.len();
    print(&shop.until(shared).await?, out)?;

    writeln!(
        out,
        "\nThis process places {ORDERS} orders. After {} of them the second is killed (kill -9).",
        ORDERS / 3
    )?;
    let before = counted(shop).await?;
    let mut last = Position::START;
    for n in 0..ORDERS {
        if n == ORDERS / 3 {
            second.kill()?;
        }
        last = place(shop, number + n).await?;
    }

    // Up to now, nobody may run what the second had. The wait ends when the first has taken it over and caught up.
    writeln!(out, "\nIts lease of {LEASE:?} ends, and the first takes over, from where the second had come.")?;
    shop.caught_up(last).await?;
    print(&shop.until(|all| of_first(all).len() == all.len()).await?, out)?;

    let keys: Vec<OrderId> = (0..ORDERS).map(|n| order(number + n)).collect::<Result<_, _>>()?;
    let rows = shop.views.find_many_of_tenant::<OrderList>(&Tenant::default(), &keys).await?;
    let (listed, more) = (rows.iter().flatten().count(), counted(shop).await? - before);
    writeln!(
        out,
        "\nThe list has {listed} of the {ORDERS} orders, and the sales by day count {more} more than before."
    )?;
    Ok(writeln!(out, "Rows and position are stored together, so no order is missing, and none counts twice.")?)
}

/// What the second process does: it runs read models until its input ends. That is when the first process has ended, however
/// that came.
pub async fn be_the_second(location: &Location) -> Result<(), Fault> {
    let shop = Shop::open_with(location, as_the_second).await?;
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    shop.close().await
}

/// A second process of this program, killed when this is dropped.
struct Second(Child);

impl Second {
    fn start(location: &Location) -> Result<Self, Fault> {
        let mut command = Command::new(std::env::current_exe()?);
        match location {
            Location::File(path) => command.arg("--db").arg(path),
            Location::Postgres(url) => command.env("DATABASE_URL", url),
        };
        let command = command.args(["two-processes", "--second"]).stdin(Stdio::piped()).stdout(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    /// On Unix this is `kill -9`: the process can do nothing more, not even say so.
    fn kill(&mut self) -> std::io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // It may be gone already; without its input it ends anyway.
        self.kill().ok();
    }
}

/// The read models that run in this process.
fn of_first(all: &[ProjectionStatus]) -> Vec<&str> {
    names(all, |state| matches!(state, ProjectionState::Live))
}

/// Those that the second process runs, as this one sees it.
fn of_second(all: &[ProjectionStatus]) -> Vec<&str> {
    names(all, |state| matches!(state, ProjectionState::Standby { owner: Some(owner) } if **owner == *"second"))
}

fn names(all: &[ProjectionStatus], are: impl Fn(&ProjectionState) -> bool) -> Vec<&str> {
    all.iter().filter(|status| are(&status.state)).map(|status| &*status.name).collect()
}

fn print(all: &[ProjectionStatus], out: &mut dyn Write) -> Result<(), Fault> {
    for (process, runs) in [("first", of_first(all)), ("second", of_second(all))] {
        if !runs.is_empty() {
            writeln!(out, "  {process:<6}  runs {}", runs.join(", "))?;
        }
    }
    Ok(())
}

fn order(number: i64) -> Result<OrderId, annals::Invalid> {
    OrderId::new(format!("o-{number}"))
}

async fn place(shop: &Shop, number: i64) -> Result<Position, Fault> {
    let lines = vec![Line { product: "kettle".to_owned(), quantity: 1, price: Money::euro_cents(4_900) }];
    Ok(shop.orders.send(&order(number)?, Place { customer: CustomerId::new("alice")?, lines }).await?.position)
}

/// How many orders the sales by day count.
async fn counted(shop: &Shop) -> Result<i64, Fault> {
    let days = shop.views.select::<DailySales>("ORDER BY day, currency", &[]).await?;
    Ok(days.iter().map(|day| day.orders).sum())
}
