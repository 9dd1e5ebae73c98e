//! A small shop on annals: the manual as a program. README.md beside this folder has the reading order.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    example_orders::run().await
}
