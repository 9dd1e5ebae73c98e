use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

use super::{given, given_nothing, shapes_of};
use crate::aggregate::{Aggregate, Decide, Evolve, SnapshotPolicy};
use crate::error::{DecodeError, Invalid};
use crate::event::{Event, EventShape};
use crate::payload::{Payload, decode_variant, encode_variant};

/// Neither `Debug` nor `PartialEq`.
#[derive(Clone, Serialize, Deserialize)]
enum Lamp {
    On { brightness: f64 },
    Off,
    Forgetful(#[serde(skip_serializing_if = "is_seven", default)] u8, #[serde(default)] u8),
    Unreadable(#[serde(serialize_with = "as_text")] u8),
}

fn is_seven(n: &u8) -> bool {
    *n == 7
}

fn as_text<S: serde::Serializer>(n: &u8, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(n)
}

impl Event for Lamp {
    const SHAPES: &'static [EventShape] = &[
        EventShape { name: "lamp.on", version: 2, rust_name: "Lamp::On" },
        EventShape { name: "lamp.off", version: 1, rust_name: "Lamp::Off" },
        EventShape { name: "lamp.forgetful", version: 1, rust_name: "Lamp::Forgetful" },
        EventShape { name: "lamp.unreadable", version: 1, rust_name: "Lamp::Unreadable" },
    ];

    fn shape(&self) -> &'static EventShape {
        &Self::SHAPES[match self {
            Self::On { .. } => 0,
            Self::Off => 1,
            Self::Forgetful(..) => 2,
            Self::Unreadable(_) => 3,
        }]
    }

    fn encode(&self) -> Result<Payload, Invalid> {
        encode_variant(self)
    }

    fn decode(name: &str, _: u32, payload: &Payload) -> Result<Self, DecodeError> {
        let index = Self::SHAPES.iter().position(|s| s.name == name).expect("only known names are tested");
        decode_variant(index as u32, payload)
    }
}

#[derive(Clone, Default)]
struct State {
    brightness: Option<f64>,
}

impl Aggregate for State {
    const TYPE: &'static str = "lamp";
    const FOLD: u32 = 1;
    const SNAPSHOT: SnapshotPolicy = SnapshotPolicy::Never;
    type Id = String;
    type Event = Lamp;
}

impl Evolve for State {
    fn evolve(&mut self, event: &Lamp) {
        match event {
            Lamp::On { brightness } => self.brightness = Some(*brightness),
            _ => self.brightness = None,
        }
    }
}

#[derive(Debug, PartialEq)]
enum No {
    AlreadyOn,
    Broken,
}

impl State {
    fn switch_on(&self, brightness: f64) -> Result<Lamp, No> {
        if self.brightness.is_some() { Err(No::AlreadyOn) } else { Ok(Lamp::On { brightness }) }
    }

    fn switch_off(&self) -> Result<Option<Lamp>, No> {
        Ok(self.brightness.map(|_| Lamp::Off))
    }
}

struct Toggle;

impl Decide<Toggle> for State {
    type Rejection = No;

    fn decide(&self, Toggle: &Toggle) -> Result<Vec<Lamp>, No> {
        if self.brightness.is_some() { Ok(vec![Lamp::Off]) } else { Ok(vec![Lamp::On { brightness: 1.0 }]) }
    }
}

/// The message of a failed check.
fn failure<T>(check: impl FnOnce() -> T) -> String {
    let Err(payload) = catch_unwind(AssertUnwindSafe(check)) else { panic!("the check should fail") };
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().expect("a text").to_string(),
    }
}

#[test]
fn checks_that_hold_pass_and_show_the_state() {
    let seen = Cell::new(0);
    given::<State>([]).when(|lamp| lamp.switch_on(0.5)).then([Lamp::On { brightness: 0.5 }]).then_state(|lamp| {
        assert_eq!(lamp.brightness, Some(0.5));
        seen.set(seen.get() + 1);
    });
    given::<State>(Lamp::On { brightness: 0.5 })
        .when(|lamp| lamp.switch_on(1.0))
        .then_rejected(No::AlreadyOn)
        .then_state(|lamp| {
            assert_eq!(lamp.brightness, Some(0.5));
            seen.set(seen.get() + 1);
        });
    given_nothing::<State>().when(State::switch_off).then_nothing();
    given_nothing::<State>().when_command(Toggle).then(Lamp::On { brightness: 1.0 });
    given::<State>(Lamp::On { brightness: 0.5 }).then_state(|lamp| {
        assert_eq!(lamp.brightness, Some(0.5));
        seen.set(seen.get() + 1);
    });
    assert_eq!(given::<State>(Lamp::On { brightness: 0.1 }).when(|l| l.switch_on(1.0)).rejection(), No::AlreadyOn);
    assert_eq!(seen.get(), 3);
}

