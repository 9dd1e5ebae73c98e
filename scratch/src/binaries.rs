//! Where the server's programs are.

use std::path::{Path, PathBuf};

/// What to do when they are nowhere.
const INSTALL: &str = "PostgreSQL is not installed, but tests need it: run `apt-get install -y postgresql` (or \
                       `scripts/test` as root, which does), or set ANNALS_POSTGRES_URL to the URL of a server";

/// The folder that holds `initdb`, `pg_ctl` and `postgres`.
///
/// # Panics
/// If there is none: a test without its database has shown nothing.
pub(crate) fn folder() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).find(|folder| holds_all(folder));
    on_path.or_else(newest_of_debian).unwrap_or_else(|| panic!("{INSTALL}"))
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
