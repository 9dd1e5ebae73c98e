use annals_macros::{Aggregate, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(name = "placed", of = "order")]
struct Placed;

#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "purchase", id = u64, event = Placed)]
struct Purchase;

impl annals_eventstore::Evolve for Purchase {
    fn evolve(&mut self, _: &Placed) {}
}

fn main() {}