#[test]
fn other_events_are_shown_side_by_side() {
    let text = failure(|| {
        given_nothing::<State>().when(|l| l.switch_on(0.25)).then([Lamp::On { brightness: 0.5 }, Lamp::Off]);
    });
    let dashes = "-".repeat(56);
    let expected = [
        "other events than expected".to_owned(),
        format!("    {:56} | found", "expected"),
        format!("    {dashes} | {dashes}"),
        format!("  ! {:56} | {}", r#"lamp.on v2 {"brightness": 0.5}"#, r#"lamp.on v2 {"brightness": 0.25}"#),
        format!("  ! {:56} |", "lamp.off v1 {}"),
        String::new(),
    ];
    assert_eq!(text, expected.join("\n"));
}

#[test]
fn equal_lines_carry_no_mark_and_long_ones_are_cut() {
    let long: String = "x".repeat(60);
    let text = super::stored::side_by_side(("a", &[long.clone(), "b".to_owned()]), ("c", &[long, "d".to_owned()]));
    let lines: Vec<_> = text.lines().collect();
    let half = "x".repeat(56);
    assert_eq!(lines[2], format!("    {half} | {half}"));
    assert_eq!(lines[3], format!("    {:56} | xxxx", "xxxx"));
    assert_eq!(lines[4], format!("  ! {:56} | d", "b"));
    assert_eq!(lines.len(), 5);
}

#[test]
fn checks_that_do_not_hold_fail_with_what_was_found() {
    let on = || given::<State>(Lamp::On { brightness: 1.0 });
    for (check, message) in [
        (failure(|| on().when(|l| l.switch_on(1.0)).then(Lamp::Off)), "rejected: AlreadyOn"),
        (failure(|| on().when(State::switch_off).then_nothing()), "lamp.off v1"),
        (failure(|| on().when(State::switch_off).then_rejected(No::AlreadyOn)), "lamp.off v1"),
        (failure(|| on().when(|l| l.switch_on(1.0)).then_rejected(No::Broken)), "rejected: AlreadyOn"),
        (failure(|| on().when(State::switch_off).rejection()), "events instead of a rejection"),
        (failure(|| given_nothing::<State>().when(State::switch_off).then(Lamp::Off)), "(nothing)"),
        (failure(|| on().then_state(|lamp| assert!(lamp.brightness.is_none(), "it is lit"))), "it is lit"),
    ] {
        assert!(check.contains(message), "`{check}` does not contain `{message}`");
    }
}

#[test]
fn an_event_that_storing_changes_fails_at_any_index() {
    let forgetful = || Lamp::Forgetful(7, 8);
    let accept = |event: fn() -> Lamp| move |_: &State| Ok::<_, No>(event());
    for (check, message) in [
        (
            failure(|| given::<State>(forgetful())),
            "a given event, `lamp.forgetful` v1 (Lamp::Forgetful), is another one",
        ),
        (failure(|| given_nothing::<State>().when(accept(|| Lamp::Off)).then(forgetful())), "an expected event"),
        (
            failure(|| given_nothing::<State>().when(accept(|| Lamp::Unreadable(1))).then(Lamp::Unreadable(1))),
            "cannot be read back from \"1\": the payload does not fit: invalid type: string",
        ),
        (failure(|| given::<State>(Lamp::On { brightness: f64::NAN })), "`payload.brightness` is NaN"),
    ] {
        assert!(check.contains(message), "`{check}` does not contain `{message}`");
    }
}

#[test]
fn a_decision_that_is_not_pure_fails() {
    let n = Cell::new(0.0);
    let text = failure(|| {
        let fickle = |_: &State| {
            n.set(n.get() + 1.0);
            Ok::<_, No>(Lamp::On { brightness: n.get() })
        };
        given_nothing::<State>().when(fickle)
    });
    assert!(text.contains("two decisions on the same state differ"), "{text}");
    assert!(text.contains("\"brightness\": 1.0") && text.contains("\"brightness\": 2.0"), "{text}");
    let n = Cell::new(0);
    let text = failure(|| {
        let fickle = |_: &State| {
            n.set(n.get() + 1);
            if n.get() == 1 { Err(No::Broken) } else { Ok(Lamp::Off) }
        };
        given_nothing::<State>().when(fickle)
    });
    assert!(text.contains("(a rejection)"), "{text}");
}

#[test]
fn stored_names_are_listed_for_a_golden_file() {
    let expected = "lamp.on v2  Lamp::On\nlamp.off v1  Lamp::Off\nlamp.forgetful v1  Lamp::Forgetful\n\
                    lamp.unreadable v1  Lamp::Unreadable\n";
    assert_eq!(shapes_of::<Lamp>(), expected);
}
