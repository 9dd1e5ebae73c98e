//! What the stores have to do.

use annals_peers::Order;
use clap::ValueEnum;

use crate::Options;

/// One column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Case {
    /// Appends of one event, one client.
    Append1,
    /// Appends of one event, 16 clients.
    Append16,
    /// Appends of one event, 64 clients.
    Append64,
    /// Appends of one event, 256 clients.
    Append256,
    /// Events, appended by 100, one client.
    Batch1,
    /// Events, appended by 100, 16 clients.
    Batch16,
    /// Loads of a stream of 100 events, 16 clients.
    Load16,
    /// Events of the whole log.
    Read,
    /// Events counted into a read model.
    Project,
    /// Events that a reader beside 16 writers never sees.
    Missed,
}

/// Events of a stream that is loaded.
const LONG: usize = 100;

/// How long a store works before it is measured.
const WARMING: f64 = 0.2;

/// Events of a stream whose read model is built.
const SHORT: usize = 10;

impl Case {
    pub const ALL: [Self; 10] = [
        Self::Append1,
        Self::Append16,
        Self::Append64,
        Self::Append256,
        Self::Batch1,
        Self::Batch16,
        Self::Load16,
        Self::Read,
        Self::Project,
        Self::Missed,
    ];

    /// The head of its column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Append1 => "append 1",
            Self::Append16 => "append 16",
            Self::Append64 => "append 64",
            Self::Append256 => "append 256",
            Self::Batch1 => "batch 1",
            Self::Batch16 => "batch 16",
            Self::Load16 => "load 16",
            Self::Read => "read",
            Self::Project => "project",
            Self::Missed => "missed",
        }
    }

    /// How many connections a pool has.
    pub fn connections(self) -> u32 {
        match self {
            Self::Append1 | Self::Batch1 => 1,
            Self::Append64 | Self::Append256 => 32,
            Self::Append16 | Self::Batch16 | Self::Load16 | Self::Missed => 16,
            Self::Read | Self::Project => 10,
        }
    }

    /// Cases that one log serves.
    pub fn shares_its_log_with(self, other: Self) -> bool {
        self == other || matches!((self, other), (Self::Load16, Self::Read))
    }

    /// What fills the log.
    pub fn filling(self, options: &Options) -> Option<Order> {
        let streams = |events: u64, length: usize| usize::try_from(events).unwrap_or(usize::MAX).div_ceil(length);
        match self {
            Self::Load16 | Self::Read => {
                Some(Order::Fill { streams: streams(options.events, LONG), length: LONG, at_once: LONG })
            }
            Self::Project => {
                Some(Order::Fill { streams: streams(options.projected, SHORT), length: SHORT, at_once: 1 })
            }
            _ => None,
        }
    }

    /// What a store has to do in one turn.
    pub fn order(self, options: &Options, round: usize) -> Order {
        let seconds = options.seconds;
        let filled = match self.filling(options) {
            Some(Order::Fill { streams, length, .. }) => (streams, (streams * length) as u64),
            _ => (0, 0),
        };
        match self {
            Self::Append1 => Order::Append { clients: 1, events: 1, seconds },
            Self::Append16 => Order::Append { clients: 16, events: 1, seconds },
            Self::Append64 => Order::Append { clients: 64, events: 1, seconds },
            Self::Append256 => Order::Append { clients: 256, events: 1, seconds },
            Self::Batch1 => Order::Append { clients: 1, events: 100, seconds },
            Self::Batch16 => Order::Append { clients: 16, events: 100, seconds },
            Self::Load16 => Order::Load { clients: 16, streams: filled.0, length: LONG, seconds },
            Self::Read => Order::Read { events: filled.1 },
            Self::Project => Order::Project { round, streams: filled.0 as u64, events: filled.1 },
            Self::Missed => Order::Race { writers: 16, seconds: options.race },
        }
    }

    /// What a store does before its first turn, so that none of them is its first work.
    pub fn warming(self, options: &Options) -> Option<Order> {
        match self.order(options, 0) {
            Order::Append { clients, events, .. } => Some(Order::Append { clients, events, seconds: WARMING }),
            Order::Load { clients, streams, length, .. } => {
                Some(Order::Load { clients, streams, length, seconds: WARMING })
            }
            read @ Order::Read { .. } => Some(read),
            Order::Fill { .. } | Order::Project { .. } | Order::Race { .. } => None,
        }
    }

    /// How many turns a store has: a race is run once.
    pub fn rounds(self, options: &Options) -> usize {
        if self == Self::Missed { 1 } else { options.rounds }
    }
}
