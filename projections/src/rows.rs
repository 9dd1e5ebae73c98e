//! The rows that a fold works on: an identity map that knows what the table holds and what the fold made of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::changes::{Changes, RowError, check_columns, check_indexes, check_key};
use crate::column::ColumnValue;
use crate::error::ProjectionError;
use crate::read_model::{ReadModel, RowKey};

/// The rows of a read model, as far as the events at hand need them.
///
/// No keys are declared. A lookup of a row that is not in memory fails; the runner remembers the key, loads the rows of all
/// such keys of the batch at once, and applies the batch again from its beginning. So hand the error on with `?`. Swallowing
/// it costs time but cannot harm: what was made without the row is thrown away.
///
/// In memory are the rows that one batch asks for or writes, of up to 10,000 events and about 4 MiB. An event finds each of
/// them as the table would give it back after the event before it: times in whole microseconds, one zero, JSON in
/// PostgreSQL's form. So it does not matter which events share a batch.
///
/// ```
/// use annals_eventstore::Recorded;
/// use annals_macros::{Event, ReadModel};
/// use annals_projections::{Projection, ProjectionError, Rows};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize, Clone)]
/// enum ParcelEvent {
///     #[event(name = "parcel.sent")]
///     Sent,
///     #[event(name = "parcel.moved")]
///     Moved { to: String },
///     #[event(name = "parcel.delivered")]
///     Delivered,
/// }
///
/// #[derive(ReadModel, Clone)]
/// #[read_model(table = "parcels_under_way", key = "parcel")]
/// struct Parcel {
///     parcel: String,
///     place: String,
/// }
///
/// struct UnderWay;
///
/// impl Projection for UnderWay {
///     type Event = ParcelEvent;
///     type Row = Parcel;
///
///     fn apply(&self, event: &Recorded<ParcelEvent>, rows: &mut Rows<Parcel>) -> Result<(), ProjectionError> {
///         let parcel = event.stream.aggregate_id().to_owned();
///         match &event.event {
///             ParcelEvent::Sent => rows.upsert(Parcel { parcel, place: "the shop".into() }),
///             ParcelEvent::Moved { to } => {
///                 let row = rows.get_mut(&parcel)?.ok_or_else(|| ProjectionError::new("it was never sent"))?;
///                 row.place.clone_from(to);
///             }
///             ParcelEvent::Delivered => rows.remove(&parcel),
///         }
///         Ok(())
///     }
/// }
///
/// # use annals_projections::testing::given_events;
/// let moved = || ParcelEvent::Moved { to: "Ghent".into() };
/// given_events([("p-1", ParcelEvent::Sent), ("p-2", ParcelEvent::Sent), ("p-1", moved()), ("p-2", ParcelEvent::Delivered)])
///     .with(UnderWay)
///     .then_rows([Parcel { parcel: "p-1".into(), place: "Ghent".into() }]);
/// given_events([("p-3", moved())]).with(UnderWay).then_stops_before(1, "never sent");
/// ```
#[derive(Debug)]
pub struct Rows<R: ReadModel> {
    slots: HashMap<R::Key, Slot<R>>,
    /// Keys of this round's lookups that found no slot, each once, in the order of the lookups.
    missing: Vec<R::Key>,
    /// The number of the event that is being applied.
    event: usize,
    /// The first row of this round that no table can hold or give back, with the number of its event.
    failed: Option<BadRow>,
}

/// A row that no table can hold or give back, and the number of the event that made it.
pub(crate) type BadRow = (usize, RowError);

/// What is known about one key.
#[derive(Debug)]
struct Slot<R> {
    stored: Stored<R>,
    now: Now<R>,
    /// The number of the event that made `now` what it is.
    changed_by: usize,
    /// Whether `now` is what the table would give back.
    is_normal: bool,
}

/// What the table holds.
#[derive(Debug)]
enum Stored<R> {
    /// Not looked up.
    Unknown,
    /// Looked up in this round and not loaded yet.
    Missing,
    Absent,
    Row(R),
}

/// What the fold made of it in this round.
#[derive(Debug)]
enum Now<R> {
    AsStored,
    Row(R),
    Removed,
}

impl<R: ReadModel> Rows<R> {
    /// No rows, and nothing known about any key.
    pub(crate) fn new() -> Self {
        Self { slots: HashMap::new(), missing: Vec::new(), event: 0, failed: None }
    }

    /// The row called `key`, or `None` if there is none.
    ///
    /// # Errors
    /// The runner's own error if the row is not in memory; hand it on.
    pub fn get(&mut self, key: &R::Key) -> Result<Option<&R>, ProjectionError> {
        self.look_up(key)?;
        Ok(self.slots.get(key).and_then(Slot::row))
    }

