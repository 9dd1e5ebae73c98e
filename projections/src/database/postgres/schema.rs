//! Where read models live in a PostgreSQL database: the schema of their tables, and the statements for those.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use annals_eventstore::__private::answer_within;
use annals_eventstore::{BackendError, DatabaseError, PostgresDatabase};
use sqlx::{AssertSqlSafe, PgConnection, Row, SqlSafeStr};

use super::statements::Statements;
use super::values::Query;
use crate::database::{Model, Place};

const WHERE_TO: &str = "
    SELECT current_schema()::text, current_setting('server_encoding')
    ORDER BY 1
";

/// The first schema of the search path, as it was when it was asked for. Statements name it, so that they mean the same
/// on every connection.
pub(super) struct ModelSchema {
    schema: String,
    database: PostgresDatabase,
    /// The text of every statement, made once per table.
    statements: Mutex<HashMap<(&'static str, u32), Arc<Statements>>>,
}

impl ModelSchema {
    /// Asks where tables would be made.
    pub(super) async fn find(database: &PostgresDatabase) -> Result<Self, DatabaseError> {
        let failed = |what: String| DatabaseError::Failed { source: BackendError::new(what) };
        let mut transaction = database.begin().await?;
        let row =
            Query::of(database, WHERE_TO).once().fetch_one(&mut transaction).await.map_err(|e| database.fault(e))?;
        let (schema, encoding): (Option<String>, String) = (row.get(0), row.get(1));
        if encoding != "UTF8" {
            return Err(failed(format!("the database has the encoding {encoding}; create it with `ENCODING 'UTF8'`")));
        }
        let schema = schema.ok_or_else(|| {
            failed(
                "`search_path` names no schema that exists, so tables have no place; set it, or create one".to_owned(),
            )
        })?;
        Ok(Self { schema, database: database.clone(), statements: Mutex::default() })
    }

    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// A statement that is run again and again.
    pub(super) fn query(&self, text: impl Into<Arc<str>>) -> Query {
        Query::of(&self.database, AssertSqlSafe(text.into()))
    }

    /// A statement that is run now and then.
    pub(super) fn once(&self, text: &'static str) -> Query {
        Query::of(&self.database, text).once()
    }

    /// Runs statements without values by the simple protocol: nothing is gained by keeping the plan of one that runs once.
    pub(super) async fn run(&self, connection: &mut PgConnection, sql: impl SqlSafeStr) -> Result<(), sqlx::Error> {
        let answer = sqlx::raw_sql(sql).execute(connection);
        answer_within(self.database.answer_timeout(), answer).await.map(drop)
    }

    /// Binds the row of a checkpoint, and the place at which it must be.
    pub(super) fn bind_place(&self, query: Query, model: &Model, from: &Place) -> Query {
        bind_place(query, &self.schema, model, from)
    }

    pub(super) fn statements(&self, model: &Model) -> Arc<Statements> {
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        let made = statements.entry((model.table.name, model.version));
        Arc::clone(made.or_insert_with(|| Arc::new(Statements::of(&self.schema, model))))
    }
}

/// Binds the row of a checkpoint in a schema, and the place at which it must be.
pub(super) fn bind_place(query: Query, schema: &str, model: &Model, from: &Place) -> Query {
    query
        .bind(schema.to_owned())
        .bind(model.projection)
        .bind(i64::from(model.version))
        .bind(stored_slot(from.slot))
        .bind(from.epoch)
        .bind(from.checkpoint.incarnation.0)
        .bind(from.checkpoint.position.get())
        .bind(from.checkpoint.event_id.map(|id| id.get()))
}

/// The number of a slot as its column has it; numbers beyond are refused at the start.
pub(super) fn stored_slot(slot: u32) -> i32 {
    i32::try_from(slot).unwrap_or(i32::MAX)
}
