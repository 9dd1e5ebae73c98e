//! Sagas on real stores, by the public API.

#[cfg(test)]
mod killed;
#[cfg(test)]
#[path = "../../../resilience/src/loopback.rs"]
mod loopback;
#[cfg(test)]
mod participant;
