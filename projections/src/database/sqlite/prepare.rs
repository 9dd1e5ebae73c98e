//! Table, indexes, view and checkpoint of a model: made when it is new, checked when it is not.

use std::sync::Arc;

use annals_eventstore::{Checkpoint, Incarnation, SqliteDatabase};
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::statements::{Statements, index_prefix, sqlite_type};
use super::stored_checkpoint;
use crate::database::sql::{is_our_index, quoted};
use crate::database::{Model, Prepared};
use crate::error::StartError;
use crate::shape::shape;

const SHAPE: &str = "
    SELECT shape
    FROM annals_checkpoints
    WHERE projection = ?1 AND version = ?2
    ORDER BY projection
";

const OTHER_OWNER: &str = "
    SELECT projection
    FROM annals_checkpoints
    WHERE read_model = ?1 AND projection <> ?2
    ORDER BY projection
";

const VERSIONS: &str = "
    SELECT version
    FROM annals_checkpoints
    WHERE projection = ?1
    ORDER BY version
";

const OBJECT: &str = "
    SELECT type, sql
    FROM sqlite_schema
    WHERE name = ?1
    ORDER BY name
";

const COLUMNS: &str = "
    SELECT name, type, \"notnull\", pk
    FROM pragma_table_info(?1)
    ORDER BY cid
";

const INDEXES: &str = "
    SELECT name
    FROM sqlite_schema
    WHERE type = 'index' AND tbl_name = ?1 AND sql IS NOT NULL
    ORDER BY name
";

const BEGIN_CHECKPOINT: &str = "
    INSERT INTO annals_checkpoints (projection, version, read_model, shape, incarnation, position, event_id, updated_at)
    VALUES (?1, ?2, ?3, ?4, ?5, 0, NULL, ?6)
";

/// Does all of it in one transaction, so that several processes may start at once.
pub(super) async fn prepare(
    database: &SqliteDatabase,
    model: &Model,
    statements: &Statements,
    incarnation: Incarnation,
    now: Timestamp,
) -> Result<Prepared, StartError> {
    let refused = |source| StartError::Database { projection: model.projection, source };
    let mut transaction = database.begin().await.map_err(refused)?;
    let prepared = Preparation { connection: &mut transaction, database, model, statements };
    let prepared = prepared.run(incarnation, now).await?;
    transaction.commit().await.map_err(refused)?;
    Ok(prepared)
}

/// Puts the view of the stable name over this version's table.
pub(super) async fn show(connection: &mut SqliteConnection, statements: &Statements) -> Result<(), sqlx::Error> {
    run(connection, &statements.drop_view).await?;
    run(connection, &statements.create_view).await
}

async fn run(connection: &mut SqliteConnection, sql: &Arc<str>) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(Arc::clone(sql))).execute(connection).await.map(drop)
}

struct Preparation<'a> {
    connection: &'a mut SqliteConnection,
    database: &'a SqliteDatabase,
    model: &'a Model,
    statements: &'a Statements,
}

