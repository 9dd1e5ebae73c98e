//! The rows that a fold works on: an identity map that knows what the table holds and what the fold made of it.

use std::collections::HashMap;

use annals_eventstore::Tenant;

use crate::changes::{Changes, RowError, check_key, guarded};
use crate::column::{Column, ColumnError, ColumnValue, bytes_of, next_column};
use crate::error::ProjectionError;
use crate::fold::Loaded;
use crate::known_rows::{BadRow, KnownRows, LookUp, Now, whole_key};
use crate::read_model::{ReadModel, RowKeyPrefix, TENANT};

/// The rows of a read model, as far as the events at hand need them.
///
/// No keys are declared. A lookup of a row that is not in memory fails; the runner remembers the key, loads the rows of all
/// such keys of the batch at once, and applies the batch again from its beginning. So hand the error on with `?`. Swallowing
/// it costs time but cannot harm: what was made without the row is thrown away.
///
/// A fold that asks for several rows of one event in a loop is run again for each of them, up to 20,000 times: where they are many, ask
/// for them at once by [`Rows::prefetch`].
///
/// In memory are the rows that one batch asks for or writes, of up to 10,000 events and about 4 MiB. A batch ends before the first event
/// that needs more than 16 MiB of stored rows, and where its events would write more than that, by what those before them wrote; one
/// event gets all that it asks for. An event finds each of them as the table would give it back after the event before it: times in whole microseconds, one zero, JSON in
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
/// #[read_model(table = "parcels_under_way", key = "parcel", per_tenant)]
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
///                 rows.require(&parcel)?.place.clone_from(to);
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
/// given_events([("p-3", moved())]).with(UnderWay).then_stops_before(1, "`parcels_under_way` has no row with the key");
/// ```
#[derive(Debug)]
pub struct Rows<R: ReadModel> {
    /// Those of the tenant whose event is applied if the read model is per tenant; all of them otherwise.
    known: KnownRows<R>,
    /// Those of other tenants. No lookup and no write of this event comes here.
    others: HashMap<Tenant, KnownRows<R>>,
    /// Keys of this round's lookups of which nothing is known, each once, in the order of the lookups.
    missing: Vec<(Option<Tenant>, R::Key)>,
    /// The number of the event that is being applied.
    event: usize,
    /// Whether all events of the batch are of one tenant, which the projection or its runner has chosen.
    of_one_tenant: bool,
    /// How many lookups this round has made.
    looked_up: usize,
    /// How many bytes the rows have that were loaded.
    loaded: usize,
    /// The first row of this round that no table can hold or give back, with the number of its event.
    failed: Option<BadRow>,
}

impl<R: ReadModel> Rows<R> {
    /// No rows, and nothing known about any key.
    pub(crate) fn new(of_one_tenant: bool) -> Self {
        let known = KnownRows::of(None);
        let (others, missing, event) = (HashMap::new(), Vec::new(), 0);
        Self { known, others, missing, event, of_one_tenant, looked_up: 0, loaded: 0, failed: None }
    }

    /// The row called `key`, or `None` if there is none.
    ///
    /// # Errors
    /// The runner's own error if the row is not in memory; hand it on.
    pub fn get(&mut self, key: &R::Key) -> Result<Option<&R>, ProjectionError> {
        self.look_up(key)?;
        Ok(self.known.row(key))
    }

    /// The row called `key` to change it, or `None` if there is none. Its key must stay as it is: the projection stops
    /// with [`RowError::KeyChanged`] otherwise.
    ///
    /// # Errors
    /// The runner's own error if the row is not in memory; hand it on.
    pub fn get_mut(&mut self, key: &R::Key) -> Result<Option<&mut R>, ProjectionError> {
        self.look_up(key)?;
        Ok(self.known.row_mut(key, self.event))
    }

    /// The row called `key` to change it, where it is a fault of the events or of the fold if there is none. The projection
    /// stops before the event then, and says which event and which key.
    ///
    /// # Errors
    /// [`RowError::Missing`] if there is no such row; the runner's own error if it is not in memory. Hand both on.
    pub fn require(&mut self, key: &R::Key) -> Result<&mut R, ProjectionError> {
        self.look_up(key)?;
        if self.known.row(key).is_none() {
            return Err(self.missing_row(key).into());
        }
        self.known.row_mut(key, self.event).ok_or_else(ProjectionError::not_loaded)
    }

    /// The row called `key` to change it; if there is none, the row that `make` gives. Its key must stay as it is.
    ///
    /// # Errors
    /// The runner's own error if the row is not in memory; hand it on.
    pub fn get_or_insert_with(&mut self, key: &R::Key, make: impl FnOnce() -> R) -> Result<&mut R, ProjectionError> {
        self.look_up(key)?;
        if self.known.row(key).is_none() {
            self.set(key.clone(), Now::Row(make()));
        }
        self.known.row_mut(key, self.event).ok_or_else(ProjectionError::not_loaded)
    }

