//! Finds the programs that the tests start.

use std::path::{Path, PathBuf};

/// Names the folder of the server's programs, to run another major version than the default.
const FOLDER_VARIABLE: &str = "ANNALS_POSTGRES_BIN";

/// The message if the server's programs are not found.
const INSTALL: &str = "PostgreSQL is not installed, but tests need it: run `apt-get install -y postgresql` (or \
                       `scripts/test` as root, which does), or set ANNALS_POSTGRES_URL to the URL of a server";

/// The message if the pooler is not found.
const INSTALL_POOLER: &str = "pgbouncer is not installed, but tests of the store behind a pooler need it: run \
                              `apt-get install -y pgbouncer` (or `scripts/test` as root, which does)";

/// The folder that holds `initdb`, `pg_ctl` and `postgres`.
///
/// # Panics
/// If there is none: a test must not pass without its database.
pub(crate) fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from) {
        assert!(holds_all(&folder), "{FOLDER_VARIABLE}: `{}` does not hold PostgreSQL's programs", folder.display());
        return folder;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).find(|folder| holds_all(folder));
    on_path.or_else(newest_of_debian).unwrap_or_else(|| panic!("{INSTALL}"))
}

/// The program `pgbouncer`. On Debian it is not in the path of ordinary accounts.
///
/// # Panics
/// If there is none.
pub(crate) fn pooler() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let mut programs = folders.map(|folder| folder.join("pgbouncer"));
    programs.find(|program| program.is_file()).unwrap_or_else(|| panic!("{INSTALL_POOLER}"))
}

/// Debian has one folder per major version.
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
