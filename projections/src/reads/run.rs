//! Asking the database for rows of the version that the name shows, whichever that is.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use annals_eventstore::{BackendError, DatabaseError};

use super::Query;
use crate::column::ColumnValue;
use crate::database::{Model, QueryFault};
use crate::error::QueryError;
use crate::handle::Projections;
use crate::projection::Projection;
use crate::read_model::ReadModel;
use crate::rows::read_row;
use crate::shape::unfit_columns;

/// How often a name may be found to show yet another version before the query is given up.
const ATTEMPTS: usize = 10;

/// Which versions the names showed last, of those whose rows can be read here.
#[derive(Default)]
pub(crate) struct Reads(Mutex<HashMap<&'static str, u32>>);

impl Reads {
    /// The version that the name most likely shows.
    fn expected(&self, model: &Model) -> u32 {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.get(model.projection).copied().unwrap_or(model.version)
    }

    fn expect(&self, model: &Model, version: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(model.projection, version);
    }
}

impl Projections {
    /// The values of the rows that a query of `P`'s read model finds, as the columns of `P`'s row.
    pub(super) async fn values_of<P: Projection>(&self, query: Query<'_>) -> Result<Vec<Vec<ColumnValue>>, QueryError> {
        let model = self.model_of::<P>()?;
        let read_model = model.table.name;
        let database = self.names().shared.database.as_ref();
        let failed = |source| QueryError::Database { read_model, source };
        let mut expected = self.reads().expected(&model);
        for _ in 0..ATTEMPTS {
            let fault = match database.query(&model, expected, &query).await {
                Ok(Some(rows)) => return Ok(rows),
                Ok(None) => None,
                Err(fault) => Some(fault),
            };
            // A query of a version that lacks a column fails in the database, as does one that is wrong.
            let is_transient = matches!(&fault, Some(QueryFault::Database(error)) if error.is_transient());
            let name = if is_transient { None } else { database.name(&model).await.map_err(failed)? };
            match (name, fault) {
                (Some(name), _) if name.version != expected => {
                    let shape = name.shown.map(|(shape, _)| shape).unwrap_or_default();
                    check_fits(&model, name.version, &shape)?;
                    expected = name.version;
                    self.reads().expect(&model, expected);
                }
                (_, Some(QueryFault::Database(source))) => return Err(failed(source)),
                (_, Some(QueryFault::Row(source))) => return Err(QueryError::Unreadable { read_model, source }),
                // It shows another version than a moment ago.
                (Some(_), None) => {}
                (None, None) => {
                    let source =
                        BackendError::new("which version the name shows is not stored; start the projections again");
                    return Err(failed(DatabaseError::Failed { source }));
                }
            }
        }
        let source = BackendError::new("the name showed another version each time");
        Err(failed(DatabaseError::Unavailable { source }))
    }

    /// The model of `P`, if it runs here.
    pub(super) fn model_of<P: Projection>(&self) -> Result<Model, QueryError> {
        let model = Model { projection: P::NAME, version: P::VERSION, table: P::Row::TABLE };
        let fed = &self.names().fed;
        if fed.iter().any(|fed| fed.model == model) {
            return Ok(model);
        }
        let known = fed.iter().map(|fed| format!("`{}` (version {})", fed.model.projection, fed.model.version));
        let known = known.collect::<Vec<_>>().join(", ");
        Err(QueryError::Unknown { name: P::NAME, version: P::VERSION, known })
    }
}

/// Whether rows of a version of this shape can be read as those of the model.
fn check_fits(model: &Model, shown: u32, shape: &str) -> Result<(), QueryError> {
    let unfit = if shown == model.version { Vec::new() } else { unfit_columns(shape, model.table) };
    if unfit.is_empty() {
        return Ok(());
    }
    let Model { projection, version: here, table } = *model;
    Err(QueryError::OtherVersion { projection, read_model: table.name, shown, here, unfit })
}

/// A row of its values.
pub(super) fn row_of<R: ReadModel>(values: Vec<ColumnValue>) -> Result<R, QueryError> {
    let row = read_row::<R>(values).map_err(|error| unreadable::<R>(BackendError::new(error)))?;
    Ok(row.1)
}

pub(super) fn unreadable<R: ReadModel>(source: BackendError) -> QueryError {
    QueryError::Unreadable { read_model: R::TABLE.name, source }
}
