//! Table, indexes, view and checkpoint of a model: made when it is new, checked when it is not.

use std::sync::Arc;

use annals_eventstore::__private::Micros;
use annals_eventstore::{Backoff, Incarnation, PostgresDatabase, PostgresTransaction};
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use tokio::time::sleep;

use super::fault::was_lock_timeout_or_deadlock;
use super::schema::{ModelSchema, stored_slot};
use super::statements::{Statements, postgres_type};
use super::{indexes, view};
use super::{place_of, stored_checkpoint, wait_briefly};
use crate::database::sql::{not_a_view, table_is_gone};
use crate::database::{Model, Place, Prepared};
use crate::error::StartError;
use crate::shape::Shape;

/// The second caller waits, and then finds the work done. Commits of batches go on meanwhile, and an account that may only connect cannot
/// take this lock.
pub(super) const TAKE_TURN: &str = "LOCK TABLE annals.checkpoints IN SHARE UPDATE EXCLUSIVE MODE";

const SHAPE: &str = "
    SELECT shape, events, tenant, slots
    FROM annals.checkpoints
    WHERE read_schema = $1 AND projection = $2 AND version = $3
    ORDER BY slot
    LIMIT 1
";

const OTHER_OWNER: &str = "
    SELECT projection
    FROM annals.checkpoints
    WHERE read_schema = $1 AND read_model = $2 AND projection <> $3
    ORDER BY projection
";

/// The schema of the tables of annals itself.
const ANNALS: &str = "annals";

const KIND: &str = "
    SELECT CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view'
                          WHEN 'm' THEN 'materialized view' WHEN 'i' THEN 'index' WHEN 'S' THEN 'sequence'
                          ELSE 'relation' END
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2
    ORDER BY 1
";

const COLUMNS: &str = "
    SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           array_position(k.indkey::int2[], a.attnum) AS key_place
    FROM pg_attribute AS a
    JOIN pg_class AS c ON c.oid = a.attrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_index AS k ON k.indrelid = c.oid AND k.indisprimary
    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
";

const BEGIN_CHECKPOINT: &str = "
    INSERT INTO annals.checkpoints AS c (read_schema, projection, version, slot, slots, read_model, shape, events, tenant,
                                         incarnation, position, event_id, updated_at, paused_at, paused_by)
    SELECT $1, $2, $3, slot, $10, $4, $5, $6, $7, $8, 0, NULL, $9, other.paused_at, other.paused_by
    FROM generate_series(0, $10 - 1) AS slot
    LEFT JOIN LATERAL (SELECT p.paused_at, p.paused_by
                       FROM annals.checkpoints AS p
                       WHERE p.read_schema = $1 AND p.projection = $2 AND p.paused_at IS NOT NULL
                       ORDER BY p.version, p.slot
                       LIMIT 1) AS other ON true
    ON CONFLICT (read_schema, projection, version, slot) DO UPDATE
    SET incarnation = excluded.incarnation, position = 0, event_id = NULL, updated_at = excluded.updated_at,
        owner = NULL, leased_until = NULL, owner_epoch = c.owner_epoch + 1
";

/// What was parked of a table that is gone is parked again, if it still cannot be applied.
const FORGET_PARKED: &str = "
    DELETE FROM annals.parked_streams
    WHERE read_schema = $1 AND projection = $2 AND version = $3
";

const OWN_PLACES: &str = "
    SELECT slot, owner_epoch, incarnation, position, event_id
    FROM annals.checkpoints
    WHERE read_schema = $1 AND projection = $2 AND version = $3
    ORDER BY slot
";

/// How often it begins again because a lock on the table was not to be had in time.
const ATTEMPTS: usize = 10;

/// Does all of it in one transaction, so that several processes may start at once; but for the indexes of a table that others may
/// write to.
pub(super) async fn prepare(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    model: &Model,
    shape: &Shape,
    incarnation: Incarnation,
    now: Timestamp,
) -> Result<Prepared, StartError> {
    let refused = |source| StartError::Database { projection: model.projection, source };
    let mut backoff = Backoff::default();
    let mut attempt = 1;
    loop {
        let transaction = database.begin().await.map_err(refused)?;
        let statements = schema.statements(model);
        let by_pooler = database.is_pooled();
        let mut preparation = Preparation { transaction, schema, model, shape, statements, by_pooler };
        match preparation.run(incarnation, now).await {
            Ok((prepared, lacks_indexes)) => {
                preparation.transaction.commit().await.map_err(refused)?;
                if lacks_indexes {
                    indexes::make_beside(database, schema, model).await.map_err(refused)?;
                }
                return Ok(prepared);
            }
            Err(Refusal::Sql(error)) if was_lock_timeout_or_deadlock(&error) && attempt < ATTEMPTS => {
                drop(preparation);
                sleep(backoff.next_wait()).await;
                attempt += 1;
            }
            Err(Refusal::Sql(error)) => return Err(refused(database.fault(error))),
            Err(Refusal::Known(error)) => return Err(*error),
        }
    }
}

