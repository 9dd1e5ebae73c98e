//! Opens a database and checks it: is there a store, can this build read it, and does everything exist that the order relies on?
//!
//! Its statements have no values and are sent as text, which every pooler supports.

use annals_migrations::{BUILD, POSTGRES_EVENTS, POSTGRES_PROJECTIONS};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, Row};
use uuid::Uuid;

use crate::error::{BackendError, OpenError};
use crate::position::Incarnation;
use crate::postgres::connection::planner::{BY_INDEX, READ_COMMITTED};
use crate::postgres::connection::pool::Pool;
use crate::postgres::connection::session::CHECK_CLIENT;
use crate::postgres::connection::url;
use crate::postgres::fault::{GRANT, PRIVILEGE, code, database_error, is_answer, sequence_behind};
use crate::postgres::migrate::{migrate, pending};
use crate::postgres::options::{Listen, PostgresOptions};

const STORE_EXISTS: &str = "
    SELECT to_regclass('annals.store') IS NOT NULL
    ORDER BY 1
";

const STORE: &str = "
    SELECT incarnation, min_build
    FROM annals.store
    ORDER BY only_row
";

/// What the order of the log and durability rely on. A disabled trigger counts as missing.
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
              AND t.tgname IN ('events_are_never_updated', 'events_are_never_deleted', 'events_are_never_truncated',
                               'events_continue_their_stream')) AS triggers,
           (SELECT coalesce(max(position), 0) FROM annals.events) AS head,
           (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM annals.events_position) AS last
    ORDER BY 1
";

const TRIGGERS: i64 = 4;

/// A setting that is sent when a connection begins, only to check whether the server received it: a pooler refuses or
/// drops it. The server's default is 1.
const FLOAT_DIGITS: i8 = 2;

/// Sets it for this statement alone.
const TRY_TO_CHECK_CLIENT: &str = "
    SELECT set_config('client_connection_check_interval', '100ms', true)
    ORDER BY 1
";

const RECEIVED_PARAMETERS: &str = "
    SELECT current_setting('extra_float_digits')
    ORDER BY 1
";

/// Connects and runs all checks. Returns the connections, the name of the database and the store's incarnation.
pub(crate) async fn open(options: &PostgresOptions) -> Result<(Pool, String, Incarnation), OpenError> {
    let First { connect, shown, mut connection, checks_client } = first_connection(options).await?;
    let store = look(&mut connection, options, &shown).await?;
    close(connection).await;
    // Poolers refuse such options; there, each transaction sets them.
    let connect = if options.pooled { connect } else { connect.options(BY_INDEX).options([READ_COMMITTED]) };
    let pool = Pool::new(connect, options, checks_client);
    pool.expect(store);
    Ok((pool, shown.0, store))
}

/// Connects to a database that need not hold a store. Returns the connections and the name of the database.
pub(crate) async fn connect(options: &PostgresOptions) -> Result<(Pool, String), OpenError> {
    let First { connect, shown, connection, checks_client } = first_connection(options).await?;
    close(connection).await;
    Ok((Pool::new(connect, options, checks_client), shown.0))
}

/// A first connection, and the options of those that follow.
struct First {
    connect: PgConnectOptions,
    shown: Shown,
    connection: PgConnection,
    checks_client: bool,
}

async fn first_connection(options: &PostgresOptions) -> Result<First, OpenError> {
    let connect = url::parse("url", &options.url)?;
    let float_digits = (!options.pooled).then_some(FLOAT_DIGITS);
    let mut connect = connect.disable_statement_logging().application_name("annals").extra_float_digits(float_digits);
    let shown = Shown::of(&connect);
    let mut connection = match tokio::time::timeout(options.connection_timeout, connect.connect()).await {
        Ok(connected) => connected.map_err(|e| shown.no_connection(e, options))?,
        Err(_) => return Err(shown.unavailable(format!("no answer within {:?}", options.connection_timeout))),
    };
    if !options.pooled {
        check_no_pooler(&mut connection, &shown).await?;
    }
    let checks_client = checks_client(&mut connection, &shown).await?;
    if checks_client && !options.pooled {
        connect = connect.options([CHECK_CLIENT]);
    }
    Ok(First { connect, shown, connection, checks_client })
}

/// Whether the server can look whether the client is still there: since PostgreSQL 14, not on every system.
async fn checks_client(connection: &mut PgConnection, shown: &Shown) -> Result<bool, OpenError> {
    if connection.server_version_num().is_some_and(|version| version < 140_000) {
        return Ok(false);
    }
    match sqlx::raw_sql(TRY_TO_CHECK_CLIENT).fetch_all(connection).await {
        Ok(_) => Ok(true),
        Err(error) if is_answer(&error) => Ok(false),
        Err(error) => Err(shown.failed(error)),
    }
}

/// Where to listen for other handles' commits.
pub(crate) fn listen_to(options: &PostgresOptions) -> Result<Option<PgConnectOptions>, OpenError> {
    let connect = match &options.listen {
        Listen::SameUrl if options.pooled => return Ok(None),
        Listen::Never => return Ok(None),
        Listen::SameUrl => url::parse("url", &options.url)?,
        Listen::Url(url) => url::parse("listen_url", url)?,
    };
    Ok(Some(connect.disable_statement_logging().application_name("annals")))
}

async fn close(connection: PgConnection) {
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "the first connection was lost before it was closed");
    }
}

