//! The view of a read model's stable name: which version it shows, and how it is made to show another.

use annals_eventstore::{BackendError, DatabaseError, PostgresDatabase, PostgresTransaction};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::fault::is_depended_upon;
use super::home::{Home, once};
use super::prepare::TAKE_TURN;
use super::wait_briefly;
use crate::database::Model;

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
    SELECT version
    FROM annals.checkpoints
    WHERE read_schema = $1 AND projection = $2
    ORDER BY version
";

/// What others than the owner may do with a view, as statements that allow it again. PostgreSQL quotes what it names.
const GRANTS: &str = "
    SELECT format('GRANT %s ON %s TO %s%s', g.privilege_type, $3,
                  CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END,
                  CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL aclexplode(c.relacl) AS g
    LEFT JOIN pg_roles AS r ON r.oid = g.grantee
    WHERE n.nspname = $1 AND c.relname = $2 AND g.grantee <> c.relowner
    ORDER BY 1
";

/// What the view of a stable name shows.
pub(super) enum Shows {
    ThisVersion,
    AnotherVersion,
    SomethingElse,
}

/// What the view of the model's stable name shows. It is ours if it reads one table of ours alone and has its columns.
pub(super) async fn shows(connection: &mut PgConnection, home: &Home, model: &Model) -> Result<Shows, sqlx::Error> {
    let query = once(READS).bind(home.schema()).bind(model.table.name);
    let rows = query.fetch_all(&mut *connection).await?;
    let [read] = rows.as_slice() else { return Ok(Shows::SomethingElse) };
    let Some(table) = read.get::<Option<String>, _>(0) else { return Ok(Shows::SomethingElse) };
    let query = once(VERSIONS).bind(home.schema()).bind(model.projection);
    let versions = query.fetch_all(&mut *connection).await?;
    let is_ours = versions.iter().filter_map(|row| u32::try_from(row.get::<i64, _>(0)).ok());
    let is_ours = is_ours.map(|version| Model { version, ..*model }.table_name()).any(|name| name == table);
    let whole = columns(connection, home, model.table.name).await? == columns(connection, home, &table).await?;
    Ok(match is_ours && whole {
        false => Shows::SomethingElse,
        true if table == model.table_name() => Shows::ThisVersion,
        true => Shows::AnotherVersion,
    })
}

/// Puts the view of the stable name over this version's table.
pub(super) async fn switch(
    transaction: &mut PostgresTransaction,
    database: &PostgresDatabase,
    home: &Home,
    model: &Model,
) -> Result<(), DatabaseError> {
    try_to_switch(transaction, home, model).await.map_err(|error| match is_depended_upon(&error) {
        true => DatabaseError::Refused {
            source: BackendError::new(format!(
                "the view `{}` needs other columns now, but others depend on it; drop those and start again: {error}",
                model.table.name
            )),
        },
        false => database.fault(error),
    })
}

async fn try_to_switch(transaction: &mut PostgresTransaction, home: &Home, model: &Model) -> Result<(), sqlx::Error> {
    wait_briefly(transaction).await?;
    once(TAKE_TURN).execute(&mut **transaction).await?;
    let statements = home.statements(model);
    let before = columns(transaction, home, model.table.name).await?;
    let after = columns(transaction, home, &model.table_name()).await?;
    let run = async |transaction: &mut PostgresTransaction, sql: &str| {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **transaction).await.map(drop)
    };
    // A view can be replaced if it only gains columns; then it stays what others depend on, and may read.
    if after.starts_with(&before) {
        return run(transaction, &statements.view.replace).await;
    }
    let query = once(GRANTS).bind(home.schema()).bind(model.table.name).bind(statements.view.name.clone());
    let grants = query.fetch_all(&mut **transaction).await?;
    run(transaction, &statements.view.drop).await?;
    run(transaction, &statements.view.create).await?;
    for grant in grants {
        run(transaction, grant.get(0)).await?;
    }
    Ok(())
}

/// Names and types of the columns of a table or view; none if it is not there.
async fn columns(connection: &mut PgConnection, home: &Home, name: &str) -> Result<Vec<(String, String)>, sqlx::Error> {
    let rows = once(COLUMNS).bind(home.schema()).bind(name).fetch_all(connection).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
