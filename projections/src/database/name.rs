//! The stable name of a read model: which version it shows, and when another may take it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use annals_eventstore::{BackendError, Checkpoint};
use jiff::Timestamp;

use super::{Fault, Model};
use crate::error::StartError;
use crate::shape::lost_columns;

/// What queries by a stable name see.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shown {
    pub(crate) version: u32,
    /// The stored checkpoint of each slot of that version.
    pub(crate) places: Vec<(u32, Checkpoint)>,
    /// When one of them was moved last.
    pub(crate) moved_at: Timestamp,
}

/// How a version asks for the name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Switch {
    /// Also if a version as high was shown before: somebody asked for it.
    pub(crate) even_down: bool,
    /// A checkpoint that is in another log than ours, so that being behind it means nothing.
    pub(crate) foreign: Option<Checkpoint>,
}

/// What the name shows after a version has asked for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shows {
    /// The version that asked.
    This,
    /// Another one, and that stays so.
    Stays(u32),
    /// Still another one, which has read up to here, and so further than the one that asked.
    Further(Checkpoint),
}

/// What is stored about a name.
#[derive(Clone, Debug)]
pub(crate) struct StoredName {
    /// The version that it shows.
    pub(crate) version: u32,
    /// The highest that it has shown.
    pub(crate) highest: u32,
    /// Shape of the table and checkpoint of the version shown, unless somebody has removed them.
    pub(crate) shown: Option<(String, Checkpoint)>,
}

impl StoredName {
    /// Whether `model`, whose stored checkpoint is `own`, may take the name; else what it continues to show.
    ///
    /// The name moves up by itself, and down only on request. It never moves to a version that has read less: an event that
    /// queries have found is found after the switch too.
    pub(crate) fn decide(
        &self,
        model: &Model,
        switch: Switch,
        own: Option<Checkpoint>,
    ) -> Result<Option<Shows>, Fault> {
        if self.version == model.version {
            return Ok(Some(Shows::This));
        }
        if !switch.even_down && model.version <= self.highest {
            return Ok(Some(Shows::Stays(self.version)));
        }
        let Some((_, shown)) = &self.shown else { return Ok(None) };
        let one_log = own.is_none_or(|own| own.incarnation == shown.incarnation) && switch.foreign != Some(*shown);
        if one_log && own.is_none_or(|own| own.position < shown.position) {
            return Ok(Some(Shows::Further(*shown)));
        }
        if !switch.even_down {
            self.check_columns(model).map_err(|e| Fault {
                transient: false,
                blocked: false,
                part: None,
                source: BackendError::new(e),
            })?;
        }
        Ok(None)
    }

    /// Whether `model` may make the view where there is none, before it has caught up.
    pub(crate) fn may_be_made_by(&self, model: &Model) -> bool {
        model.version == self.version || model.version > self.highest
    }

    /// Queries by the name go on through a switch to a higher version, so that has all columns which the name shows.
    pub(crate) fn check_columns(&self, model: &Model) -> Result<(), StartError> {
        let Some((shape, _)) = &self.shown else { return Ok(()) };
        let lost = if model.version > self.version { lost_columns(shape, model.table) } else { Vec::new() };
        if lost.is_empty() {
            return Ok(());
        }
        let Model { projection, version, table } = *model;
        Err(StartError::ColumnsLost { projection, version, read_model: table.name, shown: self.version, lost })
    }
}

/// Adds what one row says of a name: that of the next slot.
pub(crate) fn add_shown(all: &mut HashMap<String, Shown>, name: String, next: Shown) {
    match all.entry(name) {
        Entry::Vacant(entry) => drop(entry.insert(next)),
        Entry::Occupied(mut entry) => {
            let shown = entry.get_mut();
            shown.places.extend(next.places);
            shown.moved_at = shown.moved_at.max(next.moved_at);
        }
    }
}
