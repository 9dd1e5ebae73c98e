//! What a batch knows of the rows of one tenant, or of all: what the table holds, and what the fold made of it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use annals_eventstore::Tenant;

use crate::changes::{Changes, RowError, check_columns, check_indexes, check_key, check_prefix, guarded};
use crate::column::{Column, ColumnValue};
use crate::key_order::KeyOrder;
use crate::read_model::{ReadModel, RowKey};

/// A row that no table can hold or give back, and the number of the event that made it.
pub(crate) type BadRow = (usize, RowError);

/// The rows of one tenant if the read model is per tenant; of all otherwise.
#[derive(Debug)]
pub(crate) struct KnownRows<R: ReadModel> {
    tenant: Option<Tenant>,
    by_key: HashMap<R::Key, KnownRow<R>>,
    /// What the keys begin with whose rows were all removed in this round.
    removed: BTreeSet<KeyOrder>,
    /// The keys in their order, from the round's first such removal on.
    ordered: Option<BTreeMap<KeyOrder, R::Key>>,
}

/// What is known about one key.
#[derive(Debug)]
struct KnownRow<R> {
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
pub(crate) enum Now<R> {
    AsStored,
    Row(R),
    Removed,
}

/// What a lookup found.
pub(crate) enum LookUp {
    /// Whether there is such a row is known.
    Known,
    /// It is not, and was asked for in this round before.
    Asked,
    /// It is not.
    Missing,
}

impl<R: ReadModel> KnownRows<R> {
    /// Nothing is known about any key.
    pub(crate) fn of(tenant: Option<Tenant>) -> Self {
        Self { tenant, by_key: HashMap::new(), removed: BTreeSet::new(), ordered: None }
    }

    pub(crate) fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    /// The row called `key`, as far as it is known.
    pub(crate) fn row(&self, key: &R::Key) -> Option<&R> {
        self.by_key.get(key).and_then(KnownRow::row)
    }

    /// The same, for `event` to change it.
    pub(crate) fn row_mut(&mut self, key: &R::Key, event: usize) -> Option<&mut R> {
        self.by_key.get_mut(key).and_then(|known| known.row_mut(event))
    }

    /// Puts `now` in place of what there is.
    ///
    /// # Errors
    /// What an earlier event made must have been fit to be stored, though it is replaced now.
    pub(crate) fn set(&mut self, key: R::Key, now: Now<R>, event: usize) -> Result<(), BadRow> {
        let tenant = self.tenant.as_ref();
        let (known, fit) = match self.by_key.entry(key) {
            Entry::Occupied(entry) => {
                let key = entry.key().clone();
                let known = entry.into_mut();
                let fit = known.normalize(tenant, &key, event);
                (known, fit)
            }
            Entry::Vacant(entry) => {
                if let Some(ordered) = &mut self.ordered {
                    ordered.insert(KeyOrder::of(entry.key().to_columns()), entry.key().clone());
                }
                (entry.insert(KnownRow::of(Stored::Unknown)), Ok(()))
            }
        };
        (known.now, known.changed_by, known.is_normal) = (now, event, false);
        fit
    }

    /// Removes every row whose key begins with `prefix`, known or not.
    ///
    /// # Errors
    /// If no table can hold a key that begins so; and as of [`KnownRows::set`].
    pub(crate) fn remove_by_prefix(&mut self, prefix: Vec<ColumnValue>, event: usize) -> Result<(), BadRow> {
        check_prefix::<R>(&with_tenant(self.tenant.as_ref(), prefix.clone())).map_err(|error| (event, error))?;
        let prefix = KeyOrder::of(prefix);
        let ordered = self.ordered.get_or_insert_with(|| {
            self.by_key.keys().map(|key| (KeyOrder::of(key.to_columns()), key.clone())).collect()
        });
        let under = ordered.range(prefix.clone()..).take_while(|(key, _)| key.begins_with(&prefix));
        let keys: Vec<R::Key> = under.map(|(_, key)| key.clone()).collect();
        self.removed.insert(prefix);
        let fit = keys.into_iter().map(|key| self.set(key, Now::Removed, event));
        fit.fold(Ok(()), Result::and)
    }

