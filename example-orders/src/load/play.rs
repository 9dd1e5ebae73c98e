//! A run: the load, what is sent again, and what is there in the end.

use std::io::Write;
use std::sync::Arc;

use tokio::time::Instant;

use super::checkouts::settle;
use super::client::Client;
use super::drive::drive;
use super::options::Options;
use super::own::with_own_service;
use super::read_back::read_back;
use super::repeat::{resolve, send_again};
use super::report::Report;
use crate::Fault;

/// Puts a service under load, one of its own if none is named, and prints the report to `out`.
///
/// # Errors
/// An order is lost, or is there twice; or the service cannot be reached or started.
pub async fn play(options: &Options, out: &mut dyn Write) -> Result<(), Fault> {
    let report = match &options.url {
        Some(url) => measure(options, url).await?,
        None => with_own_service(async |url| measure(options, &url).await).await?,
    };
    let what = match options.checkouts {
        None => "orders".to_owned(),
        Some(flow) => format!("checkouts, {flow:?},").to_lowercase(),
    };
    let speed = options.rate.map_or("as fast as possible".to_owned(), |rate| format!("{rate} per second"));
    let Options { seconds, connections, .. } = options;
    write!(out, "{what} {speed} for {seconds} s, {connections} at once\n{report}")?;
    report.problem().map_or(Ok(()), |problem| Err(problem.into()))
}

/// Puts the service at `url` under load.
///
/// # Errors
/// The orders cannot be read back.
pub async fn measure(options: &Options, url: &str) -> Result<Report, Fault> {
    let client = Arc::new(Client::new(url, &options.key, options.checkouts)?);
    let start = Instant::now();
    let mut all = drive(&client, options).await?;
    let mut report = Report::of(&all);
    resolve(&client, &mut all, &mut report.repeats).await;
    if options.checkouts.is_some() {
        report.checkouts = Some(settle(&client, &mut all, start).await?);
    }
    send_again(&client, &all, &mut report.repeats).await;
    (report.read_back, report.shown_after) = read_back(&client, &all).await?;
    Ok(report)
}
