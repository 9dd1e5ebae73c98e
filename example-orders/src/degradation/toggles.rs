//! The switches of the shop. A toggle of annals publishes its changes and forgets them when the process ends. Here each change is an
//! event, with who made it and why, so that the next process begins with the value that the last one had.

use std::collections::BTreeMap;

use annals::resilience::toggle::Toggle;
use annals::{Aggregate, Event, EventStore, Evolve, ExecuteError, Invalid, Repository, prelude::*, text_id};
use serde::{Deserialize, Serialize};

use crate::Fault;

text_id! {
    /// What names a toggle.
    pub struct ToggleId;
}

/// What can happen to a toggle.
#[derive(Event, Serialize, Deserialize, Clone, Debug)]
pub enum ToggleEvent {
    /// Somebody has set it.
    #[event(name = "toggle.set")]
    Set {
        /// To what.
        on: bool,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
}

/// A toggle as it was set last.
#[derive(Aggregate, Clone, Debug)]
#[aggregate(name = "toggle", id = ToggleId, event = ToggleEvent)]
pub struct Switched {
    on: bool,
}

impl Default for Switched {
    /// All features are on until somebody switches one off.
    fn default() -> Self {
        Self { on: true }
    }
}

impl Evolve for Switched {
    fn evolve(&mut self, event: &ToggleEvent) {
        let ToggleEvent::Set { on, .. } = event;
        self.on = *on;
    }
}

/// All toggles.
pub struct Toggles {
    stored: Repository<Switched>,
    toggles: BTreeMap<&'static str, Toggle<bool>>,
}

impl Toggles {
    /// Products that others have bought.
    pub const RECOMMENDATIONS: &'static str = "recommendations";
    /// Language, currency and theme of a customer.
    pub const PREFERENCES: &'static str = "preferences";
    /// The last page of a list, where it cannot be read.
    pub const STALE_PAGES: &'static str = "stale-pages";
    /// Messages to customers.
    pub const NOTIFICATIONS: &'static str = "notifications";

    const ALL: [&'static str; 4] = [Self::RECOMMENDATIONS, Self::PREFERENCES, Self::STALE_PAGES, Self::NOTIFICATIONS];

    /// The toggles as they were set last.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn open(store: &(impl EventStore + Clone)) -> Result<Self, Fault> {
        let stored = store.aggregate::<Switched>();
        let mut toggles = BTreeMap::new();
        for name in Self::ALL {
            let on = stored.load(&ToggleId::new(name)?).await?.state.on;
            toggles.insert(name, Toggle::new(name, on));
        }
        Ok(Self { stored, toggles })
    }

    /// A toggle, to ask it.
    ///
    /// # Errors
    /// [`Invalid`] with the field `toggle`.
    pub fn get(&self, name: &str) -> Result<&Toggle<bool>, Invalid> {
        let none =
            || Invalid::new("toggle", format!("`{name}` is none"), format!("take one of {}", Self::ALL.join(", ")));
        self.toggles.get(name).ok_or_else(none)
    }

    /// The names and the values.
    pub fn all(&self) -> BTreeMap<&'static str, bool> {
        self.toggles.iter().map(|(name, toggle)| (*name, toggle.is_on())).collect()
    }

    /// Sets a toggle. It is stored first: what is not, is not switched.
    ///
    /// # Errors
    /// The name is none, or nothing could be stored.
    pub async fn set(&self, name: &str, on: bool, by: &str, reason: &str) -> Result<(), ExecuteError<Invalid>> {
        let toggle = self.get(name).map_err(ExecuteError::Rejected)?;
        let (by, reason) = (by.to_owned(), reason.to_owned());
        let set = |was: &Switched| {
            let event = ToggleEvent::Set { on, by: by.clone(), reason: reason.clone() };
            Ok::<_, Invalid>((was.on != on).then_some(event).into_iter().collect::<Vec<_>>())
        };
        let id = ToggleId::new(name).map_err(ExecuteError::Rejected)?;
        self.stored.execute(&id, set).await?;
        toggle.set(on, by.clone());
        Ok(())
    }
}
