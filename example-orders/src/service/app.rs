//! What all handlers share.

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use annals::engine::TimeOrderedIds;
use annals::resilience::{Deadline, Policy};
use annals::{Projections, Tenant};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::checkout::Checkouts;
use crate::degradation::{Degradation, Pages, Toggles};
use crate::domain::order::OrderId;
use crate::service::access::{Caller, Keys, Rights, Role};
use crate::service::api::{OrderPage, Wanted};
use crate::service::drain::Drain;
use crate::service::problem::Problem;
use crate::shop::Shop;

/// The state of the service; a clone shares it.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What it is made of.
pub struct Parts {
    /// Events, commands and read models.
    pub shop: Shop,
    /// Checkouts, which call the services.
    pub checkouts: Checkouts,
    /// Pools, switches, and what answers where something does not.
    pub degradation: Degradation,
    /// The last pages of the list of orders.
    pub pages: Pages<Wanted, OrderPage>,
    /// Who may come.
    pub keys: Keys,
    /// Who may go where.
    pub rights: Rights,
    /// Requests that wait for a read model hold a connection; so many may.
    pub waits: Semaphore,
    /// A list as of a time folds the log of a shop; so many may at once.
    pub replays: Semaphore,
    /// Makes the ids of requests.
    pub ids: TimeOrderedIds,
    /// Whether the service stops.
    pub drain: Drain,
}

impl App {
    /// Puts the parts together.
    pub fn new(
        shop: Shop,
        checkouts: Checkouts,
        degradation: Degradation,
        keys: Keys,
        rights: Rights,
    ) -> Result<Self, crate::Fault> {
        let stale_pages = degradation.toggles.get(Toggles::STALE_PAGES)?.clone();
        let pages = Pages::new(degradation.lanes.reads.clone(), stale_pages)?;
        let (waits, replays) = (Semaphore::new(256), Semaphore::new(2));
        let (ids, drain) = (TimeOrderedIds, Drain::default());
        Ok(Self(Arc::new(Parts { shop, checkouts, degradation, pages, keys, rights, waits, replays, ids, drain })))
    }

    /// All policies: of the services that are called, and of the pools.
    pub fn policies(&self) -> Vec<&Policy> {
        let (services, degradation) = (&self.checkouts.services, &self.degradation);
        let clients = [&services.payment, &services.stock, &services.shipping, &degradation.notification];
        let lanes = &degradation.lanes;
        let of_services = clients.into_iter().map(|client| &client.policy);
        of_services.chain(lanes.reads.all()).chain([&lanes.command, &lanes.reporting]).collect()
    }

    /// What runs projections and reactors: those of the shop, those of the sagas, and the reactors of the choreography.
    pub fn runners(&self) -> [&Projections; 3] {
        [&self.shop.views, self.checkouts.sagas.projections(), &self.checkouts.reactors]
    }

    /// A read of the API: in the part of its shop of the pool of reads, and behind the breaker of that.
    pub async fn query<T, E, Fut>(
        &self,
        shop: &Tenant,
        deadline: Deadline,
        read: impl FnMut() -> Fut,
    ) -> Result<T, Problem>
    where
        E: Into<Problem>,
        Fut: Future<Output = Result<T, E>>,
    {
        through(self.degradation.lanes.reads.of(shop), deadline, read).await
    }

    /// A read that takes its time: in the pool of reports.
    pub async fn report<T, E, Fut>(&self, deadline: Deadline, read: impl FnMut() -> Fut) -> Result<T, Problem>
    where
        E: Into<Problem>,
        Fut: Future<Output = Result<T, E>>,
    {
        through(&self.degradation.lanes.reporting, deadline, read).await
    }

    /// A command: in the pool of commands, and made once.
    pub async fn command<T, E: Into<Problem>>(
        &self,
        deadline: Deadline,
        command: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Problem> {
        let once = async |_| command.await.map_err(Into::into);
        Ok(self.degradation.lanes.command.once(once).deadline(deadline).run().await?)
    }

    /// What a caller is told who asked for an order, or something of it, that cannot be read. Somebody else's is answered like none.
    pub async fn of_unreadable(&self, caller: &Caller, order: &OrderId, problem: Problem, none: Problem) -> Problem {
        if caller.role != Role::Customer || !problem.is_of_data() {
            return problem;
        }
        match self.checkouts.customer_of(&caller.tenant, order).await.map_err(Problem::from) {
            Ok(Some(customer)) if caller.sees(&customer) => problem,
            Err(unknown) if !unknown.is_of_data() => unknown,
            _ => none,
        }
    }

    /// Room for one more read of the past; none waits for it for long.
    pub async fn room_to_replay(&self) -> Result<SemaphorePermit<'_>, Problem> {
        let full = || Problem::later("too-many-replays", "other lists of the past are being made");
        let room = tokio::time::timeout(Duration::from_secs(1), self.replays.acquire()).await;
        room.ok().and_then(Result::ok).ok_or_else(full)
    }
}

async fn through<T, E, Fut>(policy: &Policy, deadline: Deadline, mut read: impl FnMut() -> Fut) -> Result<T, Problem>
where
    E: Into<Problem>,
    Fut: Future<Output = Result<T, E>>,
{
    let call = |_| {
        let read = read();
        async move { read.await.map_err(Into::into) }
    };
    Ok(policy.idempotent(call).deadline(deadline).run::<T, Problem, _>().await?)
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
