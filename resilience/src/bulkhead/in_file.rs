//! A bulkhead as a settings file has it: a number of slots, or a table.

use std::fmt;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::{BulkheadSettings, DEFAULT_WAIT};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    slots: u32,
    queue: Option<u32>,
    #[serde(with = "crate::duration_text::option", default = "default_wait")]
    wait: Option<Duration>,
}

fn default_wait() -> Option<Duration> {
    Some(DEFAULT_WAIT)
}

struct NumberOrTable;

impl<'de> Visitor<'de> for NumberOrTable {
    type Value = BulkheadSettings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of slots, or a table with `slots`, `queue` and `wait`")
    }

    fn visit_u64<E: Error>(self, slots: u64) -> Result<BulkheadSettings, E> {
        let slots = u32::try_from(slots).map_err(|_| E::invalid_value(Unexpected::Unsigned(slots), &self))?;
        Ok(slots.into())
    }

    fn visit_i64<E: Error>(self, slots: i64) -> Result<BulkheadSettings, E> {
        let slots = u32::try_from(slots).map_err(|_| E::invalid_value(Unexpected::Signed(slots), &self))?;
        Ok(slots.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<BulkheadSettings, A::Error> {
        let Table { slots, queue, wait } = Table::deserialize(MapAccessDeserializer::new(table))?;
        Ok(BulkheadSettings { queue: queue.unwrap_or(BulkheadSettings::from(slots).queue), slots, wait })
    }
}

impl<'de> Deserialize<'de> for BulkheadSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrTable)
    }
}
