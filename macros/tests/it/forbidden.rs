//! A crate may forbid what derived code could set off.

#![forbid(deprecated)]

use annals_eventstore::Event as _;
use annals_macros::{Aggregate, Event, ReadModel};
use serde::{Deserialize, Serialize};

use crate::mirror::ReadModel as _;

#[derive(Event, Serialize, Deserialize, Clone)]
enum LampEvent {
    #[event(name = "lamp.lit")]
    Lit,
}

#[derive(Event)]
enum HouseEvent {
    #[event(transparent)]
    Lamp(LampEvent),
}

#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "lamp", id = u64, event = LampEvent)]
struct Lamp;

#[derive(ReadModel, Clone)]
#[read_model(table = "lamps", key = "lamp", crate = crate::mirror)]
struct LampRow {
    lamp: i64,
}

#[test]
fn derives_compile_where_the_deprecated_is_forbidden() {
    assert_eq!(HouseEvent::Lamp(LampEvent::Lit).shape().name, "lamp.lit");
    assert_eq!(<Lamp as annals_eventstore::Aggregate>::TYPE, "lamp");
    assert_eq!(LampRow { lamp: 1 }.key(), 1);
}
