use annals_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Clone, Serialize, Deserialize)]
#[serde(into = "Old")]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed,
}

#[derive(Serialize, Deserialize, Clone)]
enum Old {
    Placed,
}

impl From<Old> for OrderEvent {
    fn from(_: Old) -> Self {
        Self::Placed
    }
}

impl From<OrderEvent> for Old {
    fn from(_: OrderEvent) -> Self {
        Self::Placed
    }
}

fn main() {}
