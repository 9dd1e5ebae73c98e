//! Rows by their keys.

use std::collections::{BTreeMap, BTreeSet};

use annals_eventstore::{BackendError, Tenant};

use super::Query;
use super::run::{row_of, unreadable};
use crate::changes::{RowError, check_key};
use crate::error::QueryError;
use crate::handle::Projections;
use crate::key_order::KeyOrder;
use crate::known_rows::whole_key;
use crate::projection::Projection;
use crate::read_model::ReadModel;

type Key<P> = <<P as Projection>::Row as ReadModel>::Key;

impl Projections {
    /// How many rows one call reads at most. More are refused, never cut: read them in parts.
    pub const MOST_ROWS: usize = 10_000;

    /// The row of `P`'s read model called `key`; `None` if there is none.
    ///
    /// It is what a query by the stable name finds, at one moment: to find what a command has just written, wait for its
    /// position before. The version shown may be another than the one that runs here, while a new one is deployed;
    /// its row is given if it has what `P`'s row needs. A handle is cheap to clone, so that each web handler can have one.
    /// It goes on reading when the projections are closed, but not when the database is.
    ///
    /// If the rows belong to tenants, this does not compile: see [`Projections::find_of_tenant`].
    ///
    /// ```
    /// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
    /// # use till::*;
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("till.db");
    /// # use annals_eventstore::{EventStore, EventStoreExt, ExpectedVersion, StreamId, Tenant};
    /// # use annals_projections::ProjectionsExt;
    /// # let store = annals_eventstore::sqlite(&path).await?;
    /// # let stream = StreamId::new(Tenant::default(), "till", "t-1")?;
    /// let views = store.projections().with(PerTill).start().await?;
    /// let sold = store.new_event(&TillEvent::Sold { cents: 4_50 })?;
    /// let done = store.append(&stream, ExpectedVersion::Any, vec![sold]).await?;
    /// views.wait_for(done.position, std::time::Duration::from_secs(2)).await?;
    ///
    /// let row = views.find::<PerTill>(&"t-1".to_owned()).await?;
    /// assert_eq!(row.map(|row| row.cents), Some(4_50));
    /// # views.close().await;
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`QueryError::Key`] if no row can have the key; [`QueryError::OtherVersion`] while the name shows a version whose rows
    /// cannot be read as `P`'s; [`QueryError::Database`]; [`QueryError::Unknown`] if `P` was not started.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn find<P: Projection>(&self, key: &Key<P>) -> Result<Option<P::Row>, QueryError> {
        const { not_per_tenant::<P>() };
        self.find_one::<P>(None, key).await
    }

    /// The same of a read model whose rows belong to tenants: the row of this tenant, whatever rows others have by this key.
    ///
    /// Without the tenant it does not compile:
    ///
    /// ```compile_fail,E0080
    /// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
    /// # use annals_projections::{Projection, ProjectionError, Projections, Rows};
    /// #[derive(annals_macros::ReadModel, Clone)]
    /// #[read_model(table = "takings", key = "till", per_tenant)]
    /// struct Takings {
    ///     till: String,
    /// }
    /// # struct PerTill;
    /// # impl Projection for PerTill {
    /// #     type Event = till::TillEvent;
    /// #     type Row = Takings;
    /// #     fn apply(&self, _: &annals_eventstore::Recorded<till::TillEvent>, _: &mut Rows<Takings>) -> Result<(), ProjectionError> {
    /// #         Ok(())
    /// #     }
    /// # }
    ///
    /// async fn found(views: Projections) {
    ///     views.find::<PerTill>(&"t-1".to_owned()).await.unwrap(); // call `find_of_tenant`
    /// }
    /// # fn main() {
    /// #     let views: Option<Projections> = None;
    /// #     views.map(|views| tokio::runtime::Runtime::new().unwrap().block_on(found(views)));
    /// # }
    /// ```
    ///
    /// # Errors
    /// As of [`Projections::find`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn find_of_tenant<P: Projection>(
        &self,
        tenant: &Tenant,
        key: &Key<P>,
    ) -> Result<Option<P::Row>, QueryError> {
        const { per_tenant::<P>() };
        self.find_one::<P>(Some(tenant), key).await
    }

    /// The rows of `P`'s read model with these keys, at one moment: for each key, in the order of the keys, its row, or
    /// `None` if there is none. A key that is given twice is answered twice. At most [`Projections::MOST_ROWS`] keys.
    ///
    /// ```
    /// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
    /// # use till::*;
    /// # async fn run(views: annals_projections::Projections) -> Result<(), Box<dyn std::error::Error>> {
    /// let tills = ["t-2".to_owned(), "t-1".to_owned()];
    /// let rows = views.find_many::<PerTill>(&tills).await?;
    /// let cents: i64 = rows.into_iter().flatten().map(|row| row.cents).sum(); // those that there are
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`QueryError::TooManyKeys`]; others as of [`Projections::find`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn find_many<P: Projection>(&self, keys: &[Key<P>]) -> Result<Vec<Option<P::Row>>, QueryError> {
        const { not_per_tenant::<P>() };
        self.find_all::<P>(None, keys).await
    }

    /// The same of a read model whose rows belong to tenants: the rows of this tenant.
    ///
    /// # Errors
    /// As of [`Projections::find_many`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn find_many_of_tenant<P: Projection>(
        &self,
        tenant: &Tenant,
        keys: &[Key<P>],
    ) -> Result<Vec<Option<P::Row>>, QueryError> {
        const { per_tenant::<P>() };
        self.find_all::<P>(Some(tenant), keys).await
    }

    async fn find_one<P: Projection>(
        &self,
        tenant: Option<&Tenant>,
        key: &Key<P>,
    ) -> Result<Option<P::Row>, QueryError> {
        Ok(self.find_all::<P>(tenant, std::slice::from_ref(key)).await?.pop().flatten())
    }

    async fn find_all<P: Projection>(
        &self,
        tenant: Option<&Tenant>,
        keys: &[Key<P>],
    ) -> Result<Vec<Option<P::Row>>, QueryError> {
        self.model_of::<P>()?;
        if keys.len() > Self::MOST_ROWS {
            let (read_model, given) = (P::Row::TABLE.name, keys.len());
            return Err(QueryError::TooManyKeys { read_model, given, most: Self::MOST_ROWS });
        }
        let checked = |key| check_key::<P::Row>(whole_key::<P::Row>(tenant, key)).map(KeyOrder::of);
        let keys = keys.iter().map(checked).collect::<Result<Vec<_>, _>>().map_err(QueryError::Key)?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        // Each once; the same order of keys makes neighbours in the table neighbours in the query.
        let distinct: BTreeSet<&KeyOrder> = keys.iter().collect();
        let distinct: Vec<_> = distinct.into_iter().map(|key| key.clone().into_values()).collect();
        let found = rows_by_key::<P::Row>(self.values_of::<P>(Query::Keys(&distinct)).await?)?;
        if let Some((key, _)) = found
            .iter()
            .find(|(key, _)| distinct.binary_search_by(|known| KeyOrder::of(known.clone()).cmp(key)).is_err())
        {
            let foreign = RowError::foreign::<P::Row>(&key.clone().into_values());
            return Err(unreadable::<P::Row>(BackendError::new(foreign)));
        }
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }
}

fn rows_by_key<R: ReadModel>(rows: Vec<Vec<crate::column::ColumnValue>>) -> Result<BTreeMap<KeyOrder, R>, QueryError> {
    let places = R::TABLE.key_places();
    let by_key = |values: Vec<crate::column::ColumnValue>| {
        let key = KeyOrder::of(places.iter().map(|&at| values[at].clone()).collect());
        Ok((key, row_of::<R>(values)?))
    };
    rows.into_iter().map(by_key).collect()
}

/// Fails to compile where a tenant would be forgotten.
pub(crate) const fn not_per_tenant<P: Projection>() {
    assert!(
        !P::Row::TABLE.per_tenant,
        "the rows of this read model belong to tenants: call `find_of_tenant`, `find_many_of_tenant`, `select_of_tenant` or \
         `find_of_tenant_as_of`"
    );
}

/// Fails to compile where a tenant would have no meaning.
pub(crate) const fn per_tenant<P: Projection>() {
    assert!(
        P::Row::TABLE.per_tenant,
        "the rows of this read model belong to no tenant: declare it `per_tenant`, or call `find`, `find_many`, \
         `select` or `find_as_of`"
    );
}