    /// Looks for the row called `key`. If there is one that an earlier event has changed, it is made the one that the table
    /// would give back.
    ///
    /// # Errors
    /// If no table can hold it, or give it back.
    pub(crate) fn look_up(&mut self, key: &R::Key, event: usize) -> Result<LookUp, BadRow> {
        match self.by_key.get_mut(key) {
            Some(known @ KnownRow { now: Now::Row(_) | Now::Removed, .. }) => {
                known.normalize(self.tenant.as_ref(), key, event).map(|()| LookUp::Known)
            }
            Some(KnownRow { stored: Stored::Absent | Stored::Row(_), .. }) => Ok(LookUp::Known),
            Some(KnownRow { stored: Stored::Missing, .. }) => Ok(LookUp::Asked),
            Some(known @ KnownRow { stored: Stored::Unknown, .. }) => {
                known.stored = Stored::Missing;
                Ok(LookUp::Missing)
            }
            None if is_under(&self.removed, key) => self.set(key.clone(), Now::Removed, event).map(|()| LookUp::Known),
            None => {
                if let Some(ordered) = &mut self.ordered {
                    ordered.insert(KeyOrder::of(key.to_columns()), key.clone());
                }
                self.by_key.insert(key.clone(), KnownRow::of(Stored::Missing));
                Ok(LookUp::Missing)
            }
        }
    }

    /// Begins a round: forgets what the last one made, keeps what the table is known to hold.
    pub(crate) fn reset(&mut self) {
        self.removed.clear();
        self.ordered = None;
        self.by_key.retain(|_, known| {
            (known.now, known.is_normal) = (Now::AsStored, true);
            matches!(known.stored, Stored::Absent | Stored::Row(_))
        });
    }

    /// The row called `key`, which was asked for, is not in the table as far as is known by now; or it was not `looked_up` after
    /// all.
    pub(crate) fn not_stored(&mut self, key: &R::Key, looked_up: bool) {
        if let Some(known) = self.by_key.get_mut(key) {
            known.stored = if looked_up { Stored::Absent } else { Stored::Unknown };
        }
    }

    /// The table has no row called `key`, unless it is known to have one or an event has changed that.
    pub(crate) fn assume_absent(&mut self, key: &R::Key) {
        if !self.by_key.contains_key(key) {
            self.by_key.insert(key.clone(), KnownRow::of(Stored::Absent));
        }
    }

    /// The table has this row, which was asked for.
    ///
    /// # Errors
    /// [`RowError::Foreign`] if it was not.
    pub(crate) fn stored(&mut self, row: R) -> Result<(), RowError> {
        let key = row.key();
        match self.by_key.get_mut(&key) {
            Some(known) => known.stored = Stored::Row(row),
            None => return Err(RowError::foreign::<R>(&whole_key::<R>(self.tenant.as_ref(), &key))),
        }
        Ok(())
    }

    /// Adds what must be written so that the table holds what the round made: only rows that are really other than before. Rows
    /// that no table can hold or give back are added to `failed`.
    pub(crate) fn add_to(&mut self, changes: &mut Changes, failed: &mut Vec<BadRow>) {
        let removed = std::mem::take(&mut self.removed);
        for (key, known) in &mut self.by_key {
            let is_removed = is_under(&removed, key);
            failed.extend(known.add_to(changes, self.tenant.as_ref(), key, is_removed).err());
        }
        let prefixes = removed.into_iter().map(|prefix| with_tenant(self.tenant.as_ref(), prefix.into_values()));
        changes.removed_prefixes.extend(prefixes);
    }
}

impl<R: ReadModel> KnownRow<R> {
    /// Makes a row that an event before `event` has changed the one that the table would give back.
    fn normalize(&mut self, tenant: Option<&Tenant>, key: &R::Key, event: usize) -> Result<(), BadRow> {
        if self.is_normal || self.changed_by == event {
            return Ok(());
        }
        self.is_normal = true;
        let normal = guarded::<R, _>(|| {
            // The key of a row that was looked up was checked before it was loaded.
            if matches!(self.stored, Stored::Unknown | Stored::Missing) {
                check_key::<R>(whole_key::<R>(tenant, key))?;
            }
            match &mut self.now {
                Now::Row(row) => normalize(tenant, key, row),
                Now::Removed | Now::AsStored => Ok(()),
            }
        });
        normal.map_err(|error| (self.changed_by, error))
    }