    /// Whether there is a row called `key`.
    ///
    /// # Errors
    /// The runner's own error if that is not known yet; hand it on.
    pub fn contains(&mut self, key: &R::Key) -> Result<bool, ProjectionError> {
        Ok(self.get(key)?.is_some())
    }

    /// Sees to it that all of these rows are in memory: a fold that needs several rows for one event asks for them at once, and
    /// is not run again for each.
    ///
    /// # Errors
    /// The runner's own error if one of them is not in memory; hand it on.
    ///
    /// ```
    /// # use annals_macros::ReadModel;
    /// # use annals_projections::{ProjectionError, Rows};
    /// # #[derive(ReadModel, Clone)]
    /// # #[read_model(table = "balances", key = "account")]
    /// # struct Balance { account: String, cents: i64 }
    /// fn transferred(rows: &mut Rows<Balance>, from: String, to: String, cents: i64) -> Result<(), ProjectionError> {
    ///     rows.prefetch([&from, &to])?;
    ///     rows.require(&from)?.cents -= cents;
    ///     rows.require(&to)?.cents += cents;
    ///     Ok(())
    /// }
    /// ```
    pub fn prefetch<'a>(&mut self, keys: impl IntoIterator<Item = &'a R::Key>) -> Result<(), ProjectionError> {
        let mut all = Ok(());
        for key in keys {
            // Also after one that is missing: all of them are loaded at once.
            let found = self.look_up(key);
            all = all.and(found);
        }
        all
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

    /// Removes every row whose key begins with `prefix`, the first column or columns of a key of several. None of them is
    /// loaded for this.
    ///
    /// ```
    /// # use annals_macros::ReadModel;
    /// # use annals_projections::Rows;
    /// #[derive(ReadModel, Clone)]
    /// #[read_model(table = "orders_of_customers", key("customer", "order"))]
    /// struct Line {
    ///     customer: String,
    ///     order: u32,
    ///     cents: i64,
    /// }
    ///
    /// fn customer_erased(rows: &mut Rows<Line>, customer: String) {
    ///     rows.remove_by_prefix(&customer);
    /// }
    /// ```
    pub fn remove_by_prefix(&mut self, prefix: &impl RowKeyPrefix<R::Key>) {
        let removed = self.known.remove_by_prefix(prefix.to_columns(), self.event);
        self.note(removed);
    }

    /// That there is no such row.
    pub(crate) fn missing_row(&self, key: &R::Key) -> RowError {
        RowError::missing::<R>(&whole_key::<R>(self.known.tenant(), key))
    }

    /// The row called `key`, which this event has looked up before.
    pub(crate) fn row(&self, key: &R::Key) -> Option<&R> {
        self.known.row(key)
    }

    /// The same, to change it.
    pub(crate) fn row_mut(&mut self, key: &R::Key) -> Option<&mut R> {
        self.known.row_mut(key, self.event)
    }

    /// Puts a row in place of the one called `key`; a row with another key is the fault of this event.
    pub(crate) fn put(&mut self, key: &R::Key, row: R) {
        let found = row.key();
        if found != *key {
            let whole = |key| whole_key::<R>(self.known.tenant(), key);
            let error = RowError::of_another_stream::<R>(&whole(key), &whole(&found));
            self.note(Err((self.event, error)));
        }
        self.set(key.clone(), Now::Row(row));
    }

    /// The table has no row called `key`, if nothing is known about it.
    pub(crate) fn assume_absent(&mut self, key: &R::Key) {
        self.known.assume_absent(key);
    }

    /// Whether all events of the batch are of one tenant, whichever comes next.
    pub(crate) fn are_of_one_tenant(&self) -> bool {
        self.of_one_tenant
    }

    fn set(&mut self, key: R::Key, now: Now<R>) {
        let set = self.known.set(key, now, self.event);
        self.note(set);
    }

    fn note(&mut self, done: Result<(), BadRow>) {
        if let Err(bad) = done {
            self.failed.get_or_insert(bad);
        }
    }

    /// Fails, and remembers the key, if it is not known whether there is a row called `key`.
    fn look_up(&mut self, key: &R::Key) -> Result<(), ProjectionError> {
        self.looked_up += 1;
        match self.known.look_up(key, self.event) {
            Ok(LookUp::Known) => return Ok(()),
            Ok(LookUp::Asked) => {}
            Ok(LookUp::Missing) => self.missing.push((self.known.tenant().cloned(), key.clone())),
            Err(bad) => self.note(Err(bad)),
        }
        Err(ProjectionError::not_loaded())
    }

    /// Begins a round: forgets what the last one made, keeps what the table is known to hold.
    pub(crate) fn reset(&mut self) {
        self.missing.clear();
        (self.looked_up, self.failed) = (0, None);
        self.all().for_each(KnownRows::reset);
    }

    /// The event with this number comes next, of this tenant.
    pub(crate) fn begin(&mut self, event: usize, tenant: &Tenant) {
        self.event = event;
        if R::TABLE.per_tenant && self.known.tenant() != Some(tenant) {
            let known = self.others.remove(tenant).unwrap_or_else(|| KnownRows::of(Some(tenant.clone())));
            let left = std::mem::replace(&mut self.known, known);
            if let Some(tenant) = left.tenant().cloned() {
                self.others.insert(tenant, left);
            }
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut KnownRows<R>> {
        std::iter::once(&mut self.known).chain(self.others.values_mut())
    }

    fn of(&mut self, tenant: Option<&Tenant>) -> Option<&mut KnownRows<R>> {
        if self.known.tenant() == tenant {
            return Some(&mut self.known);
        }
        tenant.and_then(|tenant| self.others.get_mut(tenant))
    }

    /// The row of an earlier event that no table can hold or give back, if one was found since the last call.
    pub(crate) fn take_failed(&mut self) -> Option<BadRow> {
        self.failed.take()
    }

    /// How many lookups this round has made.
    pub(crate) fn looked_up(&self) -> usize {
        self.looked_up
    }

    /// How many bytes the rows have that were loaded.
    pub(crate) fn loaded(&self) -> usize {
        self.loaded
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
        for (tenant, key) in &self.missing {
            match guarded::<R, _>(|| check_key::<R>(whole_key::<R>(tenant.as_ref(), key))) {
                Ok(key) => columns.push(key),
                Err(error) if columns.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        self.missing.truncate(columns.len());
        Ok(columns)
    }

    /// Takes what the table holds for the first of the missing keys. Nothing is known of the others.
    ///
    /// # Errors
    /// [`RowError::Unreadable`] if a loaded row is not one of this type, [`RowError::Foreign`] if it has another key,
    /// [`RowError::Panicked`]. Then nothing is known of all of them.
    pub(crate) fn supply(&mut self, Loaded { rows, keys }: Loaded) -> Result<(), RowError> {
        self.loaded += bytes_of(&rows);
        let missing = std::mem::take(&mut self.missing);
        let (looked_up, others) = missing.split_at(keys.min(missing.len()));
        let supplied = guarded::<R, _>(|| {
            self.not_stored(looked_up, true);
            self.not_stored(others, false);
            self.stored(rows)
        });
        if supplied.is_err() {
            self.not_stored(&missing, false);
        }
        supplied
    }

    fn not_stored(&mut self, keys: &[(Option<Tenant>, R::Key)], looked_up: bool) {
        for (tenant, key) in keys {
            if let Some(known) = self.of(tenant.as_ref()) {
                known.not_stored(key, looked_up);
            }
        }
    }

    fn stored(&mut self, rows: Vec<Vec<ColumnValue>>) -> Result<(), RowError> {
        for columns in rows {
            let unreadable = |source| RowError::Unreadable { table: R::TABLE.name, source };
            let (tenant, row) = read_row::<R>(columns).map_err(unreadable)?;
            match self.of(tenant.as_ref()) {
                Some(known) => known.stored(row)?,
                None => return Err(RowError::foreign::<R>(&whole_key::<R>(tenant.as_ref(), &row.key()))),
            }
        }
        Ok(())
    }

    /// What must be written so that the table holds what the round made: only rows that are really other than before, in the
    /// order of their keys.
    ///
    /// # Errors
    /// All rows that no table can hold or give back.
    pub(crate) fn changes(&mut self) -> Result<Changes, Vec<BadRow>> {
        let (mut changes, mut failed) = (Changes::default(), Vec::new());
        self.all().for_each(|known| known.add_to(&mut changes, &mut failed));
        if failed.is_empty() {
            changes.sort(R::TABLE);
            return Ok(changes);
        }
        Err(failed)
    }
}

/// A row of the table, and whose it is if the read model is per tenant.
pub(crate) fn read_row<R: ReadModel>(columns: Vec<ColumnValue>) -> Result<(Option<Tenant>, R), ColumnError> {
    let mut columns = columns.into_iter();
    let tenant = match R::TABLE.per_tenant {
        true => {
            let value = next_column(&mut columns, TENANT)?;
            Some(Tenant::from_column(value).map_err(|error| error.in_column(TENANT))?)
        }
        false => None,
    };
    Ok((tenant, R::from_columns(&mut columns)?))
}
