//! The view of a read model's stable name, and what is stored about it.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::checkpoint_of;
use super::statements::Statements;
use crate::database::sql::quoted;
use crate::database::{Model, StoredName};

const STORED: &str = "
    SELECT n.version AS shown, n.highest, c.shape, c.incarnation, c.position, c.event_id
    FROM annals_read_models AS n
    LEFT JOIN annals_checkpoints AS c ON c.projection = n.projection AND c.version = n.version
    WHERE n.read_model = ?1
    ORDER BY c.position, c.slot
    LIMIT 1
";

const STORE: &str = "
    INSERT INTO annals_read_models (read_model, projection, version, highest)
    VALUES (?1, ?2, ?3, ?3)
    ON CONFLICT (read_model) DO UPDATE
    SET projection = excluded.projection, version = excluded.version, highest = max(highest, excluded.version)
";

const VERSIONS: &str = "
    SELECT DISTINCT version
    FROM annals_checkpoints
    WHERE projection = ?1 AND read_model = ?2
    ORDER BY version
";

/// What is stored about the name of the model's read model.
pub(super) async fn stored_name(
    connection: &mut SqliteConnection,
    model: &Model,
) -> Result<Option<StoredName>, sqlx::Error> {
    let row = sqlx::query(STORED).bind(model.table.name).fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(None) };
    let shown = match row.try_get::<Option<String>, _>("shape")? {
        Some(shape) => Some((shape, checkpoint_of(&row)?)),
        None => None,
    };
    Ok(Some(StoredName { version: row.try_get("shown")?, highest: row.try_get("highest")?, shown }))
}

/// Stores that the name shows this version. The caller holds the write lock since it has looked.
pub(super) async fn store(connection: &mut SqliteConnection, model: &Model) -> Result<(), sqlx::Error> {
    let query = sqlx::query(STORE).bind(model.table.name).bind(model.projection).bind(model.version);
    query.execute(connection).await.map(drop)
}

/// Puts the view of the stable name over this version's table.
pub(super) async fn show(
    connection: &mut SqliteConnection,
    model: &Model,
    statements: &Statements,
) -> Result<(), sqlx::Error> {
    run(connection, &statements.drop_view).await?;
    run(connection, &statements.create_view).await?;
    store(connection, model).await
}

/// The version over whose table a view selects, from its text; `None` if it is none of ours.
pub(super) async fn version_of(
    connection: &mut SqliteConnection,
    model: &Model,
    sql: &str,
) -> Result<Option<u32>, sqlx::Error> {
    let query = sqlx::query(VERSIONS).bind(model.projection).bind(model.table.name);
    let rows = query.fetch_all(connection).await?;
    let versions = rows.iter().map(|row| row.get(0));
    let reads = |version: &u32| {
        sql.ends_with(&format!(" FROM {}", quoted(&Model { version: *version, ..*model }.table_name())))
    };
    Ok(versions.into_iter().find(reads))
}

pub(super) async fn run(connection: &mut SqliteConnection, sql: &Arc<str>) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(Arc::clone(sql))).execute(connection).await.map(drop)
}
