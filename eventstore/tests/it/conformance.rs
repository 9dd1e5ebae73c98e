//! Every clause of the contract on every store.

use crate::homes::{FaultyWithoutFaults, InMemory, OnDisk};
use crate::outsider::Elsewhere;

annals_eventstore::conformance::suite! {
    memory => InMemory,
    sqlite => OnDisk::new(),
    faulty_without_faults => FaultyWithoutFaults,
    outsider => Elsewhere::default(),
}

#[cfg(feature = "postgres")]
annals_eventstore::conformance::suite! {
    postgres => crate::homes::InPostgres::default(),
}

#[cfg(feature = "postgres")]
annals_eventstore::conformance::suite! {
    pooler => crate::homes::BehindPooler::default(),
}
