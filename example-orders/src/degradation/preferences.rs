//! What a customer prefers. Where that cannot be read, the shop speaks English, counts in euro, and is light.

use annals::resilience::toggle::Toggle;
use annals::resilience::{Class, Classify, Deadline, Policy, SettingsError};
use annals::{
    Aggregate, Context, Decide, Event, EventStore, Evolve, ExecuteError, Position, ReadError, Repository, Tenant,
    prelude::*,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::fallback::{Given, WithFallback};
use crate::domain::money::Currency;
use crate::domain::order::CustomerId;

/// How the shop looks: `light` or `dark`.
#[derive(Serialize, Deserialize, ToSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Theme {
    /// Dark on light.
    #[default]
    Light,
    /// Light on dark.
    Dark,
}

/// What a customer prefers; the default is for those of whom nothing is known.
#[derive(Serialize, Deserialize, ToSchema, Clone, Debug, PartialEq, Eq)]
pub struct Preferences {
    /// A language by its code, such as `en` or `pt-BR`.
    #[schema(pattern = "^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,3}$")]
    pub language: String,
    /// The currency in which prices are shown.
    pub currency: Currency,
    /// How the shop looks.
    pub theme: Theme,
}

impl Default for Preferences {
    fn default() -> Self {
        Self { language: "en".to_owned(), currency: Currency::Eur, theme: Theme::Light }
    }
}

/// What can happen to preferences.
#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub enum PreferencesEvent {
    /// The customer prefers something else now.
    #[event(name = "preferences.changed")]
    Changed {
        /// What.
        preferences: Preferences,
    },
}

/// The preferences of one customer.
#[derive(Aggregate, Default, Clone, Debug)]
#[aggregate(name = "preferences", id = CustomerId, event = PreferencesEvent)]
pub struct Profile {
    preferences: Preferences,
}

impl Evolve for Profile {
    fn evolve(&mut self, event: &PreferencesEvent) {
        let PreferencesEvent::Changed { preferences } = event;
        self.preferences.clone_from(preferences);
    }
}

impl Decide<Preferences> for Profile {
    type Rejection = std::convert::Infallible;

    fn decide(&self, wanted: &Preferences) -> Result<Vec<PreferencesEvent>, Self::Rejection> {
        let changed = (self.preferences != *wanted).then(|| PreferencesEvent::Changed { preferences: wanted.clone() });
        Ok(changed.into_iter().collect())
    }
}

/// Why preferences were not read.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct NotRead(#[from] ReadError);

impl Classify for NotRead {
    fn class(&self) -> Class {
        if self.0.is_transient() { Class::TRANSIENT } else { Class::Failure }
    }
}

/// Reads and changes the preferences of customers.
pub struct PreferencesOf {
    profiles: Repository<Profile>,
    known: WithFallback<(Tenant, CustomerId), Preferences>,
}

impl PreferencesOf {
    /// Those of a store.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(store: &(impl EventStore + Clone), query: &Policy, toggle: Toggle<bool>) -> Result<Self, SettingsError> {
        let settings = annals::resilience::fallback::CacheSettings::default();
        let known = WithFallback::new(query.clone(), toggle, Preferences::default(), settings)?;
        Ok(Self { profiles: store.aggregate(), known })
    }

    /// What a customer prefers, as far as is known.
    pub async fn get(&self, shop: &Tenant, customer: &CustomerId, deadline: Deadline) -> Given<Preferences> {
        let profiles = self.profiles.with(Context::of(shop.clone()));
        let read = |_| {
            let (profiles, customer) = (profiles.clone(), customer.clone());
            async move { Ok::<_, NotRead>(profiles.load(&customer).await?.state.preferences.clone()) }
        };
        self.known.get((shop.clone(), customer.clone()), deadline, read).await
    }

    /// Forgets what is kept of them: they may have been changed by another process.
    pub fn forget(&self, shop: &Tenant, customer: &CustomerId) {
        self.known.changed(&(shop.clone(), customer.clone()));
    }

    /// Changes them. A reader of one's own writes in another process asks for the position.
    ///
    /// # Errors
    /// They could not be stored.
    pub async fn set(
        &self,
        context: Context,
        customer: &CustomerId,
        wanted: Preferences,
    ) -> Result<Position, ExecuteError<std::convert::Infallible>> {
        let key = (context.tenant().clone(), customer.clone());
        let done = self.profiles.with(context).send(customer, wanted).await?;
        self.known.changed(&key);
        Ok(done.position)
    }
}
