//! Three pools, so that those who read never take the place of those who order, and reports that of neither.
//!
//! The numbers are those of the page of defaults. Reads are called through a policy with a breaker, since they have something to fall
//! back to. Commands and reports have not, so a breaker would help nobody: they get slots, and no more.
//!
//! Each shop has a policy of reads of its own. What takes too long may be the shop's own doing, a search in half a million orders say;
//! in one policy for all it would take the slots of the others, and its time-outs would open the breaker for them too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals::Tenant;
use annals::resilience::breaker::Mode;
use annals::resilience::bulkhead::{BulkheadSettings, Pools};
use annals::resilience::{Policy, SettingsError};

/// How long a read may take before the last page is the better answer.
const READ: Duration = Duration::from_secs(2);

/// How long a command waits for a slot, and how many do. Commands are appended together, so a queue of them is short.
const WAIT: Duration = Duration::from_secs(2);
const QUEUE: u32 = 1_000;

/// The slots of reads are divided among the shops, and into so many parts at least. With the default a shop has three, and a SQLite file
/// has four readers, so that one of them is left to others.
const PARTS: u32 = 16;

/// How long a read waits for a slot of its shop. Its queue is longer than that of a pool, as the slots are fewer.
const READ_WAIT: Duration = Duration::from_secs(1);

/// The policies of reads: one for each shop, and one for what is of none.
#[derive(Clone, Debug)]
pub struct Reads {
    of_shops: Arc<BTreeMap<Tenant, Policy>>,
    other: Policy,
}

impl Reads {
    /// Of the reads of a shop.
    pub fn of(&self, shop: &Tenant) -> &Policy {
        self.of_shops.get(shop).unwrap_or(&self.other)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Policy> {
        self.of_shops.values().chain([&self.other])
    }
}

/// One policy for all.
impl From<Policy> for Reads {
    fn from(policy: Policy) -> Self {
        Self { of_shops: Arc::default(), other: policy }
    }
}

/// The policies of the three pools.
#[derive(Clone, Debug)]
pub struct Lanes {
    /// Preferences, and reads that are of no shop.
    pub query: Policy,
    /// Reads of the API, each by the policy of its shop.
    pub reads: Reads,
    /// Commands.
    pub command: Policy,
    /// Analytics, lists of the past, exports.
    pub reporting: Policy,
}

impl Lanes {
    /// Pools of these sizes, for no shop in particular.
    ///
    /// # Errors
    /// A size that cannot work.
    pub fn new(pools: &Pools) -> Result<Self, SettingsError> {
        Self::of(pools, &[])
    }

    /// Pools of these sizes, in which each of the shops has its part of the reads.
    ///
    /// # Errors
    /// A size that cannot work.
    pub fn of(pools: &Pools, shops: &[Tenant]) -> Result<Self, SettingsError> {
        let parts = u32::try_from(shops.len()).unwrap_or(u32::MAX).max(PARTS);
        let part = BulkheadSettings {
            slots: (pools.query / parts).max(1),
            queue: pools.query.saturating_mul(3),
            wait: Some(READ_WAIT),
        };
        let of_shop = |shop: &Tenant| {
            let policy = Policy::fast(format!("query {shop}")).timeout(READ).bulkhead(part.clone()).build()?;
            Ok((shop.clone(), policy))
        };
        let of_shops = shops.iter().map(of_shop).collect::<Result<_, SettingsError>>()?;
        let commands = BulkheadSettings { queue: QUEUE, wait: Some(WAIT), ..pools.command.into() };
        let query = Policy::fast("query").timeout(READ).bulkhead(pools.query).build()?;
        Ok(Self {
            reads: Reads { of_shops: Arc::new(of_shops), other: query.clone() },
            query,
            command: Policy::medium("command").bulkhead(commands).breaker_mode(Mode::Disabled).build()?,
            reporting: Policy::slow("reporting").bulkhead(pools.reporting).breaker_mode(Mode::Disabled).build()?,
        })
    }
}