impl Preparation<'_> {
    async fn run(mut self, incarnation: Incarnation, now: Timestamp) -> Result<Prepared, StartError> {
        self.check_owner().await?;
        let checkpoint = match self.stored().await? {
            Some(checkpoint) => {
                self.check_shape().await?;
                checkpoint
            }
            None => self.begin(incarnation, now).await?,
        };
        self.see_to_indexes().await?;
        let shown = self.see_to_view().await?;
        Ok(Prepared { checkpoint, shown })
    }

    fn refused(&self, error: sqlx::Error) -> StartError {
        StartError::Database { projection: self.model.projection, source: self.database.fault(error) }
    }

    fn taken(&self, name: &str, taken_by: String) -> StartError {
        StartError::NameTaken { projection: self.model.projection, name: name.to_owned(), taken_by }
    }

    async fn stored(&mut self) -> Result<Option<Checkpoint>, StartError> {
        stored_checkpoint(self.connection, self.model).await.map_err(|e| self.refused(e))
    }

    async fn check_owner(&mut self) -> Result<(), StartError> {
        let name = self.model.table.name;
        let query = sqlx::query(OTHER_OWNER).bind(name).bind(self.model.projection);
        let other = query.fetch_optional(&mut *self.connection).await.map_err(|e| self.refused(e))?;
        match other {
            Some(row) => Err(self.taken(name, format!("is the read model of projection `{}`", row.get::<&str, _>(0)))),
            None => Ok(()),
        }
    }

    async fn begin(&mut self, incarnation: Incarnation, now: Timestamp) -> Result<Checkpoint, StartError> {
        let name = self.model.table_name();
        if let Some((kind, _)) = self.object(&name).await? {
            return Err(self.taken(&name, format!("is a {kind} without a checkpoint")));
        }
        run(self.connection, &self.statements.create_table).await.map_err(|e| self.refused(e))?;
        sqlx::query(BEGIN_CHECKPOINT)
            .bind(self.model.projection)
            .bind(self.model.version)
            .bind(self.model.table.name)
            .bind(shape(self.model.table))
            .bind(incarnation.0.as_bytes().to_vec())
            .bind(now.as_microsecond())
            .execute(&mut *self.connection)
            .await
            .map_err(|e| self.refused(e))?;
        Ok(Checkpoint::start(incarnation))
    }

    /// The declaration must be the one that the table was made from, and the table must still be as it was made.
    async fn check_shape(&mut self) -> Result<(), StartError> {
        let declared = shape(self.model.table);
        let query = sqlx::query(SHAPE).bind(self.model.projection).bind(self.model.version);
        let row = query.fetch_one(&mut *self.connection).await.map_err(|e| self.refused(e))?;
        let stored: String = row.get(0);
        let changed = |stored: String, declared: String| StartError::ShapeChanged {
            projection: self.model.projection,
            version: self.model.version,
            stored,
            declared,
        };
        if stored != declared {
            return Err(changed(stored, declared));
        }
        let query = sqlx::query(COLUMNS).bind(self.model.table_name());
        let rows = query.fetch_all(&mut *self.connection).await.map_err(|e| self.refused(e))?;
        let found = rows.iter().map(|row| {
            let null = if row.get::<i64, _>(2) == 0 { " null" } else { "" };
            let key = match row.get::<i64, _>(3) {
                0 => String::new(),
                place => format!(" key {place}"),
            };
            format!("{} {}{null}{key}", row.get::<&str, _>(0), row.get::<&str, _>(1))
        });
        let found: Vec<String> = found.collect();
        let expected = self.model.table.columns.iter().map(|column| {
            let null = if column.nullable { " null" } else { "" };
            let key = match self.model.table.key.iter().position(|key| *key == column.name) {
                None => String::new(),
                Some(place) => format!(" key {}", place + 1),
            };
            format!("{} {}{null}{key}", column.name, sqlite_type(column))
        });
        let expected: Vec<String> = expected.collect();
        if found == expected {
            return Ok(());
        }
        let found = if found.is_empty() { "no table".to_owned() } else { found.join(", ") };
        Err(changed(found, expected.join(", ")))
    }

    /// Makes indexes that are missing and removes those of ours that are declared no longer. A user's own are left alone.
    async fn see_to_indexes(&mut self) -> Result<(), StartError> {
        let query = sqlx::query(INDEXES).bind(self.model.table_name());
        let rows = query.fetch_all(&mut *self.connection).await.map_err(|e| self.refused(e))?;
        let there: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let prefix = index_prefix(self.model);
        for name in there.iter().filter(|name| is_our_index(name, &prefix)) {
            if !self.statements.indexes.iter().any(|(declared, _)| declared == name) {
                let drop = Arc::from(format!("DROP INDEX {}", quoted(name)));
                run(self.connection, &drop).await.map_err(|e| self.refused(e))?;
            }
        }
        for (name, create) in &self.statements.indexes {
            if !there.contains(name) {
                run(self.connection, create).await.map_err(|e| self.refused(e))?;
            }
        }
        Ok(())
    }

    /// Makes the view if there is none; tells whether it shows this version. One that shows another version stays until
    /// this one has caught up.
    async fn see_to_view(&mut self) -> Result<bool, StartError> {
        let name = self.model.table.name;
        match self.object(name).await? {
            None => {
                show(self.connection, self.statements).await.map_err(|e| self.refused(e))?;
                Ok(true)
            }
            Some((kind, sql)) if kind == "view" => {
                if sql == *self.statements.create_view {
                    return Ok(true);
                }
                let query = sqlx::query(VERSIONS).bind(self.model.projection);
                let rows = query.fetch_all(&mut *self.connection).await.map_err(|e| self.refused(e))?;
                let ours = rows.iter().any(|row| {
                    let table = Model { version: row.get(0), ..*self.model }.table_name();
                    sql.ends_with(&format!(" FROM {}", quoted(&table)))
                });
                if ours { Ok(false) } else { Err(self.taken(name, "is a view that annals did not make".to_owned())) }
            }
            Some((kind, _)) => Err(self.taken(name, format!("is a {kind} that annals did not make"))),
        }
    }

    /// The kind and the text of the object called `name`.
    async fn object(&mut self, name: &str) -> Result<Option<(String, String)>, StartError> {
        let row = sqlx::query(OBJECT).bind(name.to_owned()).fetch_optional(&mut *self.connection).await;
        let row = row.map_err(|e| self.refused(e))?;
        Ok(row.map(|row| (row.get(0), row.get::<Option<String>, _>(1).unwrap_or_default())))
    }
}
