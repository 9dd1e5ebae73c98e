//! The URL of a database. It is never shown, as it may hold a password.

use sqlx::postgres::PgConnectOptions;

use crate::error::Invalid;

const FORM: &str = "write it as `postgres://user:password@host:5432/database`";

/// The supported parameters. sqlx ignores all others, and logs them with their values.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// Those of libpq that are not supported: names that an error may show.
const LIBPQ: [&str; 24] = [
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "gssencmode",
    "gsslib",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "passfile",
    "replication",
    "require_auth",
    "requirepeer",
    "service",
    "sslcompression",
    "sslcrl",
    "sslnegotiation",
    "sslpassword",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
];

/// Reads the URL in the field of this name; the error shows no part of it.
pub(crate) fn parse(field: &str, url: &str) -> Result<PgConnectOptions, Invalid> {
    let not_a_url = || Invalid::new(field, "is not a URL of a PostgreSQL database", FORM);
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")).ok_or_else(not_a_url)?;
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let database = place.split_once('/').map_or("", |(_, database)| database);
    // Without this check the end of a password would be shown as the database name.
    let user = place.split('/').next().and_then(|authority| authority.rsplit_once('@')).map_or("", |(user, _)| user);
    if database.contains('@') || user.contains('@') || rest.contains('#') {
        let fix = "in a password write `/` as `%2F`, `?` as `%3F`, `#` as `%23` and `@` as `%40`";
        return Err(Invalid::new(field, "has an `@` too many, or a `#`", fix));
    }
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, _) = parameter.split_once('=').unwrap_or((parameter, ""));
        if !PARAMETERS.contains(&name) && !name.starts_with("options[") {
            // The name may be a password that is in the wrong place, or a piece of one that contains a `?`.
            let shown = LIBPQ.contains(&name).then(|| format!("the parameter `{name}`"));
            let problem = format!("has {} that is not supported", shown.as_deref().unwrap_or("a parameter"));
            let fix =
                format!("leave it out; supported are {} (in a password write `?` as `%3F`)", PARAMETERS.join(", "));
            return Err(Invalid::new(field, problem, fix));
        }
    }
    url.parse().map_err(|_| not_a_url())
}
