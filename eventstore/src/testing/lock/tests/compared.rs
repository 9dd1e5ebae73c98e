//! What is compared beside the shapes of a single type.

use std::fs;

use annals_macros::{Aggregate, Event};
use serde::{Deserialize, Serialize};

use super::{Careless, Files, OrderEvent};
use crate::aggregate::Evolve;
use crate::upcast::JsonUpcaster;

/// A field that no aggregate looks at was filled in wrongly, and the old payments were taken for nothing.
#[test]
fn an_old_payload_that_is_read_as_another_event_is_refused() {
    macro_rules! payments {
        ($events:ident, $steps:ident, $step:expr) => {
            #[derive(Event, Serialize, Deserialize, Clone)]
            #[event(upcasters = $steps)]
            enum $events {
                #[event(name = "order.paid", version = 2)]
                Paid { cents: i64, currency: String },
            }

            const $steps: &[JsonUpcaster] = &[$step];
        };
    }
    payments!(InEuros, EUROS, JsonUpcaster::change(("order.paid", 1), |paid| Ok(with_currency(&paid, "EUR"))));
    payments!(InDollars, DOLLARS, JsonUpcaster::change(("order.paid", 1), |paid| Ok(with_currency(&paid, "USD"))));
    payments!(Dropped, DROPPED, JsonUpcaster::drop(("order.paid", 1)));

    fn with_currency(paid: &serde_json::Value, currency: &str) -> serde_json::Value {
        serde_json::json!({ "cents": paid["cents"], "currency": currency })
    }

    #[derive(Event, Serialize, Deserialize, Clone)]
    #[event(upcasters = RAISED)]
    enum Raised {
        #[event(name = "order.paid", version = 3)]
        Paid { cents: i64 },
    }

    const RAISED: &[JsonUpcaster] =
        &[JsonUpcaster::change(("order.paid", 1), Ok), JsonUpcaster::change(("order.paid", 2), Ok)];

    let files = Files(tempfile::tempdir().unwrap());
    fs::create_dir(files.path("corpus")).unwrap();
    files.put("corpus/order.paid.v1.json", r#"{"cents": 5}"#);
    files.put("corpus/order.paid.v2.json", r#"{"cents": 5, "currency": "CHF"}"#);
    files.empty().events::<InEuros>().compare(true).unwrap();
    let of_v1 = |line: &&str| line.starts_with("reading\torder.paid.v1.json\t") && line.ends_with("\torder.paid.v2");
    assert_eq!(files.lock().lines().filter(of_v1).count(), 1, "{}", files.lock());
    let another = "events.lock:4: `order.paid.v1.json` is read as another event than before; correct the steps from it. If it is \
                   meant, raise the `VERSION` of projections and the `fold` of aggregates that read it, and delete this line";
    files.check_refused(&files.empty().events::<InDollars>(), &[another]);
    files.check_refused(&files.empty().events::<Dropped>(), &[another]);

    files.put("corpus/order.paid.v3.json", r#"{"cents": 5}"#);
    let read_as_nothing = files.lock().replace("\torder.paid.v2\n", "\n");
    files.check_allowed(
        &files.empty().events::<Raised>(),
        &[
            "events.lock:4: `order.paid.v1.json` is read as another version",
            "events.lock:5: `order.paid.v2.json` is of a version that is not written any more",
            "events.lock: `order.paid.v3.json` is new",
            "events.lock: what `order.paid.v2.json` is read as is new",
        ],
    );
    files.put("events.lock", &read_as_nothing);
    files.check_refused(&files.empty().events::<Raised>(), &[another]);
}

#[test]
fn every_type_that_writes_an_event_is_compared() {
    let files = Files::locked();
    files.check_refused(
        &files.first().events::<Careless>(),
        &[
            "events.lock: `$.cents` of `order.paid.v1.json` is number, which is new; raise the version of Careless::Paid \
             (`order.paid`) to 2, and add an upcast from version 1: a type in `upcast(..)`, or a step on JSON",
            "events.lock: `$.pieces` of `order.placed.v1.json` is integer, which is new; raise the version of Careless::Placed \
             (`order.placed`) to 2, and add an upcast from version 1: a type in `upcast(..)`, or a step on JSON",
        ],
    );
}

/// Snapshots are taken in between, too.
#[test]
fn the_states_before_the_last_count() {
    #[derive(Aggregate, Serialize, Default, Clone)]
    #[aggregate(name = "order", id = String, event = OrderEvent)]
    struct SameEnd {
        paid: i64,
    }

    impl Evolve for SameEnd {
        fn evolve(&mut self, event: &OrderEvent) {
            match (self.paid, event) {
                (0, OrderEvent::Paid { cents: 7, .. }) => self.paid = 100,
                (100, OrderEvent::Paid { cents: 6, .. }) => self.paid = 13,
                (_, OrderEvent::Paid { cents, .. }) => self.paid += cents,
                _ => {}
            }
        }
    }

    let files = Files::new();
    files.put(
        "corpus/paid-twice.history.json",
        r#"[{"name": "order.paid", "version": 1, "payload": {"cents": 7}}, {"name": "order.paid", "version": 1, "payload": {"cents": 6}}]"#,
    );
    files.first().compare(true).unwrap();
    files.check_refused(
        &files.empty().aggregate::<SameEnd>(),
        &["events.lock:4: the state of `order` after `paid-twice.history.json` is another one, but its fold is still 1; raise it: \
           `fold = 2`"],
    );
}

#[test]
fn every_element_of_an_array_is_compared() {
    #[derive(Event, Serialize, Deserialize, Clone)]
    #[event(name = "order.noted")]
    struct Noted {
        notes: Vec<serde_json::Value>,
    }

    let files = Files(tempfile::tempdir().unwrap());
    fs::create_dir(files.path("corpus")).unwrap();
    files.put("corpus/order.noted.v1.json", r#"{"notes": [1, "a", {"by": null}]}"#);
    files.empty().events::<Noted>().compare(true).unwrap();
    let lock = files.lock();
    for line in ["$.notes[]\tinteger", "$.notes[]\tstring", "$.notes[]\tobject", "$.notes[].by\tnull"] {
        assert!(lock.contains(&format!("shape\torder.noted.v1.json\t{line}\n")), "{line}: {lock}");
    }
}
