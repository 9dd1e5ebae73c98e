//! The view of a read model's stable name: which version it shows, and how it is made to show another.

use annals_eventstore::{BackendError, Checkpoint, DatabaseError, PostgresDatabase, PostgresTransaction};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::fault::{fault, is_depended_upon};
use super::prepare::TAKE_TURN;
use super::schema::ModelSchema;
use super::{checkpoint_of, stored_checkpoint, version_of as version_in, wait_briefly};
use crate::database::sql::list;
use crate::database::{Fault, Model, Shows, StoredName, Switch};

const STORED: &str = "
    SELECT n.version AS shown, n.highest, c.shape, c.incarnation, c.position, c.event_id
    FROM annals.read_models AS n
    LEFT JOIN annals.checkpoints AS c USING (read_schema, projection, version)
    WHERE n.read_schema = $1 AND n.read_model = $2
    ORDER BY c.position, c.slot
    LIMIT 1
";

const STORE: &str = "
    INSERT INTO annals.read_models AS n (read_schema, read_model, projection, version, highest)
    VALUES ($1, $2, $3, $4, $4)
    ON CONFLICT (read_schema, read_model) DO UPDATE
    SET projection = excluded.projection, version = excluded.version,
        highest = greatest(n.highest, excluded.version)
";

/// Until the transaction ends, nobody moves the checkpoint of the version that the name shows.
const HOLD_SHOWN: &str = "
    SELECT 1
    FROM annals.checkpoints AS c
    JOIN annals.read_models AS n USING (read_schema, projection, version)
    WHERE n.read_schema = $1 AND n.read_model = $2
    ORDER BY c.slot
    FOR UPDATE OF c
";

/// The tables and views in the same schema that a view reads, or null for one elsewhere.
const READS: &str = "
    SELECT DISTINCT CASE WHEN t.relnamespace = v.relnamespace THEN t.relname::text END
    FROM pg_class AS v
    JOIN pg_namespace AS n ON n.oid = v.relnamespace
    JOIN pg_rewrite AS r ON r.ev_class = v.oid
    JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                       AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid
    JOIN pg_class AS t ON t.oid = d.refobjid
    WHERE n.nspname = $1 AND v.relname = $2
    ORDER BY 1
";

const COLUMNS: &str = "
    SELECT a.attname::text, format_type(a.atttypid, a.atttypmod)
    FROM pg_attribute AS a
    JOIN pg_class AS c ON c.oid = a.attrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
";

const VERSIONS: &str = "
    SELECT DISTINCT version
    FROM annals.checkpoints
    WHERE read_schema = $1 AND projection = $2 AND read_model = $3
    ORDER BY version
";

