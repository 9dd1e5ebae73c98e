//! annals under a name that the user gives.

extern crate annals_eventstore as other_name;

use annals_macros::{Aggregate, Event, ReadModel};
use serde::{Deserialize, Serialize};

mod vendored {
    pub(super) use annals_eventstore as log;
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(crate = crate::given_crate::vendored::log)]
enum Ping {
    #[event(name = "ping.sent")]
    Sent,
}

#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "ping", id = u64, event = Ping, crate = self::other_name)]
struct Pings;

/// As in the facade: the hidden modules of all parts in one. Some items are in several of them.
mod facade {
    pub(super) mod __private {
        pub(crate) use crate::mirror::__private::*;
        pub(crate) use annals_eventstore::__private::*;
    }
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(name = "pong.sent", crate = facade)]
struct Pong;

#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "pong", id = u64, event = Pong, crate = facade)]
struct Pongs;

#[derive(ReadModel, Clone)]
#[read_model(table = "pongs", key = "id", crate = facade)]
struct PongRow {
    id: i64,
}

#[test]
fn one_crate_may_contain_all_parts() {
    assert_eq!(other_name::Event::shape(&Pong).name, "pong.sent");
    assert_eq!(<Pongs as other_name::Aggregate>::TYPE, "pong");
    assert_eq!(crate::mirror::ReadModel::key(&PongRow { id: 3 }), 3);
}

#[test]
fn the_given_crate_is_used() {
    assert_eq!(<Ping as other_name::Event>::SHAPES[0].name, "ping.sent");
    assert_eq!(<Pings as other_name::Aggregate>::TYPE, "ping");
    assert_eq!(other_name::Event::shape(&Ping::Sent).rust_name, "Ping::Sent");
}
