//! The switches of the shop. A toggle of annals publishes its changes and forgets them when the process ends. Here each change is an
//! event, with who made it and why, so that the next process begins with the value that the last one had.
//!
//! They are those of the whole service, so their streams belong to no shop. Each process follows these streams, and so shows what
//! another one has set a moment later.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals::resilience::toggle::Toggle;
use annals::{
    Aggregate, Context, Event, EventStore, EventStoreExt, Evolve, ExecuteError, Filter, HistoryStep, Invalid,
    ReadError, Repository, StreamVersion, Tenant, prelude::*, text_id,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::Fault;

/// The log is looked at so often at most. A busy shop has hundreds of commits a second, and hardly one is about a toggle.
const LOOK: Duration = Duration::from_millis(100);
/// How long to wait after the toggles could not be read.
const AGAIN: Duration = Duration::from_secs(2);

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
#[derive(Aggregate, Serialize, Clone, Debug)]
#[aggregate(name = "toggle", id = ToggleId, event = ToggleEvent)]
pub struct Switched {
    on: bool,
    by: String,
    reason: String,
}

impl Default for Switched {
    /// All features are on until somebody switches one off.
    fn default() -> Self {
        Self { on: true, by: String::new(), reason: String::new() }
    }
}

impl Evolve for Switched {
    fn evolve(&mut self, event: &ToggleEvent) {
        let ToggleEvent::Set { on, by, reason } = event;
        *self = Self { on: *on, by: by.clone(), reason: reason.clone() };
    }
}

/// One change of a toggle.
#[derive(Clone, Debug)]
pub struct Change {
    /// To what.
    pub on: bool,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// All toggles. Clones are the same.
#[derive(Clone)]
pub struct Toggles {
    stored: Repository<Switched>,
    toggles: Arc<BTreeMap<&'static str, Known>>,
}

/// A toggle, and how many changes it shows.
struct Known {
    toggle: Toggle<bool>,
    version: Mutex<StreamVersion>,
}

impl Known {
    /// Shows a change, unless a later one was quicker.
    fn show(&self, on: bool, by: &str, version: StreamVersion) {
        let mut known = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        if version >= *known {
            *known = version;
            self.toggle.set(on, by);
        }
    }
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

    /// The toggles as they were set last. What any process sets from now on is shown here too, until the store is closed.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn open(store: &(impl EventStore + Clone)) -> Result<Self, Fault> {
        let stored = store.aggregate::<Switched>();
        let mut toggles = BTreeMap::new();
        for name in Self::ALL {
            let last = stored.load(&ToggleId::new(name)?).await?;
            let known = Known { toggle: Toggle::new(name, last.state.on), version: Mutex::new(last.version) };
            toggles.insert(name, known);
        }
        let toggles = Self { stored, toggles: Arc::new(toggles) };
        tokio::spawn(toggles.clone().follow(store.clone()));
        Ok(toggles)
    }

    /// Shows what is set, until the store is closed.
    async fn follow(self, store: impl EventStore + Clone) {
        loop {
            let Err(error) = self.follow_from_now(&store).await;
            if let ReadError::Closed = error {
                return;
            }
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what other processes set is not known for a moment"
            );
            sleep(AGAIN).await;
        }
    }

    async fn follow_from_now(&self, store: &(impl EventStore + Clone)) -> Result<Infallible, ReadError> {
        let of_toggles = Filter::all().tenant(Tenant::default()).aggregate_type(Switched::TYPE)?;
        // First the end of the log and then the toggles, so that no change falls in between.
        let mut changes = store.pages(store.head().await?, of_toggles);
        for known in self.toggles.values() {
            self.look(known).await?;
        }
        loop {
            for change in changes.next().await?.events {
                // One of another build is none here.
                if let Ok(known) = self.known(change.stream.aggregate_id()) {
                    self.look(known).await?;
                }
            }
            sleep(LOOK).await;
        }
    }

    /// Shows what is stored.
    async fn look(&self, known: &Known) -> Result<(), ReadError> {
        let stored = self.stored.load(&ToggleId::new(known.toggle.name())?).await?;
        known.show(stored.state.on, &stored.state.by, stored.version);
        Ok(())
    }

    /// A toggle, to ask it.
    ///
    /// # Errors
    /// [`Invalid`] with the field `toggle`.
    pub fn get(&self, name: &str) -> Result<&Toggle<bool>, Invalid> {
        self.known(name).map(|known| &known.toggle)
    }

    fn known(&self, name: &str) -> Result<&Known, Invalid> {
        let none =
            || Invalid::new("toggle", format!("`{name}` is none"), format!("take one of {}", Self::ALL.join(", ")));
        self.toggles.get(name).ok_or_else(none)
    }

    /// The names and the values.
    pub fn all(&self) -> BTreeMap<&'static str, bool> {
        self.toggles.iter().map(|(name, known)| (*name, known.toggle.is_on())).collect()
    }

    /// All changes of a toggle, the first first.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn changes(&self, toggle: &ToggleId) -> Result<Vec<Change>, ReadError> {
        let steps = self.stored.history(toggle).await?;
        let change = |HistoryStep { event, state, .. }: HistoryStep<Switched>| {
            let Switched { on, by, reason } = &*state;
            Change { on: *on, by: by.clone(), reason: reason.clone(), at: event.recorded_at }
        };
        Ok(steps.into_iter().map(change).collect())
    }

    /// Sets a toggle. It is stored first: what is not, is not switched. The context says in which request.
    ///
    /// # Errors
    /// The name is none, or nothing could be stored.
    pub async fn set(
        &self,
        context: Context,
        name: &str,
        on: bool,
        by: &str,
        reason: &str,
    ) -> Result<(), ExecuteError<Invalid>> {
        let known = self.known(name).map_err(ExecuteError::Rejected)?;
        let id = ToggleId::new(name).map_err(ExecuteError::Rejected)?;
        let (by, reason) = (by.to_owned(), reason.to_owned());
        let set = |was: &Switched| {
            let event = ToggleEvent::Set { on, by: by.clone(), reason: reason.clone() };
            Ok::<_, Invalid>((was.on != on).then_some(event).into_iter().collect::<Vec<_>>())
        };
        let done = self.stored.with(context).execute(&id, set).await?;
        known.show(done.state.on, &by, done.version);
        Ok(())
    }
}