    /// The row called `key` to change it, or `None` if there is none. Its key must stay as it is: the projection stops
    /// with [`RowError::KeyChanged`] otherwise.
    ///
    /// # Errors
    /// The runner's own error if the row is not in memory; hand it on.
    pub fn get_mut(&mut self, key: &R::Key) -> Result<Option<&mut R>, ProjectionError> {
        self.look_up(key)?;
        let event = self.event;
        Ok(self.slots.get_mut(key).and_then(|slot| slot.row_mut(event)))
    }

    /// The row called `key` to change it; if there is none, the row that `make` gives. Its key must stay as it is.
    ///
    /// # Errors
    /// The runner's own error if the row is not in memory; hand it on.
    pub fn get_or_insert_with(&mut self, key: &R::Key, make: impl FnOnce() -> R) -> Result<&mut R, ProjectionError> {
        self.look_up(key)?;
        let slot = self.slots.entry(key.clone()).or_insert(Slot::of(Stored::Unknown));
        if slot.row().is_none() {
            slot.now = Now::Row(make());
        }
        slot.row_mut(self.event).ok_or_else(ProjectionError::not_loaded)
    }

    /// Whether there is a row called `key`.
    ///
    /// # Errors
    /// The runner's own error if that is not known yet; hand it on.
    pub fn contains(&mut self, key: &R::Key) -> Result<bool, ProjectionError> {
        Ok(self.get(key)?.is_some())
    }

    /// Puts a row in place of the one with its key, or adds it. The old row is not needed and so never loaded for this.
    /// A row that its table cannot hold stops the projection when the batch is stored.
    pub fn upsert(&mut self, row: R) {
        self.set(row.key(), Now::Row(row));
    }

    /// Removes the row called `key`, if there is one. It is never loaded for this.
    pub fn remove(&mut self, key: &R::Key) {
        self.set(key.clone(), Now::Removed);
    }

    fn set(&mut self, key: R::Key, now: Now<R>) {
        let slot = match self.slots.entry(key) {
            Entry::Occupied(entry) => {
                // What an earlier event made must have been fit to be stored, though it is replaced now.
                let key = entry.key().clone();
                let slot = entry.into_mut();
                if let Err(bad) = slot.normalize(&key, self.event) {
                    self.failed.get_or_insert(bad);
                }
                slot
            }
            Entry::Vacant(entry) => entry.insert(Slot::of(Stored::Unknown)),
        };
        (slot.now, slot.changed_by, slot.is_normal) = (now, self.event, false);
    }

    /// Fails, and remembers the key, if it is not known whether there is a row called `key`. If there is one that an earlier
    /// event has changed, it is made the one that the table would give back.
    fn look_up(&mut self, key: &R::Key) -> Result<(), ProjectionError> {
        match self.slots.get_mut(key) {
            Some(slot @ Slot { now: Now::Row(_) | Now::Removed, .. }) => {
                slot.normalize(key, self.event).map_err(|bad| {
                    self.failed.get_or_insert(bad);
                    ProjectionError::not_loaded()
                })
            }
            Some(Slot { stored: Stored::Absent | Stored::Row(_), .. }) => Ok(()),
            Some(Slot { stored: Stored::Missing, .. }) => Err(ProjectionError::not_loaded()),
            Some(slot @ Slot { stored: Stored::Unknown, .. }) => {
                slot.stored = Stored::Missing;
                self.missing.push(key.clone());
                Err(ProjectionError::not_loaded())
            }
            None => {
                self.slots.insert(key.clone(), Slot::of(Stored::Missing));
                self.missing.push(key.clone());
                Err(ProjectionError::not_loaded())
            }
        }
    }

    /// Begins a round: forgets what the last one made, keeps what the table is known to hold.
    pub(crate) fn reset(&mut self) {
        self.missing.clear();
        self.failed = None;
        self.slots.retain(|_, slot| {
            (slot.now, slot.is_normal) = (Now::AsStored, true);
            matches!(slot.stored, Stored::Absent | Stored::Row(_))
        });
    }

    /// The event with this number comes next.
    pub(crate) fn begin(&mut self, event: usize) {
        self.event = event;
    }

    /// The row of an earlier event that no table can hold or give back, if one was found since the last call.
    pub(crate) fn take_failed(&mut self) -> Option<BadRow> {
        self.failed.take()
    }

    /// Whether this round asked for rows that are not loaded, so that what it made is worth nothing.
    pub(crate) fn is_missing_any(&self) -> bool {
        !self.missing.is_empty()
    }