/// Stores that a version begins at the start of the log, and that nothing of it is parked.
pub(super) async fn begin_checkpoint(
    connection: &mut PgConnection,
    schema: &ModelSchema,
    model: &Model,
    shape: &Shape,
    incarnation: Incarnation,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let query = schema
        .once(BEGIN_CHECKPOINT)
        .bind(schema.schema())
        .bind(model.projection)
        .bind(i64::from(model.version))
        .bind(model.table.name)
        .bind(shape.table.clone())
        .bind(shape.events.clone())
        .bind(shape.tenant.clone())
        .bind(incarnation.0)
        .bind(Micros::of(now))
        .bind(stored_slot(shape.slots));
    query.execute(&mut *connection).await?;
    let forget = schema.once(FORGET_PARKED).bind(schema.schema()).bind(model.projection).bind(i64::from(model.version));
    forget.execute(connection).await.map(drop)
}

/// The shape that a version was begun with.
pub(super) async fn stored_shape(
    connection: &mut PgConnection,
    schema: &ModelSchema,
    model: &Model,
) -> Result<Shape, sqlx::Error> {
    let query = schema.once(SHAPE).bind(schema.schema()).bind(model.projection).bind(i64::from(model.version));
    let row = query.fetch_one(connection).await?;
    let slots = u32::try_from(row.get::<i32, _>(3)).unwrap_or_default();
    Ok(Shape { table: row.get(0), events: row.get(1), tenant: row.get(2), slots })
}

/// The places of its slots.
pub(super) async fn places(
    connection: &mut PgConnection,
    schema: &ModelSchema,
    model: &Model,
) -> Result<Vec<Place>, sqlx::Error> {
    let query = schema.once(OWN_PLACES).bind(schema.schema()).bind(model.projection).bind(i64::from(model.version));
    query.fetch_all(connection).await?.iter().map(place_of).collect()
}

/// Why it could not be prepared.
enum Refusal {
    Known(Box<StartError>),
    Sql(sqlx::Error),
}

impl From<StartError> for Refusal {
    fn from(error: StartError) -> Self {
        Self::Known(Box::new(error))
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

struct Preparation<'a> {
    transaction: PostgresTransaction,
    schema: &'a ModelSchema,
    model: &'a Model,
    shape: &'a Shape,
    statements: Arc<Statements>,
    by_pooler: bool,
}

impl Preparation<'_> {
    /// Says also whether the table lacks indexes.
    async fn run(&mut self, incarnation: Incarnation, now: Timestamp) -> Result<(Prepared, bool), Refusal> {
        self.schema.once(TAKE_TURN).without_limit().execute(&mut self.transaction).await?;
        wait_briefly(self.schema, &mut self.transaction).await?;
        self.check_owner().await?;
        let mut is_new = true;
        match stored_checkpoint(&mut self.transaction, self.schema, self.model).await? {
            Some(_) => {
                self.check_shape().await?;
                match self.kind(&self.model.table_name()).await? {
                    Some(_) => {
                        self.check_table().await?;
                        is_new = false;
                    }
                    None => {
                        table_is_gone(self.model);
                        self.begin(incarnation, now).await?;
                    }
                }
            }
            None => self.begin(incarnation, now).await?,
        }
        let mut lacks_indexes = indexes::are_missing(&mut self.transaction, self.schema, self.model).await?;
        // Through a pooler there are only transactions.
        if lacks_indexes && (is_new || self.by_pooler) {
            indexes::make(&mut self.transaction, self.schema, self.model).await?;
            lacks_indexes = false;
        }
        let shown = self.see_to_view().await?;
        Ok((Prepared { places: self.places().await?, shown }, lacks_indexes))
    }

    async fn execute(&mut self, sql: Arc<str>) -> Result<(), sqlx::Error> {
        self.schema.run(&mut self.transaction, AssertSqlSafe(sql)).await
    }

    fn taken(&self, name: &str, taken_by: String) -> StartError {
        StartError::NameTaken { projection: self.model.projection, name: name.to_owned(), taken_by }
    }

