//! The story of an order, told with annals. See README.md beside this file for the reading order.

#![expect(unreachable_pub, reason = "the files are told as those of a library would be")]

mod analytics;
mod detail;
mod list;
mod many;
mod money;
mod order;
mod payment;
mod place;
mod resilience;
mod shop;
mod story;
mod tables;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::place::Place;
use crate::shop::Shop;

/// Whatever stops a scene.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Plays orders through a real event store into three read models, all in one SQLite file, or in the PostgreSQL database
/// that DATABASE_URL names.
#[derive(Parser)]
struct Options {
    /// The file, `orders.db` by default; it is created, or goes on from what is there.
    #[arg(long)]
    db: Option<PathBuf>,
    /// Play so many orders at once instead, and print the rate.
    #[arg(long)]
    orders: Option<u64>,
    #[command(subcommand)]
    scene: Option<Scene>,
}

#[derive(Subcommand)]
enum Scene {
    /// Four orders of two customers, step by step; the default.
    Story,
    /// A payment service degrades, fails and recovers; nothing is stored.
    Resilience,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Err(fault) = run(Options::parse()).await else { return ExitCode::SUCCESS };
    eprintln!("error: {fault}");
    let mut source = fault.source();
    while let Some(cause) = source {
        eprintln!("  because {cause}");
        source = cause.source();
    }
    ExitCode::FAILURE
}

async fn run(options: Options) -> Result<(), Fault> {
    if let Some(Scene::Resilience) = options.scene {
        return tokio::task::spawn_blocking(in_paused_time).await?;
    }
    let place = Place::of(options.db, std::env::var("DATABASE_URL").ok())?;
    if let Place::Postgres(_) = place {
        println!("Everything is kept in the database of DATABASE_URL, whose schema is brought up to date first.\n");
    }
    let shop = Shop::open(&place).await?;
    match (options.orders, options.scene) {
        (Some(orders), _) => many::play(&shop, orders).await?,
        (None, _) => story::play(&shop, &mut std::io::stdout()).await?,
    }
    shop.close().await?;
    place.say_how_to_look_further();
    Ok(())
}

/// A runtime of its own, as time can be paused for all of a runtime only.
fn in_paused_time() -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(resilience::play(&mut std::io::stdout()))
}
