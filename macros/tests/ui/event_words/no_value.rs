use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(name)]
struct OrderPlaced;

fn main() {}