    /// Adds what must be written for this row. `is_removed` says that the row which the table holds is removed with all whose
    /// keys begin alike.
    fn add_to(
        &mut self,
        changes: &mut Changes,
        tenant: Option<&Tenant>,
        key: &R::Key,
        is_removed: bool,
    ) -> Result<(), BadRow> {
        self.normalize(tenant, key, usize::MAX)?;
        let added = guarded::<R, _>(|| self.add_normal_to(changes, tenant, key, is_removed));
        added.map_err(|error| (self.changed_by, error))
    }

    fn add_normal_to(
        &self,
        changes: &mut Changes,
        tenant: Option<&Tenant>,
        key: &R::Key,
        is_removed: bool,
    ) -> Result<(), RowError> {
        match (&self.now, &self.stored) {
            (Now::AsStored, _) | (Now::Removed, Stored::Absent) => {}
            (Now::Removed, _) => {
                let key = check_key::<R>(whole_key::<R>(tenant, key))?;
                if !is_removed {
                    changes.removed.push(key);
                }
            }
            (Now::Row(row), stored) => {
                let columns = row.to_columns();
                let same = matches!(stored, Stored::Row(before) if before.to_columns() == columns);
                if is_removed || !same {
                    let (whole, columns) = (whole_key::<R>(tenant, key), with_tenant(tenant, columns));
                    check_columns::<R>(&whole, &columns)?;
                    check_same_key(tenant, key, row)?;
                    changes.written.push(columns.into_iter().map(ColumnValue::normal).collect());
                }
            }
        }
        Ok(())
    }
}

/// Whether the key begins with one of `removed`. Rows may have been made since those were removed.
fn is_under(removed: &BTreeSet<KeyOrder>, key: &impl RowKey) -> bool {
    !removed.is_empty() && KeyOrder::of(key.to_columns()).prefixes().any(|prefix| removed.contains(&prefix))
}

/// Values of a row or of a key as the table has them: behind the tenant, if the read model is per tenant.
pub(crate) fn with_tenant(tenant: Option<&Tenant>, values: Vec<ColumnValue>) -> Vec<ColumnValue> {
    match tenant {
        Some(tenant) => std::iter::once(tenant.to_column()).chain(values).collect(),
        None => values,
    }
}

pub(crate) fn whole_key<R: ReadModel>(tenant: Option<&Tenant>, key: &R::Key) -> Vec<ColumnValue> {
    with_tenant(tenant, key.to_columns())
}

/// The key of a row stays as it is.
fn check_same_key<R: ReadModel>(tenant: Option<&Tenant>, key: &R::Key, row: &R) -> Result<(), RowError> {
    let found = row.key();
    if found == *key {
        return Ok(());
    }
    Err(RowError::key_changed::<R>(&whole_key::<R>(tenant, key), &whole_key::<R>(tenant, &found)))
}

/// Makes a row the one that its table gives back.
fn normalize<R: ReadModel>(tenant: Option<&Tenant>, key: &R::Key, row: &mut R) -> Result<(), RowError> {
    check_same_key(tenant, key, row)?;
    let whole = |row: &R| (whole_key::<R>(tenant, key), with_tenant(tenant, row.to_columns()));
    match row.normalize() {
        Ok(()) if R::TABLE.indexes_vary() => {
            let (key, columns) = whole(row);
            check_indexes::<R>(&key, &columns)
        }
        Ok(()) => Ok(()),
        Err(error) => {
            // What the table cannot hold is reported as for every row.
            let (key, columns) = whole(row);
            check_columns::<R>(&key, &columns)?;
            Err(RowError::lost::<R>(&key, &error))
        }
    }
}

impl<R> KnownRow<R> {
    fn of(stored: Stored<R>) -> Self {
        Self { stored, now: Now::AsStored, changed_by: 0, is_normal: true }
    }
}

impl<R: Clone> KnownRow<R> {
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
