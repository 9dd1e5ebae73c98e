//! How the checkouts end, also those that went on when they were answered.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep};

use super::client::{Client, Outcome};
use super::drive::Sent;
use crate::Fault;

/// How long a checkout is waited for, and before the next look at it.
const LONGEST: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(100);
/// Looks at once.
const AT_ONCE: usize = 16;

/// How the checkouts ended.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// How many stand where: `completed`, `compensated`, `stuck`, or in between.
    pub by_status: BTreeMap<String, usize>,
    /// Those that had been begun and had not ended when the last one was sent.
    pub backlog: usize,
    /// How long after that the last one ended.
    pub later: Duration,
}

impl Ends {
    /// How many stand there.
    pub fn count(&self, status: &str) -> usize {
        self.by_status.get(status).copied().unwrap_or(0)
    }
}

/// Waits until all have ended or are stuck, and notes in `all` where they stand.
///
/// # Errors
/// A checkout cannot be read.
pub async fn settle(client: &Client, all: &mut [Sent], start: Instant) -> Result<Ends, Fault> {
    let last_sent = all.iter().map(|sent| sent.sent).max().unwrap_or_default();
    let mut ended = all.iter().map(|sent| sent.answered).max().unwrap_or_default();
    // One that has ended when it is answered was not before.
    let mut backlog =
        all.iter().filter(|sent| sent.answered > last_sent && checkout(sent).is_some_and(has_ended)).count();
    let going: Vec<(usize, String)> =
        all.iter().enumerate().filter_map(|(at, sent)| Some((at, going(sent)?))).collect();
    backlog += going.len();
    let end = Instant::now() + LONGEST;
    let looks =
        stream::iter(going).map(async |(at, order)| Ok::<_, Fault>((at, until_ended(client, &order, end).await?)));
    let looks: Vec<_> = looks.buffer_unordered(AT_ONCE).collect().await;
    for look in looks {
        let (at, (status, when)) = look?;
        ended = ended.max(when - start);
        if let Outcome::Acknowledged { checkout, .. } = &mut all[at].answer.outcome {
            *checkout = Some(status);
        }
    }
    let mut by_status = BTreeMap::new();
    for status in all.iter().filter_map(checkout) {
        *by_status.entry(status.to_owned()).or_insert(0) += 1;
    }
    Ok(Ends { by_status, backlog, later: ended.saturating_sub(last_sent) })
}

fn checkout(sent: &Sent) -> Option<&str> {
    match &sent.answer.outcome {
        Outcome::Acknowledged { checkout, .. } => checkout.as_deref(),
        _ => None,
    }
}

/// Whether nothing more happens by itself.
fn has_ended(status: &str) -> bool {
    matches!(status, "completed" | "compensated" | "stuck")
}

/// The order of a checkout that went on when it was answered.
fn going(sent: &Sent) -> Option<String> {
    match &sent.answer.outcome {
        Outcome::Acknowledged { order, checkout: Some(status) } if !has_ended(status) => Some(order.clone()),
        _ => None,
    }
}

/// Waits until a checkout has ended, or the time is over; gives where it stands, and when that was seen.
async fn until_ended(client: &Client, order: &str, end: Instant) -> Result<(String, Instant), Fault> {
    loop {
        let (code, body) = client.read(&format!("/orders/{order}/checkout")).await?;
        let status = body["standing"]["status"].as_str();
        let now = Instant::now();
        match status {
            Some(status) if has_ended(status) || now > end => return Ok((status.to_owned(), now)),
            None if now > end => return Err(format!("the checkout of `{order}` cannot be read: {code} {body}").into()),
            _ => sleep(PAUSE).await,
        }
    }
}
