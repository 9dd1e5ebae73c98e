//! Rows by a condition.

use annals_eventstore::Tenant;

use super::find::{not_per_tenant, per_tenant};
use super::run::row_of;
use super::text::{Clauses, clauses};
use super::value::checked;
use super::{Query, QueryValue, Select};
use crate::error::QueryError;
use crate::handle::Projections;
use crate::projection::Projection;
use crate::read_model::ReadModel;

impl Projections {
    /// The rows of `P`'s read model that fit a condition, at one moment, in the order that is asked for: on every database
    /// the same, from one text.
    ///
    /// The text has a condition, `ORDER BY`, `LIMIT` and `OFFSET`, in this order, each if it is needed. It has columns of the
    /// row, the values `$1`, `$2` and so on, which `values` gives, numbers, texts in quotes, comparisons, `AND`, `OR`, `NOT`,
    /// `IN (..)`, `BETWEEN`, `LIKE`, `IS NULL`, `IS DISTINCT FROM`, `CASE`, the operators `+ - * / % ||` and the functions
    /// `lower`, `upper`, `length`, `coalesce`, `nullif` and `abs`. Anything else is refused, such as a comment, a
    /// semicolon or a query in the query; so no text reads another table, or the rows of another tenant. A column that is a word of SQL is put
    /// into double quotes.
    ///
    /// - Rows that `ORDER BY` leaves equal are in the order of their keys, and so are all without it. The order of nulls
    ///   must be said.
    /// - A field with `#[column(text)]` is a column with the text that serde writes. Compare it with that, as in `status = 'paid'`,
    ///   or declare its type by [`text_column!`](crate::text_column) instead, and bind values of it.
    /// - A value must have the type of the column that it is compared with, and so must another column, though one may be an integer
    ///   and the other a real number. Null equals nothing: `IS NOT DISTINCT FROM $1` finds it.
    /// - `LIKE` takes capital and small letters as equal in SQLite, and not in PostgreSQL: `lower(customer) LIKE $1` is the same
    ///   in both. A backslash in its pattern escapes in PostgreSQL alone; `ESCAPE '!'` names another character for both. `lower` and
    ///   `upper` change the ASCII letters of a column alone.
    /// - Comparisons in a row need brackets: `(paid = $1) IS NULL`.
    /// - `%` is between integers. `/` of two integers is one; where a `CASE` or a `coalesce` mixes integers and real numbers, SQLite
    ///   goes by the value and PostgreSQL by the type.
    /// - A division by zero, and a sum beyond 64 bits, are an error in PostgreSQL; SQLite gives null, and a rounded number.
    /// - At most [`Projections::MOST_ROWS`] rows: those, each as large as it is, are what a call holds in memory.
    ///
    /// What the rows are and when they can be read, [`Projections::find`] says. An index of the read model helps as it does for any
    /// query. A query that needs more is SQL of your own, on the database of the read models.
    ///
    /// If the rows belong to tenants, this does not compile: see [`Projections::select_of_tenant`].
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
    /// # let views = store.projections().with(PerTill).start().await?;
    /// # for (till, cents) in [("t-1", 4_50), ("t-2", 9_00), ("t-3", 80)] {
    /// #     let sold = store.new_event(&TillEvent::Sold { cents })?;
    /// #     let stream = StreamId::new(Tenant::default(), "till", till)?;
    /// #     store.append(&stream, ExpectedVersion::Any, vec![sold]).await?;
    /// # }
    /// # views.caught_up(std::time::Duration::from_secs(2)).await?;
    /// let most = views.select::<PerTill>("cents >= $1 ORDER BY cents DESC LIMIT 20", &[&1_00]).await?;
    /// assert_eq!(most.iter().map(|row| &*row.till).collect::<Vec<_>>(), ["t-2", "t-1"]);
    ///
    /// let all = views.select::<PerTill>("", &[]).await?;
    /// assert_eq!(all.len(), 3);
    /// # views.close().await;
    /// # Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`QueryError::Text`] saying what the text cannot have; [`QueryError::Value`]; [`QueryError::TooManyRows`] if more rows fit
    /// than one call may read; [`QueryError::Database`], among others if the database cannot run the text; others
    /// as of [`Projections::find`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn select<P: Projection>(
        &self,
        text: &'static str,
        values: &[&dyn QueryValue],
    ) -> Result<Vec<P::Row>, QueryError> {
        const { not_per_tenant::<P>() };
        self.rows_of::<P>(None, text, values).await
    }

    /// The same of a read model whose rows belong to tenants: the text chooses among the rows of this tenant, and whatever it
    /// says, it sees no others.
    ///
    /// # Errors
    /// As of [`Projections::select`].
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn select_of_tenant<P: Projection>(
        &self,
        tenant: &Tenant,
        text: &'static str,
        values: &[&dyn QueryValue],
    ) -> Result<Vec<P::Row>, QueryError> {
        const { per_tenant::<P>() };
        self.rows_of::<P>(Some(tenant), text, values).await
    }

    async fn rows_of<P: Projection>(
        &self,
        tenant: Option<&Tenant>,
        text: &str,
        values: &[&dyn QueryValue],
    ) -> Result<Vec<P::Row>, QueryError> {
        self.model_of::<P>()?;
        let (read_model, most) = (P::Row::TABLE.name, Self::MOST_ROWS);
        let wrong = |(number, problem)| QueryError::Value { read_model, number, problem };
        let values = checked(values).map_err(wrong)?;
        let clauses = clauses(P::Row::TABLE, text, &values, most).map_err(|wrong| QueryError::Text {
            read_model,
            problem: wrong.problem,
            fix: wrong.fix,
        })?;
        let Clauses { condition, order, limit } = clauses;
        let select = Select { condition, order, limit, values, tenant: tenant.cloned() };
        let rows = self.values_of::<P>(Query::Select(&select)).await?;
        if rows.len() > most {
            return Err(QueryError::TooManyRows { read_model, most });
        }
        rows.into_iter().map(row_of::<P::Row>).collect()
    }
}
