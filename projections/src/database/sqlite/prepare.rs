//! Table, indexes, view and checkpoint of a model: made when it is new, checked when it is not.

use annals_eventstore::{Checkpoint, Incarnation, SqliteDatabase};
use jiff::Timestamp;
use sqlx::{Row, SqliteConnection};

use super::statements::{Statements, index_prefix, sqlite_type};
use super::view::{self, run};
use super::{place_of, stored_checkpoint};
use crate::database::sql::{is_our_index, not_a_view, table_is_gone, undeclared};
use crate::database::{Model, Place, Prepared};
use crate::error::StartError;
use crate::shape::Shape;

const SHAPE: &str = "
    SELECT shape, events, tenant, slots
    FROM annals_checkpoints
    WHERE projection = ?1 AND version = ?2
    ORDER BY slot
    LIMIT 1
";

const OTHER_OWNER: &str = "
    SELECT projection
    FROM annals_checkpoints
    WHERE read_model = ?1 AND projection <> ?2
    ORDER BY projection
";

/// The table of the store, which may be in the same file.
const EVENTS: &str = "events";

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
    WITH RECURSIVE numbers (slot) AS (SELECT 0 UNION ALL SELECT slot + 1 FROM numbers WHERE slot + 1 < ?9)
    INSERT INTO annals_checkpoints AS c (projection, version, slot, slots, read_model, shape, events, tenant, incarnation,
                                         position, event_id, updated_at, paused_at, paused_by)
    SELECT ?1, ?2, n.slot, ?9, ?3, ?4, ?5, ?6, ?7, 0, NULL, ?8, other.paused_at, other.paused_by
    FROM numbers AS n
    LEFT JOIN (SELECT paused_at, paused_by
               FROM annals_checkpoints
               WHERE projection = ?1 AND paused_at IS NOT NULL
               ORDER BY version, slot
               LIMIT 1) AS other
    WHERE true
    ON CONFLICT (projection, version, slot) DO UPDATE
    SET incarnation = excluded.incarnation, position = 0, event_id = NULL, updated_at = excluded.updated_at,
        owner = NULL, leased_until = NULL, owner_epoch = c.owner_epoch + 1
";

/// What was parked of a table that is gone is parked again, if it still cannot be applied.
const FORGET_PARKED: &str = "
    DELETE FROM annals_parked_streams
    WHERE projection = ?1 AND version = ?2
";

const OWN_PLACES: &str = "
    SELECT slot, owner_epoch, incarnation, position, event_id
    FROM annals_checkpoints
    WHERE projection = ?1 AND version = ?2
    ORDER BY slot
";

/// Does all of it in one transaction, so that several processes may start at once.
pub(super) async fn prepare(
    database: &SqliteDatabase,
    model: &Model,
    shape: &Shape,
    statements: &Statements,
    incarnation: Incarnation,
    now: Timestamp,
) -> Result<Prepared, StartError> {
    let refused = |source| StartError::Database { projection: model.projection, source };
    let mut transaction = database.begin().await.map_err(refused)?;
    let prepared = Preparation { connection: &mut transaction, database, model, shape, statements };
    let prepared = prepared.run(incarnation, now).await?;
    transaction.commit().await.map_err(refused)?;
    Ok(prepared)
}

/// Stores that a version begins at the start of the log, and that nothing of it is parked.
pub(super) async fn begin_checkpoint(
    connection: &mut SqliteConnection,
    model: &Model,
    shape: &Shape,
    incarnation: Incarnation,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(BEGIN_CHECKPOINT)
        .bind(model.projection)
        .bind(model.version)
        .bind(model.table.name)
        .bind(shape.table.clone())
        .bind(shape.events.clone())
        .bind(shape.tenant.clone())
        .bind(incarnation.0.as_bytes().to_vec())
        .bind(now.as_microsecond())
        .bind(shape.slots);
    query.execute(&mut *connection).await?;
    let forget = sqlx::query(FORGET_PARKED).bind(model.projection).bind(model.version);
    forget.execute(connection).await.map(drop)
}

/// The shape that a version was begun with.
pub(super) async fn stored_shape(connection: &mut SqliteConnection, model: &Model) -> Result<Shape, sqlx::Error> {
    let query = sqlx::query(SHAPE).bind(model.projection).bind(model.version);
    let row = query.fetch_one(connection).await?;
    Ok(Shape { table: row.get(0), events: row.get(1), tenant: row.get(2), slots: row.get(3) })
}

/// The places of its slots.
pub(super) async fn places(connection: &mut SqliteConnection, model: &Model) -> Result<Vec<Place>, sqlx::Error> {
    let query = sqlx::query(OWN_PLACES).bind(model.projection).bind(model.version);
    query.fetch_all(connection).await?.iter().map(place_of).collect()
}

