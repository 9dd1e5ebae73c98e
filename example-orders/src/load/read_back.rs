//! Reads all orders of the run, and compares them with what was acknowledged.

use std::collections::HashMap;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::client::{Client, Outcome, price};
use super::drive::Sent;
use crate::Fault;

/// How long the list may take to show all.
const LONGEST: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadBack {
    /// Orders that were acknowledged.
    pub acknowledged: usize,
    /// Those of them that are not there.
    pub lost: Vec<String>,
    /// Orders that are there though their request has another one.
    pub duplicated: Vec<String>,
    /// Orders that are there though their request was refused, or never made.
    pub unexpected: Vec<String>,
}

/// Compares what was acknowledged with the orders that were found, by the numbers of their requests.
pub fn compare(all: &[Sent], mut found: HashMap<u64, Vec<String>>) -> ReadBack {
    let mut result = ReadBack::default();
    for sent in all {
        let mut there = found.remove(&sent.number).unwrap_or_default();
        match &sent.answer.outcome {
            Outcome::Acknowledged { order, checkout } if is_placed(checkout.as_deref()) => {
                result.acknowledged += 1;
                match there.iter().position(|id| id == order) {
                    Some(at) => drop(there.remove(at)),
                    None => result.lost.push(order.clone()),
                }
                result.duplicated.append(&mut there);
            }
            Outcome::Refused => result.unexpected.append(&mut there),
            // It may be there, but not twice.
            Outcome::Unknown | Outcome::Acknowledged { .. } => result.duplicated.extend(there.into_iter().skip(1)),
        }
    }
    result.unexpected.extend(found.into_values().flatten());
    result
}

/// Whether there must be an order: a checkout that goes on or is stuck may not have placed it.
fn is_placed(checkout: Option<&str>) -> bool {
    checkout.is_none_or(|status| matches!(status, "completed" | "compensated"))
}

/// Reads all orders of the run, when the list shows everything that was written before; gives also how long that took.
///
/// # Errors
/// They cannot be read, or not all of them within two minutes.
pub async fn read_back(client: &Client, all: &[Sent]) -> Result<(ReadBack, Duration), Fault> {
    let start = Instant::now();
    let position = position(client).await?;
    let list = format!("/orders?customer={}&sort=placed-at&limit=100", client.run);
    let mut page = shown(client, &format!("{list}&at_least={position}"), start + LONGEST).await?;
    let shown_after = start.elapsed();
    let mut found: HashMap<u64, Vec<String>> = HashMap::new();
    loop {
        for order in page["orders"].as_array().into_iter().flatten() {
            let (id, cents) = (order["order_id"].as_str(), order["total"]["minor"].as_u64());
            let (Some(id), Some(cents)) = (id, cents) else { return Err(format!("`{order}` is no order").into()) };
            found.entry(cents.wrapping_sub(price(0))).or_default().push(id.to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        page = shown(client, &format!("{list}&after={next}"), start + LONGEST).await?;
    }
    Ok((compare(all, found), shown_after))
}

/// A position behind all orders: that of one more write.
async fn position(client: &Client) -> Result<String, Fault> {
    let path = format!("/customers/{}", client.run);
    let answer = client.write(Method::PUT, &path, "name", &json!({ "name": "Load" })).await?;
    let position = answer.headers().get("x-position").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let status = answer.status();
    position.ok_or_else(|| format!("the service answers `PUT {path}` with {status}, and without a position").into())
}

/// A page, as soon as it is one of now.
async fn shown(client: &Client, path: &str, end: Instant) -> Result<Value, Fault> {
    loop {
        let (status, page) = client.read(path).await?;
        let is_stale = page["older_than_asked"] == true || !page["stale_seconds"].is_null();
        match status {
            StatusCode::OK if !is_stale => return Ok(page),
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
                if Instant::now() < end =>
            {
                sleep(PAUSE).await;
            }
            _ => return Err(format!("the list of orders cannot be read back: {status} {page}").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::client::Answer;

    fn sent(number: u64, outcome: Outcome) -> Sent {
        let (intended, sent, answered) = Default::default();
        Sent { number, intended, sent, answered, answer: Answer { status: None, outcome } }
    }

    fn check(outcome: Outcome, found: &[&str], lost: &[&str], duplicated: &[&str], unexpected: &[&str]) {
        let found = HashMap::from([(7, found.iter().map(|&id| id.to_owned()).collect())]);
        let result = compare(&[sent(7, outcome.clone())], found);
        assert_eq!(
            (result.lost, result.duplicated, result.unexpected),
            (owned(lost), owned(duplicated), owned(unexpected)),
            "{outcome:?}"
        );
    }

    fn owned(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|&id| id.to_owned()).collect()
    }

    #[test]
    fn an_order_that_was_acknowledged_is_there_once_and_one_that_was_not_at_most_where_nobody_knows() {
        let placed = || Outcome::Acknowledged { order: "a".to_owned(), checkout: None };
        check(placed(), &["a"], &[], &[], &[]);
        check(placed(), &[], &["a"], &[], &[]);
        check(placed(), &["b"], &["a"], &["b"], &[]);
        check(placed(), &["b", "a"], &[], &["b"], &[]);
        check(placed(), &["a", "a"], &[], &["a"], &[]);
        let going = || Outcome::Acknowledged { order: "a".to_owned(), checkout: Some("running".to_owned()) };
        check(going(), &[], &[], &[], &[]);
        check(going(), &["a", "b"], &[], &["b"], &[]);
        check(Outcome::Refused, &[], &[], &[], &[]);
        check(Outcome::Refused, &["a"], &[], &[], &["a"]);
        check(Outcome::Unknown, &["a"], &[], &[], &[]);
        check(Outcome::Unknown, &["a", "b"], &[], &["b"], &[]);
        let result = compare(&[], HashMap::from([(9, owned(&["a"]))]));
        assert_eq!(result.unexpected, ["a"], "no request of the run has made it");
    }
}
