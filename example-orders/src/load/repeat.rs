//! Sends requests again under their keys, as clients do: those without an outcome, until they have one, and some that were answered,
//! as if the answer had been lost on its way.

use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep};

use super::client::{Client, Outcome};
use super::drive::Sent;

/// One in so many that were answered is sent again, but at most so many.
const ONE_IN: usize = 20;
const MOST: usize = 1_000;
/// Repeats at once.
const AT_ONCE: usize = 16;
/// How long an outcome is waited for, and how long before a request is sent again.
const LONGEST: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// What was sent again.
#[derive(Clone, Debug, Default)]
pub struct Repeats {
    /// Requests that had no outcome.
    pub unknown: usize,
    /// Those of them that have none still.
    pub unknown_still: usize,
    /// Requests that were acknowledged, and acknowledged again.
    pub acknowledged: usize,
    /// Those of them that were acknowledged with another order, which is here.
    pub another_order: Vec<String>,
}

/// Sends again what has no outcome, and notes the outcome in `all`.
pub async fn resolve(client: &Client, all: &mut [Sent], repeats: &mut Repeats) {
    let end = Instant::now() + LONGEST;
    let unknown = all.iter().enumerate().filter(|(_, sent)| sent.answer.outcome == Outcome::Unknown);
    let unknown: Vec<(usize, u64)> = unknown.map(|(at, sent)| (at, sent.number)).collect();
    repeats.unknown = unknown.len();
    let outcomes = stream::iter(unknown).map(async |(at, number)| (at, outcome(client, number, end).await));
    let outcomes: Vec<(usize, Outcome)> = outcomes.buffer_unordered(AT_ONCE).collect().await;
    for (at, outcome) in outcomes {
        repeats.unknown_still += usize::from(outcome == Outcome::Unknown);
        all[at].answer.outcome = outcome;
    }
}

/// Sends some again that were acknowledged. Each gets the order that it has.
pub async fn send_again(client: &Client, all: &[Sent], repeats: &mut Repeats) {
    let end = Instant::now() + LONGEST;
    let some = all.iter().step_by(ONE_IN).take(MOST).filter_map(|sent| match &sent.answer.outcome {
        Outcome::Acknowledged { order, .. } => Some((sent.number, order.clone())),
        _ => None,
    });
    let some: Vec<(u64, String)> = some.collect();
    let again = stream::iter(some).map(async |(number, first)| (first, outcome(client, number, end).await));
    let again: Vec<(String, Outcome)> = again.buffer_unordered(AT_ONCE).collect().await;
    for (first, outcome) in again {
        if let Outcome::Acknowledged { order, .. } = outcome {
            repeats.acknowledged += 1;
            repeats.another_order.extend(Some(order).filter(|order| *order != first));
        }
    }
}

/// Sends a request until it has an outcome, or the time is over.
async fn outcome(client: &Client, number: u64, end: Instant) -> Outcome {
    loop {
        let outcome = client.send(number).await.outcome;
        if outcome != Outcome::Unknown || Instant::now() > end {
            return outcome;
        }
        sleep(PAUSE).await;
    }
}
