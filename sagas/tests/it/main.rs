//! Sagas on real stores, by the public API.

#[cfg(test)]
mod branches;
#[cfg(test)]
mod deploying;
#[cfg(test)]
mod flows;
#[cfg(test)]
mod flows_killed;
#[cfg(test)]
mod killed;
#[cfg(test)]
mod lines;
#[cfg(test)]
#[path = "../../../resilience/src/loopback.rs"]
mod loopback;
#[cfg(test)]
mod participant;
#[cfg(test)]
mod people;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod stores;
#[cfg(test)]
mod timers;
#[cfg(test)]
mod world;