    async fn check_owner(&mut self) -> Result<(), Refusal> {
        let name = self.model.table.name;
        let query = self.schema.once(OTHER_OWNER).bind(self.schema.schema()).bind(name).bind(self.model.projection);
        match query.fetch_optional(&mut self.transaction).await? {
            Some(row) => {
                Err(self.taken(name, format!("is the read model of projection `{}`", row.get::<&str, _>(0))).into())
            }
            None => Ok(()),
        }
    }

    async fn places(&mut self) -> Result<Vec<Place>, Refusal> {
        Ok(places(&mut self.transaction, self.schema, self.model).await?)
    }

    async fn begin(&mut self, incarnation: Incarnation, now: Timestamp) -> Result<(), Refusal> {
        let name = self.model.table_name();
        if let Some(kind) = self.kind(&name).await? {
            return Err(self.taken(&name, format!("is a {kind} without a checkpoint, so that nothing tells how far it is; drop it to build it anew")).into());
        }
        self.execute(Arc::clone(&self.statements.create_table)).await?;
        Ok(begin_checkpoint(&mut self.transaction, self.schema, self.model, self.shape, incarnation, now).await?)
    }

    /// The declaration must be the one that the table was made from.
    async fn check_shape(&mut self) -> Result<(), Refusal> {
        let stored = stored_shape(&mut self.transaction, self.schema, self.model).await?;
        Ok(self.shape.check(self.model, &stored)?)
    }

    /// The table must still be as it was made.
    async fn check_table(&mut self) -> Result<(), Refusal> {
        let query = self.schema.once(COLUMNS).bind(self.schema.schema()).bind(self.model.table_name());
        let rows = query.fetch_all(&mut self.transaction).await?;
        let found = rows.iter().map(|row| {
            let null = if row.get(2) { "" } else { " null" };
            let key = row.get::<Option<i32>, _>(3).map_or(String::new(), |place| format!(" key {}", place + 1));
            format!("{} {}{null}{key}", row.get::<&str, _>(0), row.get::<&str, _>(1))
        });
        let found: Vec<String> = found.collect();
        let expected = self.model.table.columns.iter().map(|column| {
            let null = if column.nullable { " null" } else { "" };
            let place = self.model.table.key.iter().position(|key| *key == column.name);
            let key = place.map_or(String::new(), |place| format!(" key {}", place + 1));
            format!("{} {}{null}{key}", column.name, postgres_type(column))
        });
        let expected: Vec<String> = expected.collect();
        if found == expected {
            return Ok(());
        }
        let found = if found.is_empty() { "no table".to_owned() } else { found.join(", ") };
        let (projection, version, declared) = (self.model.projection, self.model.version, expected.join(", "));
        Err(StartError::ShapeChanged { projection, version, stored: found, declared }.into())
    }

    /// Makes the view if there is none; tells whether it shows this version. One that shows another version stays until
    /// this one has caught up, and then it is only left to a higher one.
    async fn see_to_view(&mut self) -> Result<bool, Refusal> {
        let name = self.model.table.name;
        let stored = view::stored_name(&mut self.transaction, self.schema, self.model).await?;
        let Some(kind) = self.kind(name).await? else {
            if stored.is_some_and(|stored| !stored.may_be_made_by(self.model)) {
                return Ok(false);
            }
            self.execute(Arc::clone(&self.statements.view.create)).await?;
            view::store(&mut self.transaction, self.schema, self.model).await?;
            return Ok(true);
        };
        if kind != "view" {
            return Err(self.taken(name, not_a_view(&kind, self.schema.schema() == ANNALS)).into());
        }
        let shown = view::version_of(&mut self.transaction, self.schema, self.model).await?;
        let Some(shown) = shown.map(|version| Model { version, ..*self.model }) else {
            return Err(self.taken(name, "is a view that annals did not make".to_owned()).into());
        };
        if stored.is_none_or(|stored| stored.version != shown.version) {
            // Somebody has put the view over another table by hand.
            view::store(&mut self.transaction, self.schema, &shown).await?;
        }
        if shown.version == self.model.version {
            return Ok(true);
        }
        if let Some(stored) = view::stored_name(&mut self.transaction, self.schema, self.model).await? {
            stored.check_columns(self.model)?;
        }
        Ok(false)
    }

    /// What the object called `name` is.
    async fn kind(&mut self, name: &str) -> Result<Option<String>, sqlx::Error> {
        let query = self.schema.once(KIND).bind(self.schema.schema()).bind(name);
        Ok(query.fetch_optional(&mut self.transaction).await?.map(|row| row.get(0)))
    }
}
