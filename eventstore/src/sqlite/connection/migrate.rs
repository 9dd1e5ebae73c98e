//! Migrations of a file, and whether it has the schema that they make.

use annals_migrations::{BUILD, MIN_BUILD, Migration, SQLITE_EVENTS, SQLITE_LEDGER, SQLITE_PROJECTIONS};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use tokio::sync::OnceCell;

use crate::error::OpenError;
use crate::sqlite::connection::database::SqliteDatabase;
use crate::sqlite::connection::open::{fault, shown};

const LEDGER_EXISTS: &str = "
    SELECT count(*)
    FROM sqlite_schema
    WHERE type = 'table' AND name = 'annals_migrations'
    ORDER BY 1
";

const APPLIED: &str = "
    SELECT component, number
    FROM annals_migrations
    ORDER BY component, number
";

const REMEMBER: &str = "
    INSERT INTO annals_migrations (component, number, name, build, applied_at)
    VALUES (?1, ?2, ?3, ?4, ?5)
";

const BEGIN_FIRST_INCARNATION: &str = "
    INSERT INTO annals_store (only_row, incarnation, min_build, created_at)
    VALUES (1, ?1, ?2, ?3)
";

/// What was made by migrations; SQLite's own tables and indexes follow from it.
const SCHEMA: &str = "
    SELECT type, name, sql
    FROM sqlite_schema
    WHERE name NOT LIKE 'sqlite_%'
    ORDER BY type, name
";

const LOWEST_POSITION: &str = "
    SELECT min(position)
    FROM events
    ORDER BY 1
";

impl SqliteDatabase {
    /// Runs those of `migrations` that this file has not seen, all of them in one transaction: the parts of annals
    /// create their tables so, and an app may create its own, under components of other names than `events` and `projections`.
    /// Safe when several processes start at once.
    ///
    /// ```
    /// use annals_eventstore::{Migration, SqliteDatabase};
    ///
    /// const LABELS: &[Migration] = &[Migration {
    ///     component: "labels",
    ///     number: 1,
    ///     name: "labels",
    ///     sql: "CREATE TABLE labels (order_id TEXT NOT NULL PRIMARY KEY) STRICT",
    /// }];
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("reports.db");
    /// let database = SqliteDatabase::open(&path).await?;
    /// database.migrate(LABELS).await?;
    /// database.migrate(LABELS).await?; // it has seen them
    /// database.close().await;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`OpenError::Refused`] if a migration's SQL fails; [`OpenError::Unsound`] if a table or guard of annals itself is gone; [`OpenError::ReadOnly`]; [`OpenError::StorageFull`];
    /// [`OpenError::Unavailable`], which is transient; [`OpenError::Closed`]. Nothing of a failed migration remains.
    ///
    /// # Cancel safety
    /// Dropping the future rolls back, or leaves all of them run.
    pub async fn migrate(&self, migrations: &[Migration]) -> Result<(), OpenError> {
        match [SQLITE_EVENTS, SQLITE_PROJECTIONS].into_iter().find(|ours| *ours == migrations) {
            Some(ours) => migrate_and_check(self, ours).await,
            None => migrate(self, migrations).await,
        }
    }
}

/// Runs pending migrations of annals, and refuses a file in which any of their objects is missing or altered: the guards of the
/// tables are what an append relies on.
async fn migrate_and_check(database: &SqliteDatabase, migrations: &'static [Migration]) -> Result<(), OpenError> {
    migrate(database, migrations).await?;
    let path = shown(database.path());
    let mut reader = database.held_reader(None).await.map_err(|e| e.into_open(&path))?;
    let found = schema(&mut reader).await.map_err(|e| fault(&path, e))?;
    let expected = expected(migrations).await.map_err(|e| fault(&path, e))?;
    let unsound = |what: String, fix: &str| Err(OpenError::Unsound { path: path.clone(), what, fix: fix.to_owned() });
    let newer = has_newer(&mut reader, migrations).await.map_err(|e| fault(&path, e))?;
    for Object { kind, name, sql } in expected {
        let fix = "compare its events with a backup, then create it as a new file has it";
        match found.iter().find(|object| object.kind == *kind && object.name == *name) {
            None => return unsound(format!("its {kind} `{name}` is gone"), fix),
            // A newer build may have altered what this one can still use, or it would have raised `min_build`.
            Some(object) if !newer && !object.sql.split_whitespace().eq(sql.split_whitespace()) => {
                return unsound(format!("its {kind} `{name}` is not the one that annals makes"), fix);
            }
            Some(_) => {}
        }
    }
    if found.iter().any(|object| object.name == "events") {
        let rows = sqlx::query(LOWEST_POSITION).fetch_all(&mut *reader).await.map_err(|e| fault(&path, e))?;
        if let Some(lowest) = rows.first().and_then(|row| row.get::<Option<i64>, _>(0)).filter(|lowest| *lowest < 1) {
            return unsound(
                format!("an event that annals did not write is at position {lowest}, where no reader sees it"),
                "compare the file with a backup",
            );
        }
    }
    reader.release();
    Ok(())
}

