//! What can be set, and from where: each of the file, the environment and the command line comes before the one named first.
//!
//! All three are tables of TOML that are laid over each other and read once, so that a name or a value which is wrong is
//! refused wherever it came from. A secret, such as a database URL with a password, is never printed.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use annals::resilience::bulkhead::Pools;
use annals::resilience::deadline::LongestDeadline;
use annals::resilience::rate_limit::RateLimit;
use annals::resilience::receiver::MemorySettings;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

use crate::connections::Connections;
use crate::location::{Location, UnknownDatabase};
use crate::service::access::KeySettings;
use crate::service::partners::PartnerSettings;
use crate::service::telemetry::{LogSettings, TraceSettings};

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
    /// Connections at once; each takes a file descriptor.
    pub connections: NonZeroU32,
    /// Seconds that the header of a request may take.
    pub header_seconds: NonZeroU32,
    /// The most bytes of a request's body.
    pub body_bytes: usize,
    /// The longest that a request may take, in whose header no shorter time is.
    pub longest_deadline: LongestDeadline,
    /// So much may come from a tenant.
    pub limits: RateLimit,
    /// How many idempotency keys are remembered, and for how long.
    #[serde(deserialize_with = "of_short_memory")]
    pub idempotency: MemorySettings,
    /// How many reads, commands and reports run at once, each in a pool of their own.
    pub pools: Pools,
    /// Milliseconds after which the work of a process that died is done by the others, or by the next. Each third of it a small write
    /// says that this one is alive.
    pub lease_ms: u64,
    /// Milliseconds that a read model may be behind in health.
    pub most_lag_ms: u64,
    /// The services that a checkout calls.
    pub services: PartnerSettings,
    /// The log.
    pub log: LogSettings,
    /// Traces.
    pub traces: TraceSettings,
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
            connections: NonZeroU32::new(512).unwrap_or(NonZeroU32::MIN),
            header_seconds: NonZeroU32::new(10).unwrap_or(NonZeroU32::MIN),
            body_bytes: 64 * 1024,
            longest_deadline: LongestDeadline::default(),
            limits: RateLimit::default(),
            idempotency: short_memory(),
            pools: Pools::default(),
            lease_ms: 2_000,
            most_lag_ms: 30_000,
            services: PartnerSettings::default(),
            log: LogSettings::default(),
            traces: TraceSettings::default(),
            keys: Vec::new(),
        }
    }
}

/// The keys of stored events are in the store; in memory are answers, for those who ask again at once. In this time no caller can use up
/// its keys within the limit of its tenant.
fn short_memory() -> MemorySettings {
    MemorySettings { retention: Duration::from_secs(5 * 60), ..MemorySettings::default() }
}

