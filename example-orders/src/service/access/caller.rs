//! The caller of a request, as its API key says.

use std::sync::Arc;

use annals::{Actor, Invalid, Tenant};
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;

use crate::domain::order::CustomerId;
use crate::service::app::App;
use crate::service::problem::Problem;

/// What a caller may do; the documents of the routes say which roles each takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A customer of a shop: own orders, and no others.
    Customer,
    /// Somebody of the staff of a shop: all orders of the shop.
    Admin,
    /// Somebody who runs the service: how it is, the sums over all shops, and decisions about checkouts of the shop of the key. No
    /// orders.
    Operator,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Customer, Self::Admin, Self::Operator];

    /// As the documents have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Admin => "admin",
            Self::Operator => "operator",
        }
    }
}

/// The caller of a request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The public part of the key: who it is in logs and in the metadata of events.
    pub key: Arc<str>,
    /// Whose data it is.
    pub tenant: Tenant,
    /// What the caller may do.
    pub role: Role,
    /// Of a customer: which one.
    pub customer: Option<CustomerId>,
}

impl Caller {
    /// Whether orders of this customer are there for the caller.
    pub fn sees(&self, customer: &CustomerId) -> bool {
        self.role != Role::Customer || self.customer.as_ref() == Some(customer)
    }

    /// Whom the caller may ask about: a customer only about themselves, whatever is asked for.
    pub fn only(&self, asked: Option<CustomerId>) -> Result<Option<CustomerId>, Problem> {
        match (self.role, asked) {
            (Role::Customer, None) => Ok(self.customer.clone()),
            (_, Some(customer)) if !self.sees(&customer) => Err(Problem::not_found("customer", customer)),
            (_, asked) => Ok(asked),
        }
    }

    /// As it is stored with events.
    pub fn actor(&self) -> Result<Actor, Invalid> {
        Actor::new(&self.key)
    }

    /// Whose idempotency keys they are. No two callers have one name: the part behind the last slash has none of its own, as a slash in
    /// the id of a key is written as a space, which no id has.
    pub fn name(&self) -> String {
        format!("{}/{}", self.tenant, self.key.replace('/', " "))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    /// The guard has put it there. A route without the guard in front of it answers nobody.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(super::guard::unknown)
    }
}

/// A caller whose key is that of no shop, but of those who run the service: what concerns all shops is decided by nobody else.
#[derive(Clone, Copy, Debug)]
pub struct OfNoShop;

impl FromRequestParts<App> for OfNoShop {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, app).await?;
        if app.keys.is_of_no_shop(&caller.key) {
            return Ok(Self);
        }
        let detail = "it concerns all shops, and the key is that of one; a key of an operator of no shop is for it";
        Err(Problem::new(StatusCode::FORBIDDEN, "all-shops", detail))
    }
}
