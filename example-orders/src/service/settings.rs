//! What can be set, and from where: each of the file, the environment and the command line comes before the one named first.
//!
//! All three are tables of TOML that are laid over each other and read once, so that a name or a value which is wrong is
//! refused wherever it came from. A secret, such as a database URL with a password, is never printed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use annals::resilience::deadline::LongestDeadline;
use annals::resilience::rate_limit::RateLimit;
use annals::resilience::receiver::MemorySettings;
use serde::Deserialize;
use toml::{Table, Value};

use crate::location::{Location, UnknownDatabase};
use crate::service::access::KeySettings;
use crate::service::partners::PartnerSettings;

/// The settings of the service; `orders.example.toml` has each with its default.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// A SQLite file.
    pub db: Option<PathBuf>,
    /// The URL of a PostgreSQL database; `DATABASE_URL` sets it too.
    pub database_url: Option<Secret>,
    /// Seconds that requests in flight are given when the service stops.
    pub drain_seconds: u64,
    /// Where `/health/live` is answered too, by threads of its own.
    pub live: Option<SocketAddr>,
    /// The most bytes of a request's body.
    pub body_bytes: usize,
    /// The longest that a request may take, in whose header no shorter time is.
    pub longest_deadline: LongestDeadline,
    /// So much may come from a tenant.
    pub limits: RateLimit,
    /// How many idempotency keys are remembered, and for how long.
    pub idempotency: MemorySettings,
    /// The services that a checkout calls.
    pub services: PartnerSettings,
    /// The keys of all callers. Without any, those of the demonstration.
    pub keys: Vec<KeySettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8_080).into(),
            db: None,
            database_url: None,
            drain_seconds: 10,
            live: None,
            body_bytes: 64 * 1024,
            longest_deadline: LongestDeadline::default(),
            limits: RateLimit::default(),
            idempotency: MemorySettings::default(),
            services: PartnerSettings::default(),
            keys: Vec::new(),
        }
    }
}

/// A text that is not printed.
#[derive(Clone, Deserialize)]
pub struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// What the command line says.
#[derive(Debug, Default)]
pub struct Flags {
    /// Where it listens.
    pub listen: Option<SocketAddr>,
    /// A SQLite file.
    pub database: Option<PathBuf>,
    /// Where the services of this process keep their files.
    pub services: Option<PathBuf>,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsFault {
    /// The file cannot be read.
    #[error("the settings file `{}` cannot be read", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the settings file `{}` is not TOML: {problem}", file.display())]
    NotToml {
        /// The file.
        file: PathBuf,
        /// What is wrong, and in which line; without the line itself, which may hold a secret.
        problem: String,
    },
    /// A name that is none, or a value that does not fit.
    #[error("{place}: {problem}")]
    Wrong {
        /// The file, or `the environment`.
        place: String,
        /// What is wrong.
        problem: String,
    },
}

/// The beginning of the variables that are settings; `ORDERS_LIMITS__CALLS=100` sets `calls` in the table `limits`.
const PREFIX: &str = "ORDERS_";

impl Settings {
    /// Reads the file, if there is one, and lays the variables and the flags over it.
    ///
    /// # Errors
    /// [`SettingsFault`] names the place and the setting.
    pub fn read(
        file: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
        flags: Flags,
    ) -> Result<Self, SettingsFault> {
        let mut settings = Table::new();
        if let Some(file) = file {
            settings = read_file(file)?;
            checked(settings.clone(), &format!("the settings file `{}`", file.display()))?;
        }
        for (name, value) in variables {
            match name.strip_prefix(PREFIX) {
                Some(name) => set(&mut settings, &name.to_ascii_lowercase(), value)?,
                None if name == "DATABASE_URL" && !value.is_empty() => {
                    settings.insert("database_url".to_owned(), Value::String(value));
                }
                None => {}
            }
        }
        let mut settings = checked(settings, "the environment")?;
        settings.listen = flags.listen.unwrap_or(settings.listen);
        settings.services.folder = flags.services.or(settings.services.folder);
        if flags.database.is_some() {
            (settings.db, settings.database_url) = (flags.database, None);
        }
        Ok(settings)
    }