/// One table, index or trigger.
struct Object {
    kind: String,
    name: String,
    sql: String,
}

async fn schema(connection: &mut SqliteConnection) -> Result<Vec<Object>, sqlx::Error> {
    let text = |row: &sqlx::sqlite::SqliteRow, column| row.get::<Option<String>, _>(column).unwrap_or_default();
    let rows = sqlx::query(SCHEMA).fetch_all(connection).await?;
    Ok(rows.iter().map(|row| Object { kind: text(row, 0), name: text(row, 1), sql: text(row, 2) }).collect())
}

/// What a new file has; made once per process.
async fn expected(migrations: &'static [Migration]) -> Result<&'static [Object], sqlx::Error> {
    static EVENTS: OnceCell<Vec<Object>> = OnceCell::const_new();
    static PROJECTIONS: OnceCell<Vec<Object>> = OnceCell::const_new();
    let of = if migrations == SQLITE_EVENTS { &EVENTS } else { &PROJECTIONS };
    let made = of.get_or_try_init(async || {
        let options = SqliteConnectOptions::new().in_memory(true).disable_statement_logging();
        let mut connection = options.connect().await?;
        sqlx::raw_sql(SQLITE_LEDGER).execute(&mut connection).await?;
        for migration in migrations {
            sqlx::raw_sql(migration.sql).execute(&mut connection).await?;
        }
        let made = schema(&mut connection).await?;
        connection.close().await?;
        Ok(made)
    });
    made.await.map(Vec::as_slice)
}

/// Whether the file has seen migrations that this build does not know.
async fn has_newer(connection: &mut SqliteConnection, known: &[Migration]) -> Result<bool, sqlx::Error> {
    let component = known.first().map_or("", |migration| migration.component);
    let rows = sqlx::query(APPLIED).fetch_all(connection).await?;
    let newest = known.iter().map(|migration| migration.number).max().unwrap_or_default();
    Ok(rows.iter().any(|row| row.get::<&str, _>(0) == component && row.get::<i64, _>(1) > newest))
}

/// Runs pending migrations in one transaction. Of two callers the second finds them done.
async fn migrate(database: &SqliteDatabase, migrations: &[Migration]) -> Result<(), OpenError> {
    let path = shown(database.path());
    {
        let mut reader = database.read().await.map_err(|e| e.into_open(&path))?;
        if pending(&mut reader, migrations).await.map_err(|e| fault(&path, e))?.is_empty() {
            return Ok(());
        }
    }
    let mut transaction = database.begin().await.map_err(|e| e.into_open(&path))?;
    sqlx::raw_sql(SQLITE_LEDGER).execute(&mut *transaction).await.map_err(|e| fault(&path, e))?;
    let now = database.clock().now().as_microsecond();
    for migration in pending(&mut transaction, migrations).await.map_err(|e| fault(&path, e))? {
        sqlx::raw_sql(migration.sql).execute(&mut *transaction).await.map_err(|e| fault(&path, e))?;
        if migration.component == "events" && migration.name == "store" {
            sqlx::query(BEGIN_FIRST_INCARNATION)
                .bind(database.ids().next_id().as_bytes().to_vec())
                .bind(MIN_BUILD)
                .bind(now)
                .execute(&mut *transaction)
                .await
                .map_err(|e| fault(&path, e))?;
        }
        sqlx::query(REMEMBER)
            .bind(migration.component)
            .bind(migration.number)
            .bind(migration.name)
            .bind(BUILD)
            .bind(now)
            .execute(&mut *transaction)
            .await
            .map_err(|e| fault(&path, e))?;
    }
    transaction.commit().await.map_err(|e| e.into_open(&path))
}

async fn pending<'m>(
    connection: &mut SqliteConnection,
    all: &'m [Migration],
) -> Result<Vec<&'m Migration>, sqlx::Error> {
    let ledger = sqlx::query(LEDGER_EXISTS).fetch_all(&mut *connection).await?;
    if ledger.first().is_none_or(|row| row.get::<i64, _>(0) == 0) {
        return Ok(all.iter().collect());
    }
    let applied: Vec<(String, i64)> =
        sqlx::query(APPLIED).fetch_all(connection).await?.iter().map(|row| (row.get(0), row.get(1))).collect();
    Ok(all
        .iter()
        .filter(|m| !applied.iter().any(|(component, number)| component == m.component && *number == m.number))
        .collect())
}
