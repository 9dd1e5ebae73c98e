//! What a user of projections can see, on SQLite.

#[cfg(test)]
mod shop;
#[cfg(test)]
mod sqlite;
