//! All of it together, over one store.

use std::sync::Arc;

use annals::resilience::bulkhead::Pools;
use annals::{EventStore, Tenant};

use super::{Lanes, Notifications, PreferencesOf, Recommendations, Toggles};
use crate::Fault;
use crate::services::Client;

/// What keeps the parts of a shop apart, and what answers where one of them does not.
pub struct Degradation {
    /// The pools.
    pub lanes: Lanes,
    /// The switches.
    pub toggles: Toggles,
    /// What customers prefer.
    pub preferences: PreferencesOf,
    /// What else they may like.
    pub recommendations: Recommendations<Arc<dyn EventStore>>,
    /// The client of the service that sends messages.
    pub notification: Client,
}

impl Degradation {
    /// With pools of these sizes for these shops, the toggles as they were set last, and messages by the service at an address.
    ///
    /// # Errors
    /// A size cannot work, or the toggles cannot be read.
    pub async fn open(
        store: &Arc<dyn EventStore>,
        (pools, shops): (&Pools, &[Tenant]),
        notification: &str,
    ) -> Result<Self, Fault> {
        let lanes = Lanes::of(pools, shops)?;
        let toggles = Toggles::open(store).await?;
        let toggle = |name| toggles.get(name).cloned();
        let preferences = PreferencesOf::new(store, &lanes.query, toggle(Toggles::PREFERENCES)?)?;
        let recommendations =
            Recommendations::new(Arc::clone(store), &lanes.reporting, toggle(Toggles::RECOMMENDATIONS)?)?;
        let notification = Notifications::client(notification)?;
        Ok(Self { lanes, toggles, preferences, recommendations, notification })
    }
}