async fn look(
    connection: &mut PgConnection,
    options: &PostgresOptions,
    shown: &Shown,
) -> Result<Incarnation, OpenError> {
    // A store of a newer build is not migrated.
    let rows = sqlx::raw_sql(STORE_EXISTS).fetch_all(&mut *connection).await.map_err(|e| shown.failed(e))?;
    if rows.first().is_some_and(|row| row.get(0)) {
        find_store(connection, shown).await?;
    }
    let missing = pending(connection, POSTGRES_EVENTS).await.map_err(|e| shown.failed(e))?;
    if options.migrate {
        // The checkpoints of projections too: the account that runs projections may lack the privilege to create tables.
        for all in [POSTGRES_EVENTS, POSTGRES_PROJECTIONS] {
            if !pending(connection, all).await.map_err(|e| shown.failed(e))?.is_empty() {
                migrate(connection, all).await.map_err(|e| shown.failed(e))?;
            }
        }
    } else if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|m| format!("`{} {}: {}`", m.component, m.number, m.name)).collect();
        return Err(OpenError::PendingMigrations { path: shown.0.clone(), missing: names.join(", ") });
    }
    let store = find_store(connection, shown).await?;
    check_grounds(connection, shown).await?;
    store.ok_or_else(|| shown.unsound("the table `annals.store` has no row", "restore it from a backup"))
}

async fn check_no_pooler(connection: &mut PgConnection, shown: &Shown) -> Result<(), OpenError> {
    let rows = sqlx::raw_sql(RECEIVED_PARAMETERS).fetch_all(connection).await.map_err(|e| shown.failed(e))?;
    if rows.first().is_some_and(|row| row.get::<String, _>(0) == FLOAT_DIGITS.to_string()) {
        return Ok(());
    }
    Err(shown.pooler("the server did not receive all parameters of the connection"))
}

async fn find_store(connection: &mut PgConnection, shown: &Shown) -> Result<Option<Incarnation>, OpenError> {
    let rows = sqlx::raw_sql(STORE).fetch_all(connection).await.map_err(|e| shown.failed(e))?;
    let Some(row) = rows.first() else { return Ok(None) };
    let needed: i64 = row.get(1);
    if needed > BUILD {
        return Err(OpenError::NewerStore { path: shown.0.clone(), needed, ours: BUILD });
    }
    Ok(Some(Incarnation(row.get::<Uuid, _>(0))))
}

async fn check_grounds(connection: &mut PgConnection, shown: &Shown) -> Result<(), OpenError> {
    let rows = sqlx::raw_sql(GROUNDS).fetch_all(connection).await.map_err(|e| shown.failed(e))?;
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
            format!("{} of the {TRIGGERS} triggers on `annals.events` are missing or disabled", TRIGGERS - triggers),
            "run `ALTER TABLE annals.events ENABLE TRIGGER USER`, or restore the schema",
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

/// Maps a statement that failed while the database was opened or migrated.
pub(crate) fn open_error(path: &str, error: sqlx::Error) -> OpenError {
    if code(&error) == Some(PRIVILEGE) {
        let what = format!("the account lacks a privilege ({})", BackendError::new(error));
        return OpenError::Unsound { path: path.to_owned(), what, fix: GRANT.to_owned() };
    }
    database_error(error).into_open(path)
}

/// The name of the database in errors: never with user or password.
struct Shown(String);

impl Shown {
    fn of(connect: &PgConnectOptions) -> Self {
        let database = connect.get_database().unwrap_or_default();
        Self(match connect.get_socket() {
            Some(socket) => format!("postgres://{}/{database}", socket.display()),
            None => format!("postgres://{}:{}/{database}", connect.get_host(), connect.get_port()),
        })
    }

    fn no_connection(&self, error: sqlx::Error, options: &PostgresOptions) -> OpenError {
        match &error {
            // A TLS failure is reported as an I/O error of the kind `InvalidData`.
            sqlx::Error::Tls(_) => self.untrusted(error),
            sqlx::Error::Io(on_socket) if on_socket.kind() == std::io::ErrorKind::InvalidData => self.untrusted(error),
            sqlx::Error::Database(refusal) if refusal.code().as_deref() == Some("08P01") => {
                let what = format!("a parameter of the connection is refused: {refusal}");
                let fix = "leave it out of the URL, or have the pooler ignore it (`ignore_startup_parameters`)";
                if options.pooled { self.unsound(what, fix) } else { self.pooler(what) }
            }
            _ => self.failed(error),
        }
    }

    fn failed(&self, error: sqlx::Error) -> OpenError {
        open_error(&self.0, error)
    }

    fn untrusted(&self, error: sqlx::Error) -> OpenError {
        OpenError::Untrusted { path: self.0.clone(), source: BackendError::new(error) }
    }

    fn pooler(&self, what: impl std::fmt::Display) -> OpenError {
        let what = format!("it is behind a pooler ({what}), which would mix up the statements of its clients");
        self.unsound(what, "call `PostgresOptions::pooled`, or connect to the server itself")
    }

    fn unavailable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> OpenError {
        OpenError::Unavailable { path: self.0.clone(), source: BackendError::new(source) }
    }

    fn unsound(&self, what: impl Into<String>, fix: impl Into<String>) -> OpenError {
        OpenError::Unsound { path: self.0.clone(), what: what.into(), fix: fix.into() }
    }
}
