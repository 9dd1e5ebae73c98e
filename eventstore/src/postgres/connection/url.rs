//! The URL of a database, read without ever being shown: it may hold a password.

use sqlx::postgres::PgConnectOptions;

use crate::error::Invalid;

const FORM: &str = "write it as `postgres://user:password@host:5432/database`";

/// What may follow the `?`. sqlx passes over all else, and logs it with its value.
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

/// Reads the URL in the field of this name; nothing of it is in the error.
pub(crate) fn parse(field: &str, url: &str) -> Result<PgConnectOptions, Invalid> {
    let no_url = || Invalid::new(field, "is no URL of a PostgreSQL database", FORM);
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")).ok_or_else(no_url)?;
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let database = place.split_once('/').map_or("", |(_, database)| database);
    // The end of a password that was taken apart here would be shown as the name of the database.
    if database.contains('@') || rest.contains('#') {
        let fix = "in a password write `/` as `%2F`, `?` as `%3F`, `#` as `%23` and `@` as `%40`";
        return Err(Invalid::new(field, "has an `@` behind its host, or a `#`", fix));
    }
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, _) = parameter.split_once('=').unwrap_or((parameter, ""));
        if !PARAMETERS.contains(&name) && !name.starts_with("options[") {
            // What seems a name may be a piece of a password with a `?` in it; then there is an `@` somewhere behind.
            let shown = if parameters.contains('@') { "a parameter" } else { &format!("the parameter `{name}`") };
            let problem = format!("has {shown} that is not supported");
            let fix =
                format!("leave it out; supported are {} (in a password write `?` as `%3F`)", PARAMETERS.join(", "));
            return Err(Invalid::new(field, problem, fix));
        }
    }
    url.parse().map_err(|_| no_url())
}