    /// How long requests in flight are waited for.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// Where everything is stored.
    pub(super) fn location(&self) -> Result<Location, UnknownDatabase> {
        let url = self.database_url.as_ref().map(|Secret(url)| url.clone());
        match (&self.db, url) {
            (_, Some(url)) => Location::of(None, Some(url)),
            (file, None) => Location::of(file.clone(), None),
        }
    }
}

fn read_file(file: &Path) -> Result<Table, SettingsFault> {
    let unreadable = |source| SettingsFault::Unreadable { file: file.to_owned(), source };
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    text.parse().map_err(|e: toml::de::Error| {
        let line = e.span().map_or(0, |span| text[..span.start].lines().count().max(1));
        SettingsFault::NotToml { file: file.to_owned(), problem: format!("{} in line {line}", e.message()) }
    })
}

/// Sets one value; a double underscore in its name leads into a table. What is no value of TOML is a text.
fn set(settings: &mut Table, name: &str, value: String) -> Result<(), SettingsFault> {
    let (table, name) = match name.split_once("__") {
        None => (settings, name),
        Some((table, name)) => match settings.entry(table).or_insert_with(|| Table::new().into()) {
            Value::Table(table) => (table, name),
            _ => {
                let problem = format!("`{PREFIX}{}` sets a part of what is no table", table.to_ascii_uppercase());
                return Err(SettingsFault::Wrong { place: "the environment".to_owned(), problem });
            }
        },
    };
    let parsed = format!("value = {value}").parse::<Table>().ok().filter(|table| table.len() == 1);
    let parsed = parsed.and_then(|mut table| table.remove("value"));
    table.insert(name.to_owned(), parsed.unwrap_or(Value::String(value)));
    Ok(())
}

fn checked(settings: Table, place: &str) -> Result<Settings, SettingsFault> {
    let wrong = |e: toml::de::Error| SettingsFault::Wrong { place: place.to_owned(), problem: e.message().to_owned() };
    settings.try_into().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: Option<&str>, variables: &[(&str, &str)], flags: Flags) -> Result<Settings, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = file.map(|text| {
            let path = folder.path().join("orders.toml");
            std::fs::write(&path, text).expect("written");
            path
        });
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::read(path.as_deref(), variables, flags).map_err(|e| e.to_string())
    }

    #[test]
    fn a_flag_comes_before_a_variable_and_that_before_the_file() {
        let file = "listen = '127.0.0.1:1'\ndrain_seconds = 3\ndb = 'of-the-file.db'";
        let variables = [("ORDERS_LISTEN", "127.0.0.1:2"), ("DATABASE_URL", "postgres://app@localhost/shop")];
        let settings = read(Some(file), &variables, Flags::default()).expect("read");
        assert_eq!((settings.listen.port(), settings.drain_seconds), (2, 3));
        assert!(matches!(settings.location(), Ok(Location::Postgres(_))));
        let flags =
            Flags { listen: "127.0.0.1:3".parse().ok(), database: Some("of-the-flag.db".into()), ..Flags::default() };
        let settings = read(Some(file), &variables, flags).expect("read");
        assert_eq!(settings.listen.port(), 3);
        assert!(matches!(settings.location(), Ok(Location::File(file)) if file == Path::new("of-the-flag.db")));
    }

    #[test]
    fn the_example_file_has_the_defaults() {
        let example = read(Some(include_str!("../../orders.example.toml")), &[], Flags::default()).expect("read");
        assert_eq!(format!("{example:?}"), format!("{:?}", Settings::default()));
    }

    #[test]
    fn a_setting_that_is_none_is_refused_with_its_place_and_no_secret_is_printed() {
        for (file, variables, said) in [
            ("lisen = '127.0.0.1:1'", &[][..], ["orders.toml", "lisen"]),
            ("", &[("ORDERS_LISEN", "127.0.0.1:1")], ["the environment", "lisen"]),
            ("", &[("ORDERS_LISTEN", "here")], ["the environment", "socket address"]),
            ("", &[("ORDERS_LISTEN__PORT", "1")], ["the environment", "invalid type"]),
            ("\n\ndatabase_url = 'postgres://app:secret@localhost", &[], ["orders.toml", "line 3"]),
        ] {
            let error = read(Some(file), variables, Flags::default()).expect_err("it is refused");
            assert!(said.iter().all(|part| error.contains(part)), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let settings = read(None, &[("DATABASE_URL", "postgres://app:secret@localhost/shop")], Flags::default());
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
