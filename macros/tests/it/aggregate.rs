use annals_eventstore::{Aggregate as _, Evolve, SnapshotPolicy};
use annals_macros::{Aggregate, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
enum DoorEvent {
    #[event(name = "door.opened")]
    Opened,
    #[event(name = "door.closed")]
    Closed,
}

#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "door", id = u64, event = DoorEvent)]
struct Door {
    opened: u32,
}

impl Evolve for Door {
    fn evolve(&mut self, event: &DoorEvent) {
        match event {
            DoorEvent::Opened => self.opened += 1,
            DoorEvent::Closed => {}
        }
    }
}

/// An id with a comma in its type.
#[derive(Default)]
struct Twice<A, B>(A, B);

impl<A: std::fmt::Display, B: std::fmt::Display> std::fmt::Display for Twice<A, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.0, self.1)
    }
}

#[derive(Aggregate, Serialize, Deserialize, Default, Clone, PartialEq)]
#[aggregate(name = "gate", id = Twice<u8, std::string::String>, event = DoorEvent, snapshot(every = 100), fold = 2)]
#[aggregate(crate = annals_eventstore)]
enum Gate {
    #[default]
    Shut,
}

#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "hatch", id = &'static str, event = DoorEvent, snapshot(never))]
struct Hatch;

#[derive(Aggregate, Serialize, Deserialize, Default, Clone, PartialEq)]
#[aggregate(name = "window", id = u64, event = DoorEvent, snapshot(after("door.opened", "door.closed")))]
struct Window;

#[test]
fn only_a_policy_asks_for_a_codec() {
    assert_eq!(Window::SNAPSHOT, SnapshotPolicy::After(&["door.opened", "door.closed"]));
    assert!(Window::snapshot_codec().is_some() && Gate::snapshot_codec().is_some());
    assert!(Hatch::snapshot_codec().is_none() && Door::snapshot_codec().is_none());
}

#[test]
fn attributes_are_in_the_trait() {
    assert_eq!((Gate::TYPE, Gate::FOLD, Gate::SNAPSHOT), ("gate", 2, SnapshotPolicy::Every(100)));
    assert_eq!(Hatch::SNAPSHOT, SnapshotPolicy::Never);
    assert_eq!(<Gate as annals_eventstore::Aggregate>::Id::default().to_string(), "0 of ");
    assert!(matches!(Gate::default(), Gate::Shut));
}

#[test]
fn missing_attributes_have_defaults() {
    assert_eq!((Door::TYPE, Door::FOLD, Door::SNAPSHOT), ("door", 1, SnapshotPolicy::Never));
}

#[test]
fn the_event_type_is_that_of_evolve() {
    let mut door = Door::default();
    let events: [<Door as annals_eventstore::Aggregate>::Event; 2] = [DoorEvent::Opened, DoorEvent::Closed];
    events.iter().for_each(|event| door.evolve(event));
    assert_eq!(door.opened, 1);
}
