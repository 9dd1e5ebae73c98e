use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(name = PLACED)]
struct OrderPlaced;

const PLACED: &str = "order.placed";

fn main() {}
