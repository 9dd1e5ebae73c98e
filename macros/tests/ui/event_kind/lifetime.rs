use annals_macros::Event;
use serde::Serialize;

#[derive(Event, Serialize)]
#[event(name = "order.placed")]
struct OrderPlaced<'a>(&'a str);

fn main() {}
