//! Opening a database: is the store there, is it ours to read, and is everything in place that the order relies on?

use annals_migrations::{BUILD, POSTGRES_EVENTS};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, Row};
use uuid::Uuid;

use super::fault::sequence_behind;
use super::migrate::{migrate, pending};
use super::options::PostgresOptions;
use super::pool::Pool;
use super::url;
use crate::error::{BackendError, OpenError};
use crate::position::Incarnation;

const STORE_EXISTS: &str = "
    SELECT to_regclass('annals.store') IS NOT NULL
    ORDER BY 1
";

const STORE: &str = "
    SELECT incarnation, min_build
    FROM annals.store
    ORDER BY only_row
";

/// What the proof of the order, and durability, rely on. A switched-off trigger counts as missing.
const GROUNDS: &str = "
    SELECT current_setting('server_encoding') AS encoding,
           current_setting('fsync') AS fsync,
           (SELECT format('CACHE %s, INCREMENT %s, %s', s.seqcache, s.seqincrement,
                          CASE WHEN s.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END)
            FROM pg_sequence AS s
            WHERE s.seqrelid = to_regclass('annals.events_position')) AS sequence,
           (SELECT count(*)
            FROM pg_trigger AS t
            WHERE t.tgrelid = to_regclass('annals.events') AND NOT t.tgisinternal AND t.tgenabled IN ('A', 'O')
              AND t.tgname IN ('events_writers_are_announced', 'events_are_never_updated', 'events_are_never_deleted',
                               'events_are_never_truncated', 'events_continue_their_stream')) AS triggers,
           (SELECT coalesce(max(position), 0) FROM annals.events) AS head,
           (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM annals.events_position) AS last
    ORDER BY 1
";

const TRIGGERS: i64 = 5;

/// Connects and looks at everything. Gives the connections and the store's present life.
pub(super) async fn open(options: &PostgresOptions) -> Result<(Pool, Incarnation), OpenError> {
    let connect = url::parse(&options.url)?;
    let connect = connect.disable_statement_logging().application_name("annals");
    let shown = Shown::of(&connect);
    let mut connection = match tokio::time::timeout(options.connection_timeout, connect.connect()).await {
        Ok(connected) => connected.map_err(|e| shown.unavailable(e))?,
        Err(_) => return Err(shown.unavailable(format!("no answer within {:?}", options.connection_timeout))),
    };
    let store = look(&mut connection, options, &shown).await?;
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "the first connection was gone before it was closed");
    }
    let pool = Pool::new(connect, options.connections, options.connection_timeout);
    pool.expect(store);
    Ok((pool, store))
}

async fn look(
    connection: &mut PgConnection,
    options: &PostgresOptions,
    shown: &Shown,
) -> Result<Incarnation, OpenError> {
    // Not even the migrations of a newer build's store are touched.
    let rows = sqlx::query(STORE_EXISTS).fetch_all(&mut *connection).await.map_err(|e| shown.unavailable(e))?;
    if rows.first().is_some_and(|row| row.get(0)) {
        find_store(connection, shown).await?;
    }
    let missing = pending(connection, POSTGRES_EVENTS).await.map_err(|e| shown.unavailable(e))?;
    if !missing.is_empty() && options.migrate {
        migrate(connection, POSTGRES_EVENTS).await.map_err(|e| shown.unavailable(e))?;
    } else if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|m| format!("`{} {}: {}`", m.component, m.number, m.name)).collect();
        return Err(OpenError::PendingMigrations { path: shown.0.clone(), missing: names.join(", ") });
    }
    let store = find_store(connection, shown).await?;
    check_grounds(connection, shown).await?;
    store.ok_or_else(|| shown.unsound("the table `annals.store` has no row", "restore it from a backup"))
}

async fn find_store(connection: &mut PgConnection, shown: &Shown) -> Result<Option<Incarnation>, OpenError> {
    let rows = sqlx::query(STORE).fetch_all(connection).await.map_err(|e| shown.unavailable(e))?;
    let Some(row) = rows.first() else { return Ok(None) };
    let needed: i64 = row.get(1);
    if needed > BUILD {
        return Err(OpenError::NewerStore { path: shown.0.clone(), needed, ours: BUILD });
    }
    Ok(Some(Incarnation(row.get::<Uuid, _>(0))))
}

async fn check_grounds(connection: &mut PgConnection, shown: &Shown) -> Result<(), OpenError> {
    let rows = sqlx::query(GROUNDS).fetch_all(connection).await.map_err(|e| shown.unavailable(e))?;
    let row = rows.first().ok_or_else(|| shown.unavailable(sqlx::Error::RowNotFound))?;
    let encoding: String = row.get("encoding");
    if encoding != "UTF8" {
        let what = format!("the database has the encoding {encoding}");
        return Err(shown.unsound(what, "create it with `ENCODING 'UTF8'`"));
    }
    let sequence: Option<String> = row.get("sequence");
    let needed = "CACHE 1, INCREMENT 1, NO CYCLE";
    if sequence.as_deref() != Some(needed) {
        return Err(shown.unsound(
            format!("the sequence `annals.events_position` has {}", sequence.as_deref().unwrap_or("been removed")),
            format!("run `ALTER SEQUENCE annals.events_position {needed}`"),
        ));
    }
    let triggers: i64 = row.get("triggers");
    if triggers != TRIGGERS {
        return Err(shown.unsound(
            format!(
                "{} of the {TRIGGERS} triggers on `annals.events` are missing or switched off",
                TRIGGERS - triggers
            ),
            "run `ALTER TABLE annals.events ENABLE ALWAYS TRIGGER USER`, or restore the schema",
        ));
    }
    let (last, head) = (row.get("last"), row.get("head"));
    if last < head {
        let fix = format!("run `SELECT setval('annals.events_position', {head})`");
        return Err(shown.unsound(sequence_behind(last, head), fix));
    }
    if row.get::<String, _>("fsync") != "on" {
        tracing::error!(database = %shown.0, "the server runs with fsync = off: a crash may lose acknowledged appends, or everything");
    }
    Ok(())
}

/// What errors call the database: never its user, never its password.
struct Shown(String);

impl Shown {
    fn of(connect: &PgConnectOptions) -> Self {
        let database = connect.get_database().unwrap_or_default();
        Self(match connect.get_socket() {
            Some(socket) => format!("postgres://{}/{database}", socket.display()),
            None => format!("postgres://{}:{}/{database}", connect.get_host(), connect.get_port()),
        })
    }

    fn unavailable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> OpenError {
        OpenError::Unavailable { path: self.0.clone(), source: BackendError::new(source) }
    }

    fn unsound(&self, what: impl Into<String>, fix: impl Into<String>) -> OpenError {
        OpenError::Unsound { path: self.0.clone(), what: what.into(), fix: fix.into() }
    }
}
