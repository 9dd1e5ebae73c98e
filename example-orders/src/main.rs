//! The story of an order, told with annals. See README.md beside this file for the reading order.

#![expect(unreachable_pub, reason = "the files are told as those of a library would be")]

mod analytics;
mod detail;
mod list;
mod many;
mod money;
mod order;
mod shop;
mod story;
mod tables;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::shop::Shop;

/// Whatever stops a scene.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Plays orders through a real event store into three read models, all in one SQLite file.
#[derive(Parser)]
struct Options {
    /// The file; it is created, or goes on from what is there.
    #[arg(long, default_value = "orders.db")]
    db: PathBuf,
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
}

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let options = Options::parse();
    let store = annals::sqlite(&options.db).await?;
    let shop = Shop::over(store).await?;
    match (options.orders, options.scene) {
        (Some(orders), _) => many::play(&shop, orders).await?,
        (None, None | Some(Scene::Story)) => story::play(&shop, &mut std::io::stdout()).await?,
    }
    shop.close().await?;
    let file = options.db.display();
    println!("\nThe events and the tables are in {file}. To look further:");
    println!("  sqlite3 {file} 'SELECT position, aggregate_id, version, event_type, event_data FROM events'");
    println!("  sqlite3 -box {file} 'SELECT * FROM order_list'");
    println!("  cargo run -p example-orders -- --orders 10000");
    println!("Run it again and it goes on from there.");
    Ok(())
}
