//! What else a customer may like: what is ordered most in the shop. Where that cannot be found out, what everybody likes.
//!
//! A fold of the log is slow on purpose here: it stands for a model that takes its time, and has a pool of its own.

use std::collections::BTreeMap;

use annals::resilience::fallback::CacheSettings;
use annals::resilience::toggle::Toggle;
use annals::resilience::{Class, Classify, Deadline, Policy, SettingsError};
use annals::{EventStore, EventStoreExt, Filter, Position, ReadError, Tenant};
use futures::TryStreamExt;

use super::fallback::{Given, WithFallback};
use crate::domain::order::OrderEvent;

/// How many products are recommended.
const MOST: usize = 3;

/// Why there is no recommendation.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct NotRead(#[from] ReadError);

impl Classify for NotRead {
    fn class(&self) -> Class {
        if self.0.is_transient() { Class::TRANSIENT } else { Class::Failure }
    }
}

/// Recommends products.
pub struct Recommendations<S> {
    store: S,
    known: WithFallback<Tenant, Vec<String>>,
}

impl<S: EventStore + Clone> Recommendations<S> {
    /// From the orders of a store.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(store: S, reporting: &Policy, toggle: Toggle<bool>) -> Result<Self, SettingsError> {
        let default = vec!["kettle".to_owned()];
        let known = WithFallback::new(reporting.clone(), toggle, default, CacheSettings::default())?;
        Ok(Self { store, known })
    }

    /// What is ordered most in a shop, the first first.
    pub async fn get(&self, shop: &Tenant, deadline: Deadline) -> Given<Vec<String>> {
        let read = |_| {
            let (store, shop) = (self.store.clone(), shop.clone());
            async move { popular(&store, shop).await.map_err(NotRead) }
        };
        self.known.get(shop.clone(), deadline, read).await
    }
}

async fn popular(store: &(impl EventStore + Clone), shop: Tenant) -> Result<Vec<String>, ReadError> {
    let mut orders = store.read_all(Position::START, Filter::all().tenant(shop).event_name("order.placed")?);
    let mut pieces = BTreeMap::<String, u64>::new();
    while let Some(event) = orders.try_next().await? {
        for event in event.decode::<OrderEvent>()? {
            let OrderEvent::Placed { lines, .. } = event else { continue };
            for line in lines {
                *pieces.entry(line.product).or_default() += u64::from(line.quantity);
            }
        }
    }
    let mut products: Vec<_> = pieces.into_iter().collect();
    // Those of equal number by their names, so that the answer is the same each time.
    products.sort_by(|(one, pieces), (other, more)| more.cmp(pieces).then(one.cmp(other)));
    Ok(products.into_iter().take(MOST).map(|(product, _)| product).collect())
}
