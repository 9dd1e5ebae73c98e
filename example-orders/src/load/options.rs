//! What is sent, how fast, and to whom.

use std::time::Duration;

use clap::{Args, value_parser};

use crate::checkout::Flow;

/// How the shop is put under load.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Requests per second. Each has its time, whether or not those before it are answered. Without it, a connection sends the next
    /// request when it has its answer, which is the most that the shop takes.
    #[arg(long, value_parser = value_parser!(u32).range(1..=100_000))]
    pub rate: Option<u32>,
    /// For how many seconds.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=3_600))]
    pub seconds: u32,
    /// Requests at once, at most.
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(1..=4_096))]
    pub connections: u32,
    /// The service, such as `http://127.0.0.1:8080`, whose limits must let the load pass. Without it one is started in this process, on
    /// a store that is deleted at the end.
    #[arg(long)]
    pub url: Option<String>,
    /// The API key of an admin of a shop.
    #[arg(long, default_value = "alpha-admin.demo")]
    pub key: String,
    /// Orders are checked out, in this variant, and not only placed.
    #[arg(long)]
    pub checkouts: Option<Flow>,
}

impl Options {
    /// For how long.
    pub fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}
