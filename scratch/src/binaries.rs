//! Where the programs are that the tests start.

use std::path::{Path, PathBuf};

/// Names the folder of the server's programs, for another major version than the one that would be found.
const ELSEWHERE: &str = "ANNALS_POSTGRES_BIN";

/// What to do when the server's programs are nowhere.
const INSTALL: &str = "PostgreSQL is not installed, but tests need it: run `apt-get install -y postgresql` (or \
                       `scripts/test` as root, which does), or set ANNALS_POSTGRES_URL to the URL of a server";

/// What to do when the pooler is nowhere.
const INSTALL_POOLER: &str = "pgbouncer is not installed, but tests of the store behind a pooler need it: run \
                              `apt-get install -y pgbouncer` (or `scripts/test` as root, which does)";

/// The folder that holds `initdb`, `pg_ctl` and `postgres`.
///
/// # Panics
/// If there is none: a test without its database has shown nothing.
pub(crate) fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os(ELSEWHERE).map(PathBuf::from) {
        assert!(holds_all(&folder), "{ELSEWHERE}: `{}` does not hold PostgreSQL's programs", folder.display());
        return folder;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).find(|folder| holds_all(folder));
    on_path.or_else(newest_of_debian).unwrap_or_else(|| panic!("{INSTALL}"))
}

/// The program `pgbouncer`, which Debian keeps out of the path of ordinary accounts.
///
/// # Panics
/// If there is none.
pub(crate) fn pooler() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let mut programs = places.map(|folder| folder.join("pgbouncer"));
    programs.find(|program| program.is_file()).unwrap_or_else(|| panic!("{INSTALL_POOLER}"))
}

/// Debian keeps each major version in a folder of its own.
fn newest_of_debian() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    versions
        .filter_map(|entry| {
            let folder = entry.ok()?.path();
            let major: u32 = folder.file_name()?.to_str()?.parse().ok()?;
            Some((major, folder.join("bin")))
        })
        .filter(|(_, folder)| holds_all(folder))
        .max()
        .map(|(_, folder)| folder)
}

fn holds_all(folder: &Path) -> bool {
    ["initdb", "pg_ctl", "postgres"].iter().all(|program| folder.join(program).is_file())
}
