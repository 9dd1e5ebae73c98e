//! Whether the instances of a store can go on in this build.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use annals_eventstore::{Context, EventStore, EventStoreExt, Filter, Invalid, Position, ReadError, Repository, Tenant};
use futures::TryStreamExt;

use super::any_saga::{AnySaga, Key};
use crate::event::{Intervention, SagaEvent};
use crate::instance::{Instance, SagaId, Status};

/// An instance that has not ended and cannot go on in this build.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfit {
    /// The tenant.
    pub tenant: Tenant,
    /// What names it.
    pub id: SagaId,
    /// The name of its saga.
    pub saga: String,
    /// Where it stands.
    pub status: Status,
    /// Why it cannot go on.
    pub reason: String,
}

/// Why a store could not be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The sagas break a rule. Fix the field it names.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The log could not be read.
    #[error("the instances of sagas could not be read")]
    Read(#[from] ReadError),
}

/// The events that say which instances have not ended.
const NAMES: [&str; 4] = ["saga.started", "saga.completed", "saga.compensated", "saga.intervened"];

pub(super) async fn check(
    store: &Arc<dyn EventStore>,
    instances: &Repository<Instance>,
    sagas: &BTreeMap<String, Arc<dyn AnySaga>>,
) -> Result<Vec<Unfit>, CheckError> {
    let mut unfit = Vec::new();
    for Key { tenant, id } in unfinished(store).await? {
        let loaded = instances.with(Context::of(tenant.clone())).load(&id).await?;
        let instance = &*loaded.state;
        let reason = match sagas.get(&instance.saga) {
            _ if instance.status.is_final() => None,
            Some(saga) => saga.mismatch(instance),
            None => Some(format!("this build has no saga `{}`", instance.saga)),
        };
        if let Some(reason) = reason {
            unfit.push(Unfit { tenant, id, saga: instance.saga.clone(), status: instance.status, reason });
        }
    }
    Ok(unfit)
}

/// The instances that have not ended.
async fn unfinished(store: &Arc<dyn EventStore>) -> Result<BTreeSet<Key>, CheckError> {
    let mut filter = Filter::all().aggregate_type("saga")?;
    for name in NAMES {
        filter = filter.event_name(name)?;
    }
    let mut unfinished = BTreeSet::new();
    let mut events = store.read_all(Position::START, filter);
    while let Some(event) = events.try_next().await? {
        let key = Key { tenant: event.stream.tenant().clone(), id: SagaId::new(event.stream.aggregate_id())? };
        for part in event.decode::<SagaEvent>()? {
            match part {
                SagaEvent::Started { .. } => drop(unfinished.insert(key.clone())),
                SagaEvent::Intervened { intervention: Intervention::Complete, .. }
                | SagaEvent::Completed
                | SagaEvent::Compensated => drop(unfinished.remove(&key)),
                _ => {}
            }
        }
    }
    Ok(unfinished)
}