/// What others than the owner may do with a view and with those of its columns that stay, and the comments on them, as statements that
/// make it so again. PostgreSQL quotes what it names.
const KEPT: &str = "
    WITH view AS (
        SELECT c.oid, c.relacl, c.relowner
        FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relname = $2
    ), columns AS (
        SELECT a.attrelid, a.attnum, a.attname, a.attacl
        FROM pg_attribute AS a
        JOIN view ON a.attrelid = view.oid
        WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY ($4)
    ), grants AS (
        SELECT g.privilege_type AS what, g.grantee, g.is_grantable
        FROM view
        CROSS JOIN LATERAL aclexplode(view.relacl) AS g
        UNION ALL
        SELECT format('%s (%I)', g.privilege_type, columns.attname), g.grantee, g.is_grantable
        FROM columns
        CROSS JOIN LATERAL aclexplode(columns.attacl) AS g
    )
    SELECT format('GRANT %s ON %s TO %s%s', g.what, $3,
                  CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END,
                  CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM grants AS g
    JOIN view ON g.grantee <> view.relowner
    LEFT JOIN pg_roles AS r ON r.oid = g.grantee
    UNION ALL
    SELECT format('COMMENT ON VIEW %s IS %L', $3, obj_description(view.oid, 'pg_class'))
    FROM view
    WHERE obj_description(view.oid, 'pg_class') IS NOT NULL
    UNION ALL
    SELECT format('COMMENT ON COLUMN %s.%I IS %L', $3, columns.attname, col_description(attrelid, attnum))
    FROM columns
    WHERE col_description(attrelid, attnum) IS NOT NULL
    ORDER BY 1
";

/// What is stored about the name of the model's read model.
pub(super) async fn stored_name(
    connection: &mut PgConnection,
    schema: &ModelSchema,
    model: &Model,
) -> Result<Option<StoredName>, sqlx::Error> {
    let query = schema.once(STORED).bind(schema.schema()).bind(model.table.name);
    let Some(row) = query.fetch_optional(connection).await? else { return Ok(None) };
    let shown = match row.try_get::<Option<String>, _>("shape")? {
        Some(shape) => Some((shape, checkpoint_of(&row)?)),
        None => None,
    };
    Ok(Some(StoredName { version: version_in(&row, "shown")?, highest: version_in(&row, "highest")?, shown }))
}

/// Stores that the name shows this version. The caller has had its turn since it has looked.
pub(super) async fn store(
    connection: &mut PgConnection,
    schema: &ModelSchema,
    model: &Model,
) -> Result<(), sqlx::Error> {
    let query = schema.once(STORE).bind(schema.schema()).bind(model.table.name).bind(model.projection);
    query.bind(i64::from(model.version)).execute(connection).await.map(drop)
}

/// The version that the view of the model's stable name shows; `None` if it is not ours. It is ours if it reads one table of
/// ours alone and has its columns.
pub(super) async fn version_of(
    connection: &mut PgConnection,
    schema: &ModelSchema,
    model: &Model,
) -> Result<Option<u32>, sqlx::Error> {
    let query = schema.once(READS).bind(schema.schema()).bind(model.table.name);
    let rows = query.fetch_all(&mut *connection).await?;
    let [read] = rows.as_slice() else { return Ok(None) };
    let Some(table) = read.get::<Option<String>, _>(0) else { return Ok(None) };
    let query = schema.once(VERSIONS).bind(schema.schema()).bind(model.projection).bind(model.table.name);
    let versions = query.fetch_all(&mut *connection).await?;
    let versions = versions.iter().map(|row| version_in(row, "version")).collect::<Result<Vec<_>, _>>()?;
    let shown = versions.into_iter().find(|version| Model { version: *version, ..*model }.table_name() == table);
    let mut has = columns(connection, schema, model.table.name).await?;
    let mut whole = columns(connection, schema, &table).await?;
    has.sort_unstable();
    whole.sort_unstable();
    Ok(shown.filter(|_| has == whole))
}

/// Puts the view of the stable name over this version's table, if it may.
pub(super) async fn switch(
    database: &PostgresDatabase,
    schema: &ModelSchema,
    model: &Model,
    switch: Switch,
) -> Result<Shows, Fault> {
    let mut transaction = database.begin().await.map_err(fault)?;
    let sql_fault = |error: sqlx::Error| match is_depended_upon(&error) {
        true => fault(DatabaseError::Refused {
            source: BackendError::new(format!(
                "the view `{}` needs other columns now, but others depend on it; drop those and start again: {error}",
                model.table.name
            )),
        }),
        false => fault(database.fault(error)),
    };
    wait_briefly(schema, &mut transaction).await.map_err(sql_fault)?;
    schema.once(TAKE_TURN).execute(&mut transaction).await.map_err(sql_fault)?;
    let (name, own) = name_and_own(&mut transaction, schema, model).await.map_err(sql_fault)?;
    if let Some(shows) = name.map_or(Ok(None), |name| name.decide(model, switch, own))? {
        return Ok(shows);
    }
    replace(&mut transaction, schema, model).await.map_err(sql_fault)?;
    // Only now, as the lock on the view may take a while to get, and meanwhile commits go on.
    let hold = schema.once(HOLD_SHOWN).bind(schema.schema()).bind(model.table.name);
    hold.execute(&mut transaction).await.map_err(sql_fault)?;
    let (name, own) = name_and_own(&mut transaction, schema, model).await.map_err(sql_fault)?;
    if let Some(shows) = name.map_or(Ok(None), |name| name.decide(model, switch, own))? {
        return Ok(shows);
    }
    store(&mut transaction, schema, model).await.map_err(sql_fault)?;
    transaction.commit().await.map_err(fault)?;
    Ok(Shows::This)
}

/// What is stored about the name, and where the model is itself.
async fn name_and_own(
    connection: &mut PgConnection,
    schema: &ModelSchema,
    model: &Model,
) -> Result<(Option<StoredName>, Option<Checkpoint>), sqlx::Error> {
    Ok((stored_name(connection, schema, model).await?, stored_checkpoint(connection, schema, model).await?))
}

/// Makes the view of the stable name anew.
async fn replace(
    transaction: &mut PostgresTransaction,
    schema: &ModelSchema,
    model: &Model,
) -> Result<(), sqlx::Error> {
    let statements = schema.statements(model);
    let before = columns(transaction, schema, model.table.name).await?;
    let after = columns(transaction, schema, &model.table_name()).await?;
    let run =
        async |transaction: &mut PostgresTransaction, sql: &str| schema.run(transaction, AssertSqlSafe(sql)).await;
    // A view that only gains columns is replaced, and stays what others depend on, and may read. New ones come last there.
    if before.iter().all(|column| after.contains(column)) {
        let new = after.iter().filter(|column| !before.contains(column));
        let ordered = list(before.iter().chain(new).map(|(name, _)| name.as_str()));
        return run(transaction, &statements.view.replace(&ordered)).await;
    }
    let stay: Vec<&str> = after.iter().map(|(name, _)| name.as_str()).collect();
    let query =
        schema.once(KEPT).bind(schema.schema()).bind(model.table.name).bind(statements.view.name.clone()).bind(stay);
    let kept = query.fetch_all(transaction).await?;
    run(transaction, &statements.view.drop).await?;
    run(transaction, &statements.view.create).await?;
    for statement in kept {
        run(transaction, statement.get(0)).await?;
    }
    Ok(())
}

/// Names and types of the columns of a table or view; none if it is not there.
async fn columns(
    connection: &mut PgConnection,
    schema: &ModelSchema,
    name: &str,
) -> Result<Vec<(String, String)>, sqlx::Error> {
    let rows = schema.once(COLUMNS).bind(schema.schema()).bind(name).fetch_all(connection).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
