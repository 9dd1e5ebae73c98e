//! How the shop calls the services: each call carries its key, what is left of its time, the shop and the trace, and goes through
//! the policy of the service.
//!
//! The settings are those of the page of defaults, with the times of the budget: a customer waits 30 s for a checkout, of which
//! payment may take 10, the warehouse 5 and the order itself 5; what is left is for the carrier. `build` refuses settings that do not fit.

use std::sync::Arc;
use std::time::Duration;

use annals::resilience::retry::Retry;
use annals::resilience::{CallError, Deadline, IdempotencyKey, Policy, PolicySettings, Profile};
use annals::sagas::StepError;
use annals::sagas::participant::outcome;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::faults::Faults;
use super::server::{SHOP, TRACE};
use crate::Fault;

/// What a customer waits for a checkout at most. It goes on behind that.
pub const BUDGET: Duration = Duration::from_secs(30);
/// What of it the commands of the order may take.
const ORDER: Duration = Duration::from_secs(5);

/// How long a service may take to say or change what goes wrong with it.
const CONTROL: Duration = Duration::from_secs(2);

/// In whose name a service is called.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The shop.
    pub shop: String,
    /// The W3C trace context of the request that led to the call.
    pub trace: Option<String>,
}

/// The client of one service.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: Arc<str>,
    /// All calls go through it. The steps of a saga are put through it by the saga.
    pub policy: Policy,
}

/// The clients of all services.
#[derive(Clone)]
pub struct Clients {
    /// Of the payment service.
    pub payment: Client,
    /// Of the warehouse.
    pub stock: Client,
    /// Of the carrier.
    pub shipping: Client,
}

/// The settings of the policies, and the defaults of this shop.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct ClientSettings {
    /// Of the payment service: 10 s in all.
    pub payment: PolicySettings,
    /// Of the warehouse: 5 s in all.
    pub stock: PolicySettings,
    /// Of the carrier: 10 s in all.
    pub shipping: PolicySettings,
}

impl Default for ClientSettings {
    fn default() -> Self {
        let within = |profile, timeout, cap, deadline| PolicySettings {
            profile,
            timeout: Some(Duration::from_millis(timeout)),
            retry: Some(Retry { attempts: 2, cap: Duration::from_millis(cap), ..Retry::default() }),
            deadline: Some(Duration::from_secs(deadline)),
            bulkhead: Some(20.into()),
            ..PolicySettings::default()
        };
        Self {
            payment: within(Profile::Medium, 4_000, 1_000, 10),
            stock: within(Profile::Fast, 2_000, 500, 5),
            shipping: within(Profile::Medium, 4_000, 1_000, 10),
        }
    }
}

impl Clients {
    /// Clients of the services at these addresses, such as `http://127.0.0.1:4101`: payment, stock, shipping.
    ///
    /// # Errors
    /// The settings do not fit each other, or the budget.
    pub fn new([payment, stock, shipping]: [&str; 3], settings: ClientSettings) -> Result<Self, Fault> {
        let clients = Self {
            payment: Client::new("payment", payment, settings.payment)?,
            stock: Client::new("stock", stock, settings.stock)?,
            shipping: Client::new("shipping", shipping, settings.shipping)?,
        };
        let policies = [&clients.payment.policy, &clients.stock.policy, &clients.shipping.policy];
        Policy::slow("checkout").timeout(BUDGET - ORDER).in_sequence(policies).build()?;
        Ok(clients)
    }
}

impl Client {
    /// The client of a service at an address.
    ///
    /// # Errors
    /// The settings do not fit each other.
    pub fn new(name: &str, url: &str, settings: PolicySettings) -> Result<Self, Fault> {
        let connect = settings.connect_timeout.unwrap_or_else(|| settings.profile.connect_timeout());
        let http = reqwest::Client::builder().connect_timeout(connect).no_proxy().build()?;
        Ok(Self { http, url: url.into(), policy: Policy::from_settings(name, settings)? })
    }

    /// Sends a request once. `T` is what the service answers, as JSON.
    pub async fn send<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
        origin: &Origin,
        key: &IdempotencyKey,
        deadline: Deadline,
    ) -> Result<T, StepError> {
        let mut request = self.http.post(format!("{}{path}", self.url)).json(body);
        request = request.header("idempotency-key", key.as_str()).header(SHOP, &origin.shop);
        if let Some(left) = deadline.to_header().map_err(StepError::transient)? {
            request = request.header(Deadline::HEADER, left);
        }
        if let Some(trace) = &origin.trace {
            request = request.header(TRACE, trace);
        }
        let answer = request.send().await.map_err(no_answer)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        outcome(status, &headers, &answer.bytes().await.map_err(no_answer)?)
    }

    /// Whether the service says that it is well. It is asked beside the policy, whose breaker counts calls that matter.
    ///
    /// # Errors
    /// It does not answer, or not that.
    pub async fn is_up(&self) -> Result<(), reqwest::Error> {
        let asked = async { self.http.get(format!("{}/health", self.url)).send().await?.error_for_status() };
        // Everyone who asks for the health of the shop reads it.
        asked.await.map(drop).map_err(reqwest::Error::without_url)
    }

    /// What goes wrong with the service, by the switches that it has for that.
    ///
    /// # Errors
    /// It does not answer, or not that.
    pub async fn faults(&self) -> Result<Faults, reqwest::Error> {
        let request = self.http.get(format!("{}/faults", self.url)).timeout(CONTROL);
        request.send().await?.error_for_status()?.json().await
    }

    /// Changes what goes wrong with it from now on.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub async fn set_faults(&self, faults: &Faults) -> Result<(), reqwest::Error> {
        let request = self.http.put(format!("{}/faults", self.url)).timeout(CONTROL).json(faults);
        request.send().await?.error_for_status().map(drop)
    }

    /// Sends a request through the policy, for those who call outside of a saga.
    pub async fn call<T: DeserializeOwned + Send>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
        origin: &Origin,
        key: &IdempotencyKey,
    ) -> Result<T, CallError<StepError>> {
        self.policy.keyed(key, |call, key| self.send(path, body, origin, key, call.deadline())).run().await
    }
}

/// Without a connection nothing has happened. Anything else may have. Customers read it, and the address is nothing for them.
fn no_answer(error: reqwest::Error) -> StepError {
    let error = error.without_url();
    if error.is_connect() { StepError::transient(error) } else { StepError::unknown(error) }
}
