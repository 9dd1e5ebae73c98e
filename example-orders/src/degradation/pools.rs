//! Three pools, so that those who read never take the place of those who order, and reports that of neither.
//!
//! The numbers are those of the page of defaults. Reads are called through a policy with a breaker, since they have something to fall
//! back to. Commands and reports have not, so a breaker would help nobody: they get slots, and no more.

use annals::resilience::breaker::Mode;
use annals::resilience::bulkhead::Pools;
use annals::resilience::{Policy, SettingsError};

/// The policies of the three pools.
#[derive(Clone, Debug)]
pub struct Lanes {
    /// Reads of the API.
    pub query: Policy,
    /// Commands.
    pub command: Policy,
    /// Analytics, lists of the past, exports.
    pub reporting: Policy,
}

impl Lanes {
    /// Pools of these sizes.
    ///
    /// # Errors
    /// A size that cannot work.
    pub fn new(pools: &Pools) -> Result<Self, SettingsError> {
        Ok(Self {
            query: Policy::fast("query").bulkhead(pools.query).build()?,
            command: Policy::medium("command").bulkhead(pools.command).breaker_mode(Mode::Disabled).build()?,
            reporting: Policy::slow("reporting").bulkhead(pools.reporting).breaker_mode(Mode::Disabled).build()?,
        })
    }
}
