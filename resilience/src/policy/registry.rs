use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::{Policy, PolicySettings, PolicyState};
use crate::error::{Check, SettingsError};

/// The policies of a process by name, for pages that show them and for those who look one up.
///
/// ```
/// use annals_resilience::{Policies, PolicySettings};
/// use std::collections::BTreeMap;
///
/// let settings: BTreeMap<String, PolicySettings> =
///     serde_json::from_str(r#"{"payment": {"profile": "medium"}, "stock": {"profile": "fast"}}"#)?;
/// let policies = Policies::from_settings(settings)?;
/// assert_eq!(policies.named("stock")?.name(), "stock");
/// let unknown = policies.named("stocks").unwrap_err();
/// assert_eq!(unknown.to_string(), "there is no policy `stocks`; there are: payment, stock");
/// assert_eq!(policies.states().len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Policies {
    by_name: Arc<RwLock<BTreeMap<Arc<str>, Policy>>>,
}

/// There is a policy of this name already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is a policy `{name}` already")]
pub struct DuplicatePolicy {
    /// The name.
    pub name: String,
}

/// There is no policy of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no policy `{name}`; there are: {}", if .known.is_empty() { "none".to_owned() } else { .known.join(", ") })]
pub struct UnknownPolicy {
    /// The name.
    pub name: String,
    /// The names there are.
    pub known: Vec<String>,
}

impl Policies {
    /// No policies yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// All policies of a settings file.
    ///
    /// # Errors
    /// [`SettingsError`] of the first policy whose settings cannot work, or whose name was there already.
    pub fn from_settings(
        settings: impl IntoIterator<Item = (impl Into<Arc<str>>, PolicySettings)>,
    ) -> Result<Self, SettingsError> {
        let mut by_name = BTreeMap::new();
        for (name, settings) in settings {
            let name = name.into();
            if by_name.contains_key(&name) {
                Check::of(&name).refuse("name", &*name, "there is another policy of this name")?;
            }
            by_name.insert(name.clone(), Policy::from_settings(name, settings)?);
        }
        Ok(Self { by_name: Arc::new(RwLock::new(by_name)) })
    }

    /// Adds a policy under its name.
    ///
    /// # Errors
    /// [`DuplicatePolicy`]; the one that was there stays.
    pub fn add(&self, policy: Policy) -> Result<(), DuplicatePolicy> {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        if by_name.contains_key(policy.name()) {
            return Err(DuplicatePolicy { name: policy.name().to_owned() });
        }
        by_name.insert(policy.engine.name.clone(), policy);
        Ok(())
    }

    /// The policy of this name, for a client that is made at start.
    ///
    /// # Errors
    /// [`UnknownPolicy`] names those there are.
    pub fn named(&self, name: &str) -> Result<Policy, UnknownPolicy> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        by_name.get(name).cloned().ok_or_else(|| UnknownPolicy {
            name: name.to_owned(),
            known: by_name.keys().map(|name| name.to_string()).collect(),
        })
    }

    /// The policy of this name, if there is one.
    pub fn get(&self, name: &str) -> Option<Policy> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Every policy at this moment, by name.
    pub fn states(&self) -> Vec<PolicyState> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).values().map(Policy::state).collect()
    }
}
