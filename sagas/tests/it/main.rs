//! Sagas on real stores, by the public API.

#[cfg(test)]
mod killed;
