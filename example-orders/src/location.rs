//! Where the shop stores everything: in a file, or in the PostgreSQL database that `DATABASE_URL` names.

use std::io::Write;
use std::path::PathBuf;

/// The default file.
const FILE: &str = "orders.db";

/// Where the events and the read models are.
pub enum Location {
    /// A SQLite file.
    File(PathBuf),
    /// The URL of a PostgreSQL database. It may contain a password, so it is never printed.
    Postgres(String),
}

/// A URL of a database that this shop cannot open.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error(
    "`DATABASE_URL` {found}; make it `postgres://user@host:5432/database`, or unset it and use `--db FILE` for SQLite"
)]
pub struct UnknownDatabase {
    found: String,
}

impl Location {
    /// The file on the command line, or else the database of the environment, or else the default file.
    pub fn of(file: Option<PathBuf>, url: Option<String>) -> Result<Self, UnknownDatabase> {
        match (file, url.filter(|url| !url.is_empty())) {
            (Some(file), _) => Ok(Self::File(file)),
            (None, None) => Ok(Self::File(FILE.into())),
            (None, Some(url)) => match url.split_once("://") {
                Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(url)),
                // Only the scheme is printed: any other part of a URL may be a password.
                Some((scheme, _)) if !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_lowercase()) => {
                    Err(UnknownDatabase { found: format!("is of the kind `{scheme}`") })
                }
                _ => Err(UnknownDatabase { found: "is not a URL".to_owned() }),
            },
        }
    }

    /// Where the services keep their files: beside that of the shop, or where the program runs.
    pub fn services(&self) -> PathBuf {
        match self {
            Self::File(file) => file.with_extension("services"),
            Self::Postgres(_) => PathBuf::from(FILE).with_extension("services"),
        }
    }

    /// Prints what to do after the scene, which has filled this table.
    pub fn print_next_steps(&self, table: &str, out: &mut dyn Write) -> std::io::Result<()> {
        const EVENTS: &str = "SELECT position, aggregate_id, version, event_type, event_data FROM";
        let list = format!("SELECT * FROM {table}");
        match self {
            Self::File(file) => {
                let file = file.display();
                writeln!(out, "\nThe events and the tables are in {file}. To see more:")?;
                writeln!(out, "  sqlite3 {file} '{EVENTS} events'")?;
                writeln!(out, "  sqlite3 -box {file} '{list}'")?;
            }
            Self::Postgres(_) => {
                writeln!(out, "\nThe events are in the schema `annals`, the tables beside it. To see more:")?;
                writeln!(out, "  psql \"$DATABASE_URL\" -c '{EVENTS} annals.events'")?;
                writeln!(out, "  psql \"$DATABASE_URL\" -c '{list}'")?;
            }
        }
        writeln!(out, "  cargo run -p example-orders -- --orders 10000")?;
        writeln!(out, "Run it again to continue with this data.")
    }
}
