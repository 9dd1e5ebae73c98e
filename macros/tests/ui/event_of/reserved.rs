use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "placed", of = "$order")]
struct Placed;

fn main() {}
