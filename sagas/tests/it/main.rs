//! Sagas on real stores, by the public API.

#[cfg(test)]
mod deploying;
#[cfg(test)]
mod killed;
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
