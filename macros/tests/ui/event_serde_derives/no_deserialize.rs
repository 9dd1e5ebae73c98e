use annals_macros::Event;
use serde::Serialize;

#[derive(Event, Serialize)]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed,
}

fn main() {}
