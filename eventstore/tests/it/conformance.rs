//! Every clause of the contract on every store.

use crate::backends::{FaultyWithoutFaults, InMemory, OnDisk};
use crate::third_party_store::Elsewhere;

annals_eventstore::conformance::suite! {
    memory => InMemory,
    sqlite => OnDisk::new(),
    sqlite_by_the_clock_of_the_machine => OnDisk::by_the_clock_of_the_machine(),
    faulty_without_faults => FaultyWithoutFaults,
    third_party_store => Elsewhere::default(),
}

#[cfg(feature = "postgres")]
annals_eventstore::conformance::suite! {
    postgres => crate::backends::InPostgres::default(),
}

#[cfg(feature = "postgres")]
annals_eventstore::conformance::suite! {
    pooler => crate::backends::BehindPooler::default(),
}
