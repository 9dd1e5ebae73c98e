//! One request, and what its answer means: an order is there, it is not, or nobody knows yet.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Fault;
use crate::checkout::Flow;

/// Longer than the service takes for any request, so that its own answer comes first.
const TIMEOUT: Duration = Duration::from_secs(40);

/// A client of the shop. All its orders are those of one customer, whom nobody else has.
pub struct Client {
    http: reqwest::Client,
    url: Url,
    key: String,
    flow: Option<Flow>,
    /// Names the customer and all keys.
    pub run: String,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The order is there.
    Acknowledged {
        /// Its id.
        order: String,
        /// Where its checkout stands, if that is what was asked for.
        checkout: Option<String>,
    },
    /// Nothing was done.
    Refused,
    /// It may have been done. The same request tells.
    Unknown,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status; `None` where no answer came.
    pub status: Option<u16>,
    /// What it means.
    pub outcome: Outcome,
}

/// The parts that matter of what a write answers, about an order or about its checkout.
#[derive(Deserialize)]
struct Written {
    #[serde(alias = "order")]
    order_id: String,
    status: String,
}

impl Client {
    /// # Errors
    /// The URL is none, or the system has no randomness.
    pub fn new(url: &str, key: &str, flow: Option<Flow>) -> Result<Self, Fault> {
        let wrong = |e| format!("`{url}` is no address, as http://127.0.0.1:8080 is: {e}");
        let url = url.parse().map_err(wrong)?;
        let http = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        let run = format!("load-{:012x}", getrandom::u64()? >> 16);
        Ok(Self { http, url, key: key.to_owned(), flow, run })
    }

    /// Sends the request of this number, or sends it again. Its key and its order follow from the number.
    pub async fn send(&self, number: u64) -> Answer {
        let path = match self.flow {
            None => "/orders",
            Some(Flow::Orchestrated) => "/checkouts?flow=orchestrated",
            Some(Flow::Choreographed) => "/checkouts?flow=choreographed",
        };
        let price = json!({ "minor": price(number), "currency": "EUR" });
        let body = json!({ "customer": self.run, "lines": [{ "product": "kettle", "quantity": 1, "price": price }] });
        match self.write(Method::POST, path, &number.to_string(), &body).await {
            Ok(response) => self.understood(response).await,
            Err(_) => Answer { status: None, outcome: Outcome::Unknown },
        }
    }

    async fn understood(&self, response: reqwest::Response) -> Answer {
        let status = response.status();
        let outcome = match status {
            status if status.is_success() => match response.json().await {
                Ok(Written { order_id: order, status }) => {
                    Outcome::Acknowledged { order, checkout: self.flow.map(|_| status) }
                }
                Err(_) => Outcome::Unknown,
            },
            // One with the same key is being done.
            StatusCode::CONFLICT if response.headers().contains_key(RETRY_AFTER) => Outcome::Unknown,
            status if status.is_client_error() => Outcome::Refused,
            _ => Outcome::Unknown,
        };
        Answer { status: Some(status.as_u16()), outcome }
    }

    /// A write under a key of this run.
    pub async fn write(
        &self,
        method: Method,
        path: &str,
        key: &str,
        body: &Value,
    ) -> Result<reqwest::Response, reqwest::Error> {
        let request = self.request(method, path).header("idempotency-key", format!("{}-{key}", self.run));
        request.json(body).send().await
    }

    /// Reads what is at a path; gives the status and the body.
    pub async fn read(&self, path: &str) -> Result<(StatusCode, Value), Fault> {
        let response = self.request(Method::GET, path).send().await?;
        Ok((response.status(), response.json().await?))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.url.as_str().trim_end_matches('/'));
        self.http.request(method, url).bearer_auth(&self.key)
    }
}

/// The price of an order in cents: its number, by which it is found again, whatever its id is.
pub fn price(number: u64) -> u64 {
    number + 1
}
