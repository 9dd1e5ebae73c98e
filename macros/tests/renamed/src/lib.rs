//! Only a test: the derives find annals under its name in the manifest, here `log-of-facts`.

// Derived code must not cause warnings in a user's strict code.
#![deny(
    unused_qualifications,
    unused_results,
    single_use_lifetimes,
    trivial_casts,
    unreachable_pub,
    clippy::pedantic,
    clippy::nursery,
    clippy::indexing_slicing,
    clippy::absolute_paths
)]

#[cfg(test)]
mod tests {
    use derives::{Aggregate, Event};
    use log_of_facts::{Aggregate as _, Event as _};
    use serde::{Deserialize, Serialize};

    #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
    enum LampEvent {
        #[event(name = "lamp.lit", version = 2)]
        Lit { watts: u32 },
    }

    #[derive(Aggregate, Default, Clone)]
    #[aggregate(name = "lamp", id = u64, event = LampEvent)]
    struct Lamp;

    #[test]
    fn derived_code_finds_the_renamed_crate() {
        let event = LampEvent::Lit { watts: 5 };
        let payload = event.encode().unwrap();
        assert_eq!(LampEvent::decode("lamp.lit", 2, &payload).unwrap(), event);
        assert_eq!(Lamp::TYPE, "lamp");
    }
}
