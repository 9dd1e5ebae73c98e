//! API keys. A key is `ID.SECRET`; the settings hold its id and its SHA-256, so that nobody who reads them can use it.
//!
//! One round of SHA-256 is enough, because the secret is 32 random bytes, which nobody finds by trying. For passwords, which people
//! choose, it would not be.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use annals::{Invalid, Tenant};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::caller::{Caller, Role};
use crate::domain::order::CustomerId;

/// One key, as the settings have it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    /// The public part of the key.
    pub id: String,
    /// The SHA-256 of the whole key, as 64 hexadecimal digits.
    pub sha256: String,
    /// Whose data it opens.
    pub tenant: String,
    /// What its owner may do.
    pub role: Role,
    /// Which customer its owner is, and only for that role.
    pub customer: Option<String>,
}

/// A key that cannot be one.
#[derive(Debug, thiserror::Error)]
#[error("the key `{id}`: {problem}")]
pub struct KeyFault {
    id: String,
    problem: String,
}

type Hash = [u8; 32];

/// All keys.
#[derive(Debug)]
pub struct Keys(HashMap<String, (Hash, Caller)>);

impl Keys {
    /// Checks them.
    ///
    /// # Errors
    /// [`KeyFault`] names the key and what is wrong with it.
    pub fn new(settings: &[KeySettings]) -> Result<Self, KeyFault> {
        let mut keys = HashMap::new();
        for one in settings {
            let fault = |problem: String| KeyFault { id: one.id.clone(), problem };
            let invalid = |e: Invalid| fault(e.to_string());
            let hash =
                from_hex(&one.sha256).ok_or_else(|| fault("`sha256` is not 64 hexadecimal digits".to_owned()))?;
            let customer = one.customer.as_deref().map(CustomerId::new).transpose().map_err(invalid)?;
            if customer.is_some() != (one.role == Role::Customer) {
                return Err(fault("the role `customer` needs a `customer`, and no other has one".to_owned()));
            }
            if one.id.is_empty() || one.id.contains('.') || !one.id.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(fault("an `id` is visible ASCII without a dot".to_owned()));
            }
            let tenant = Tenant::new(&one.tenant).map_err(invalid)?;
            let caller = Caller { key: Arc::from(&*one.id), tenant, role: one.role, customer };
            if keys.insert(one.id.clone(), (hash, caller)).is_some() {
                return Err(fault("is there twice".to_owned()));
            }
        }
        Ok(Self(keys))
    }

    /// Whose key it is. It takes as long for a wrong secret as for a right one, and for an id that nobody has: how long an answer
    /// takes helps nobody to guess.
    pub fn find(&self, key: &str) -> Option<&Caller> {
        let found = key.split_once('.').and_then(|(id, _)| self.0.get(id));
        let hash = found.map_or([0; 32], |(hash, _)| *hash);
        let is_right = bool::from(hash_of(key).ct_eq(&hash));
        found.filter(|_| is_right).map(|(_, caller)| caller)
    }

    /// The shops: whose customers or staff have keys.
    pub fn shops(&self) -> Vec<Tenant> {
        let people = self.0.values().filter(|(_, caller)| caller.role != Role::Operator);
        people.map(|(_, caller)| caller.tenant.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// How many tenants have keys.
    pub fn tenants(&self) -> usize {
        self.0.values().map(|(_, caller)| &caller.tenant).collect::<BTreeSet<_>>().len()
    }

    /// Whether a key of this id is there and belongs to none of them, but to those who run the service.
    pub fn is_of_no_shop(&self, id: &str) -> bool {
        self.0.get(id).is_some_and(|(_, caller)| !self.shops().contains(&caller.tenant))
    }

    /// Whether it is the key of somebody who works here. Of the others the id may say which customer it is.
    pub fn is_of_staff(&self, id: &str) -> bool {
        self.0.get(id).is_some_and(|(_, caller)| caller.role != Role::Customer)
    }
}

/// Makes a key, and the lines of the settings for it.
pub fn new_key(
    tenant: &Tenant,
    role: Role,
    customer: Option<&CustomerId>,
) -> Result<(String, String), getrandom::Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    // A shop may be called by its domain, and an id has no dot.
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let shop: String = tenant.as_str().chars().map(plain).collect();
    let id = format!("{shop}-{}-{}", role.name(), &to_hex(&secret[..4]));
    let key = format!("{id}.{}", to_hex(&secret[4..]));
    let sha256 = to_hex(&hash_of(&key));
    let values = [("id", &*id), ("sha256", &*sha256), ("tenant", tenant.as_str()), ("role", role.name())];
    let mut lines = "[[keys]]\n".to_owned();
    for (name, value) in values.into_iter().chain(customer.map(|customer| ("customer", customer.as_str()))) {
        lines += &format!("{name} = {}\n", toml::Value::from(value));
    }
    Ok((key, lines))
}

/// The keys of the demonstration, which everybody knows: their secret is `demo`.
pub fn of_the_demo() -> Vec<KeySettings> {
    let key = |id: &str, tenant: &str, role, customer: Option<&str>| KeySettings {
        id: id.to_owned(),
        sha256: to_hex(&hash_of(&format!("{id}.demo"))),
        tenant: tenant.to_owned(),
        role,
        customer: customer.map(str::to_owned),
    };
    vec![
        key("alpha-alice", "alpha", Role::Customer, Some("alice")),
        key("alpha-bob", "alpha", Role::Customer, Some("bob")),
        key("alpha-admin", "alpha", Role::Admin, None),
        key("beta-carol", "beta", Role::Customer, Some("carol")),
        key("beta-admin", "beta", Role::Admin, None),
        key("alpha-operator", "alpha", Role::Operator, None),
        key("operator", "operators", Role::Operator, None),
    ]
}

fn hash_of(key: &str) -> Hash {
    Sha256::digest(key.as_bytes()).into()
}

/// Bytes as hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<Hash> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(hash)
}