/// A table that leaves out some of it.
fn of_short_memory<'de, D: Deserializer<'de>>(from: D) -> Result<MemorySettings, D::Error> {
    let mut whole = Table::try_from(short_memory()).map_err(D::Error::custom)?;
    whole.extend(Table::deserialize(from)?);
    whole.try_into().map_err(|e: toml::de::Error| D::Error::custom(e.message()))
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
    /// A number that cannot work.
    #[error("`{setting}` is {value}; {fix}")]
    Range {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        fix: &'static str,
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
                // As files for containers write what is not set.
                _ if value.is_empty() => {}
                Some(name) => set(&mut settings, &name.to_ascii_lowercase(), value)?,
                None if name == "DATABASE_URL" => {
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
        settings.check()?;
        Ok(settings)
    }

    /// Refuses values with which the service would start, and serve nobody.
    fn check(&self) -> Result<(), SettingsFault> {
        let LongestDeadline(longest) = self.longest_deadline;
        let least = u64::from(!longest.is_zero());
        for (setting, value, fits, fix) in [
            ("drain_seconds", self.drain_seconds, self.drain_seconds <= 3_600, "an hour, 3600, is the most"),
            ("lease_ms", self.lease_ms, (100..=3_600_000).contains(&self.lease_ms), "give it 100 to 3600000"),
            ("body_bytes", self.body_bytes as u64, self.body_bytes > 0, "no write would be taken"),
            ("longest_deadline", least, least > 0, "no request would be answered in time"),
        ] {
            if !fits {
                return Err(SettingsFault::Range { setting, value, fix });
            }
        }
        Ok(())
    }

    /// How long requests in flight are waited for.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// How many connections there may be, and how long each may be silent.
    pub fn connections(&self) -> Connections {
        let header = Duration::from_secs(self.header_seconds.get().into());
        Connections { most: self.connections.get(), header }
    }

    /// How long a process may be silent before its work is done by others.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// How far a read model may be behind.
    pub fn most_lag(&self) -> Duration {
        Duration::from_millis(self.most_lag_ms)
    }

    /// Where the services of this process keep their files.
    ///
    /// # Errors
    /// `UnknownDatabase`, beside which they would be.
    pub fn services_folder(&self) -> Result<PathBuf, UnknownDatabase> {
        match &self.services.folder {
            Some(folder) => Ok(folder.clone()),
            None => Ok(self.location()?.services()),
        }
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

fn checked(mut settings: Table, place: &str) -> Result<Settings, SettingsFault> {
    // The crate has no defaults for a limit of which only a part is said. The service has.
    if let Some(Value::Table(limits)) = settings.get_mut("limits") {
        let RateLimit { calls, burst, .. } = RateLimit::default();
        let defaults = [("calls", Some(calls)), ("burst", burst)];
        for (name, value) in defaults.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            limits.entry(name).or_insert_with(|| i64::from(value).into());
        }
    }
    // As it is a table and no text, the error has no line of it, but the name of the setting.
    let wrong = |e: toml::de::Error| SettingsFault::Wrong {
        place: place.to_owned(),
        problem: e.to_string().trim_end().replace('\n', " "),
    };
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
    fn each_setting_can_be_set_alone_and_what_is_empty_is_not_set() {
        for (name, value) in [("CALLS", "100"), ("PER", "10s"), ("BURST", "10"), ("KEYS", "7")] {
            let limits =
                read(None, &[(&*format!("ORDERS_LIMITS__{name}"), value)], Flags::default()).expect("read").limits;
            let is_set = [limits.calls == 100, limits.per.as_secs() == 10, limits.burst == Some(10), limits.keys == 7];
            assert_eq!(is_set.into_iter().filter(|is_set| *is_set).count(), 1, "{name}: {limits:?}");
        }
        let empty = [("ORDERS_LIVE", ""), ("ORDERS_TRACES__OTLP", ""), ("DATABASE_URL", "")];
        let settings = read(None, &empty, Flags::default()).expect("read");
        assert_eq!(format!("{settings:?}"), format!("{:?}", Settings::default()));
    }

    #[test]
    fn the_example_file_has_the_defaults() {
        let example = read(Some(include_str!("../../orders.example.toml")), &[], Flags::default()).expect("read");
        assert_eq!(format!("{example:?}"), format!("{:?}", Settings::default()));
    }

    /// What may be set is what the reader lists when it meets a name that is none.
    #[test]
    fn the_example_file_has_every_setting() {
        let example = include_str!("../../orders.example.toml");
        let lines: Vec<&str> = example.lines().map(|line| line.trim_start_matches("# ")).collect();
        let mut settings = 0;
        for table in [
            "",
            "[pools]",
            "[limits]",
            "[idempotency]",
            "[services]",
            "[services.clients]",
            "[log]",
            "[traces]",
            "[[keys]]",
        ] {
            let error = read(Some(&format!("{table}\nnone = 1")), &[], Flags::default()).expect_err("it is refused");
            let names = error.rsplit_once("expected").unwrap_or_else(|| panic!("{error}")).1;
            // The table is named behind them.
            let names = names.split(" in `").next().unwrap_or_default();
            for name in names.split('`').skip(1).step_by(2) {
                settings += 1;
                let prefix = table.trim_matches(['[', ']']);
                let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
                let is_there = lines.iter().any(|line| {
                    line.starts_with(&format!("{name} ="))
                        || line.trim_matches(['[', ']']).starts_with(&path) && line.starts_with('[')
                });
                assert!(is_there, "{table} {name}");
            }
        }
        assert!(settings > 35, "{settings}");
    }

    #[test]
    fn what_a_table_leaves_out_is_as_by_default() {
        let settings = read(None, &[("ORDERS_IDEMPOTENCY__KEYS", "7")], Flags::default()).expect("read").idempotency;
        assert_eq!(settings, MemorySettings { keys: 7, ..Settings::default().idempotency });
    }

    #[test]
    fn a_setting_that_is_none_is_refused_with_its_place_and_no_secret_is_printed() {
        for (file, variables, said) in [
            ("lisen = '127.0.0.1:1'", &[][..], ["orders.toml", "lisen"]),
            ("", &[("ORDERS_LISEN", "127.0.0.1:1")], ["the environment", "lisen"]),
            ("", &[("ORDERS_LISTEN", "here")], ["the environment", "socket address"]),
            ("", &[("ORDERS_LISTEN", "here")], ["the environment", "`listen`"]),
            ("", &[("ORDERS_POOLS__QUERY", "-1")], ["the environment", "`pools.query`"]),
            ("lease_ms = '2s'", &[], ["orders.toml", "`lease_ms`"]),
            ("[limits]\ncalls = 'x'", &[], ["orders.toml", "`limits.calls`"]),
            ("drain_seconds = 9223372036854775807", &[], ["`drain_seconds`", "3600"]),
            ("", &[("ORDERS_LEASE_MS", "0")], ["`lease_ms`", "100"]),
            ("body_bytes = 0", &[], ["`body_bytes`", "0"]),
            ("longest_deadline = '0s'", &[], ["`longest_deadline`", "0"]),
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