struct Preparation<'a> {
    connection: &'a mut SqliteConnection,
    database: &'a SqliteDatabase,
    model: &'a Model,
    shape: &'a Shape,
    statements: &'a Statements,
}

impl Preparation<'_> {
    async fn run(mut self, incarnation: Incarnation, now: Timestamp) -> Result<Prepared, StartError> {
        self.check_owner().await?;
        match self.stored().await? {
            Some(_) => {
                self.check_shape().await?;
                match self.object(&self.model.table_name()).await? {
                    Some(_) => self.check_table().await?,
                    None => {
                        table_is_gone(self.model);
                        self.begin(incarnation, now).await?;
                    }
                }
            }
            None => self.begin(incarnation, now).await?,
        }
        self.ensure_indexes().await?;
        let shown = self.see_to_view().await?;
        Ok(Prepared { places: self.places().await?, shown })
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

    async fn places(&mut self) -> Result<Vec<Place>, StartError> {
        places(self.connection, self.model).await.map_err(|e| self.refused(e))
    }

    async fn begin(&mut self, incarnation: Incarnation, now: Timestamp) -> Result<(), StartError> {
        let name = self.model.table_name();
        if let Some((kind, _)) = self.object(&name).await? {
            return Err(self.taken(
                &name,
                format!(
                    "is a {kind} without a checkpoint, so that nothing tells how far it is; drop it to build it anew"
                ),
            ));
        }
        run(self.connection, &self.statements.create_table).await.map_err(|e| self.refused(e))?;
        let begun = begin_checkpoint(self.connection, self.model, self.shape, incarnation, now).await;
        begun.map_err(|e| self.refused(e))
    }

    /// The declaration must be the one that the table was made from.
    async fn check_shape(&mut self) -> Result<(), StartError> {
        let stored = stored_shape(self.connection, self.model).await.map_err(|e| self.refused(e))?;
        self.shape.check(self.model, &stored)
    }

    /// The table must still be as it was made.
    async fn check_table(&mut self) -> Result<(), StartError> {
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
        Err(StartError::ShapeChanged {
            projection: self.model.projection,
            version: self.model.version,
            stored: found,
            declared: expected.join(", "),
        })
    }

    /// Makes indexes that are missing. One of ours that is declared no longer stays: a build that declares it may still run.
    async fn ensure_indexes(&mut self) -> Result<(), StartError> {
        let query = sqlx::query(INDEXES).bind(self.model.table_name());
        let rows = query.fetch_all(&mut *self.connection).await.map_err(|e| self.refused(e))?;
        let there: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let prefix = index_prefix(self.model);
        for index in there.iter().filter(|name| is_our_index(name, &prefix)) {
            if !self.statements.indexes.iter().any(|(declared, _)| declared == index) {
                undeclared(self.model, index);
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
    /// this one has caught up, and then it is only left to a higher one.
    async fn see_to_view(&mut self) -> Result<bool, StartError> {
        let name = self.model.table.name;
        let stored = view::stored_name(self.connection, self.model).await.map_err(|e| self.refused(e))?;
        let Some((kind, sql)) = self.object(name).await? else {
            if stored.is_some_and(|stored| !stored.may_be_made_by(self.model)) {
                return Ok(false);
            }
            view::show(self.connection, self.model, self.statements).await.map_err(|e| self.refused(e))?;
            return Ok(true);
        };
        if kind != "view" {
            return Err(self.taken(name, not_a_view(&kind, name == EVENTS)));
        }
        let shown = view::version_of(self.connection, self.model, &sql).await.map_err(|e| self.refused(e))?;
        let Some(shown) = shown.map(|version| Model { version, ..*self.model }) else {
            return Err(self.taken(name, "is a view that annals did not make".to_owned()));
        };
        if stored.is_none_or(|stored| stored.version != shown.version) {
            // Somebody has put the view over another table by hand.
            view::store(self.connection, &shown).await.map_err(|e| self.refused(e))?;
        }
        if shown.version == self.model.version {
            if sql != *self.statements.create_view {
                view::show(self.connection, self.model, self.statements).await.map_err(|e| self.refused(e))?;
            }
            return Ok(true);
        }
        if let Some(stored) = view::stored_name(self.connection, self.model).await.map_err(|e| self.refused(e))? {
            stored.check_columns(self.model)?;
        }
        Ok(false)
    }

    /// The kind and the text of the object called `name`.
    async fn object(&mut self, name: &str) -> Result<Option<(String, String)>, StartError> {
        let row = sqlx::query(OBJECT).bind(name.to_owned()).fetch_optional(&mut *self.connection).await;
        let row = row.map_err(|e| self.refused(e))?;
        Ok(row.map(|row| (row.get(0), row.get::<Option<String>, _>(1).unwrap_or_default())))
    }
}