    /// The keys this round asked for in vain, as values: those before the first that no database can hold.
    ///
    /// # Errors
    /// About that key, if it is the very first: behind another missing key, what a fold asks for means nothing yet.
    pub(crate) fn missing(&mut self) -> Result<Vec<Vec<ColumnValue>>, RowError> {
        let mut columns = Vec::with_capacity(self.missing.len());
        for key in &self.missing {
            match check_key::<R>(key.to_columns()) {
                Ok(key) => columns.push(key),
                Err(error) if columns.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        self.missing.truncate(columns.len());
        Ok(columns)
    }

    /// Takes what the table holds for the missing keys: `loaded` for those it has, nothing for the others.
    ///
    /// # Errors
    /// [`RowError::Foreign`] if a loaded row has another key.
    pub(crate) fn supply(&mut self, loaded: Vec<R>) -> Result<(), RowError> {
        for key in self.missing.drain(..) {
            self.slots.insert(key, Slot::of(Stored::Absent));
        }
        for row in loaded {
            let key = row.key();
            match self.slots.get_mut(&key) {
                Some(slot) => slot.stored = Stored::Row(row),
                None => return Err(RowError::foreign::<R>(&key)),
            }
        }
        Ok(())
    }

    /// What must be written so that the table holds what the round made: only rows that are really other than before, in the
    /// order of their keys.
    ///
    /// # Errors
    /// About a row that no table can hold or give back: of all such rows, one of the earliest event that made one.
    pub(crate) fn changes(&mut self) -> Result<Changes, BadRow> {
        let mut changes = Changes::default();
        let mut failed: Option<BadRow> = None;
        for (key, slot) in &mut self.slots {
            if let Err(bad) = slot.add_to(&mut changes, key)
                && failed.as_ref().is_none_or(|(event, _)| bad.0 < *event)
            {
                failed = Some(bad);
            }
        }
        if let Some(bad) = failed {
            return Err(bad);
        }
        changes.sort(R::TABLE);
        Ok(changes)
    }
}

impl<R: ReadModel> Slot<R> {
    /// Makes a row that an event before `event` has changed the one that the table would give back.
    fn normalize(&mut self, key: &R::Key, event: usize) -> Result<(), BadRow> {
        if self.is_normal || self.changed_by == event {
            return Ok(());
        }
        self.is_normal = true;
        // The key of a row that was looked up was checked before it was loaded.
        if matches!(self.stored, Stored::Unknown | Stored::Missing) {
            check_key::<R>(key.to_columns()).map_err(|error| (self.changed_by, error))?;
        }
        match &mut self.now {
            Now::Row(row) => normalize(key, row).map_err(|error| (self.changed_by, error)),
            Now::Removed | Now::AsStored => Ok(()),
        }
    }

    /// Adds what must be written for this row.
    fn add_to(&mut self, changes: &mut Changes, key: &R::Key) -> Result<(), BadRow> {
        let by = self.changed_by;
        self.normalize(key, usize::MAX)?;
        match (&self.now, &self.stored) {
            (Now::AsStored, _) | (Now::Removed, Stored::Absent) => {}
            (Now::Removed, _) => changes.removed.push(check_key::<R>(key.to_columns()).map_err(|error| (by, error))?),
            (Now::Row(row), stored) => {
                let columns = row.to_columns();
                let same = matches!(stored, Stored::Row(before) if before.to_columns() == columns);
                if !same {
                    check_columns::<R>(key, &columns).map_err(|error| (by, error))?;
                    if row.key() != *key {
                        return Err((by, RowError::key_changed::<R>(key, &row.key())));
                    }
                    changes.written.push(columns.into_iter().map(ColumnValue::normal).collect());
                }
            }
        }
        Ok(())
    }
}

/// Makes a row the one that its table gives back.
fn normalize<R: ReadModel>(key: &R::Key, row: &mut R) -> Result<(), RowError> {
    if row.key() != *key {
        return Err(RowError::key_changed::<R>(key, &row.key()));
    }
    match row.normalize() {
        Ok(()) if R::TABLE.indexes_vary() => check_indexes::<R>(key, &row.to_columns()),
        Ok(()) => Ok(()),
        Err(error) => {
            // What the table cannot hold is reported as for every row.
            check_columns::<R>(key, &row.to_columns())?;
            Err(RowError::lost::<R>(key, &error))
        }
    }
}

impl<R: Clone> Slot<R> {
    fn of(stored: Stored<R>) -> Self {
        Self { stored, now: Now::AsStored, changed_by: 0, is_normal: true }
    }

    fn row(&self) -> Option<&R> {
        match (&self.now, &self.stored) {
            (Now::Row(row), _) | (Now::AsStored, Stored::Row(row)) => Some(row),
            _ => None,
        }
    }

    /// The row for `event` to change; what the table holds is kept beside it, for the next round and for comparison.
    fn row_mut(&mut self, event: usize) -> Option<&mut R> {
        (self.changed_by, self.is_normal) = (event, false);
        if let (Now::AsStored, Stored::Row(row)) = (&self.now, &self.stored) {
            self.now = Now::Row(row.clone());
        }
        match &mut self.now {
            Now::Row(row) => Some(row),
            Now::AsStored | Now::Removed => None,
        }
    }
}
