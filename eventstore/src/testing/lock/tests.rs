use std::fs;
use std::path::Path;

use annals_macros::{Aggregate, Event};
use serde::{Deserialize, Serialize};

use super::SchemaLock;
use crate::aggregate::Evolve;
use crate::upcast::JsonUpcaster;

mod compared;

#[derive(Serialize, Deserialize, Clone)]
struct PlacedV1 {
    item: String,
}

/// The first build.
#[derive(Event, Serialize, Deserialize, Clone)]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed { item: String },
    #[event(name = "order.paid")]
    Paid { cents: i64, note: Option<String> },
}

#[derive(Aggregate, Serialize, Default, Clone)]
#[aggregate(name = "order", id = String, event = OrderEvent)]
struct Order {
    paid: i64,
}

impl Evolve for Order {
    fn evolve(&mut self, event: &OrderEvent) {
        if let OrderEvent::Paid { cents, .. } = event {
            self.paid += cents;
        }
    }
}

/// The shape of an event changed, and its version did not.
#[derive(Event, Serialize, Deserialize, Clone)]
enum Careless {
    #[event(name = "order.placed")]
    Placed {
        item: String,
        #[serde(default)]
        pieces: u32,
    },
    #[event(name = "order.paid")]
    Paid { cents: f64, note: Option<String> },
}

/// The same with a new version and a step.
#[derive(Event, Serialize, Deserialize, Clone)]
enum Careful {
    #[event(name = "order.placed", version = 2, upcast(PlacedV1))]
    Placed { item: String, pieces: u32 },
    #[event(name = "order.paid")]
    Paid { cents: i64, note: Option<String> },
}

impl From<PlacedV1> for Careful {
    fn from(old: PlacedV1) -> Self {
        Self::Placed { item: old.item, pieces: 1 }
    }
}

/// An event type was left out.
#[derive(Event, Serialize, Deserialize, Clone)]
enum Forgetful {
    #[event(name = "order.paid", version = 2)]
    Paid { cents: i64 },
}

/// The old payload does not fit any more.
#[derive(Event, Serialize, Deserialize, Clone)]
#[event(upcasters = DROPPED)]
enum Strict {
    #[event(name = "order.paid")]
    Paid { cents: i64, currency: String, note: Option<String> },
}

const DROPPED: &[JsonUpcaster] = &[JsonUpcaster::drop(("order.placed", 1))];

macro_rules! order {
    ($rust:ident, $fold:literal, $start:literal) => {
        #[derive(Aggregate, Serialize, Default, Clone)]
        #[aggregate(name = "order", id = String, event = OrderEvent, fold = $fold)]
        struct $rust {
            paid: i64,
        }

        impl Evolve for $rust {
            fn evolve(&mut self, event: &OrderEvent) {
                match event {
                    OrderEvent::Placed { .. } => self.paid = $start,
                    OrderEvent::Paid { cents, .. } => self.paid += cents,
                }
            }
        }
    };
}

order!(OtherFold, 1, 5);
order!(RaisedFold, 2, 5);

macro_rules! order_of_another_shape {
    ($rust:ident, $fold:literal) => {
        #[derive(Aggregate, Serialize, Default, Clone)]
        #[aggregate(name = "order", id = String, event = OrderEvent, fold = $fold)]
        struct $rust {
            paid: Option<f64>,
            items: Vec<String>,
        }

        impl Evolve for $rust {
            fn evolve(&mut self, event: &OrderEvent) {
                match event {
                    OrderEvent::Placed { item } => self.items.extend((!item.is_empty()).then(|| item.clone())),
                    OrderEvent::Paid { .. } => self.paid = Some(0.5),
                }
            }
        }
    };
}

order_of_another_shape!(OtherShape, 1);
order_of_another_shape!(RaisedShape, 2);

struct Files(tempfile::TempDir);

impl Files {
    /// The first build with its corpus, and without a lock.
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        fs::create_dir(files.path("corpus")).unwrap();
        files.put("corpus/order.placed.v1.json", r#"{"item": "cup"}"#);
        files.put("corpus/order.paid.v1.json", r#"{"cents": 5, "note": null}"#);
        files.put(
            "corpus/paid-twice.history.json",
            r#"[{"name": "order.paid", "version": 1, "payload": {"cents": 5}}, {"name": "order.paid", "version": 1, "payload": {"cents": 6}}]"#,
        );
        files
    }

    /// The same with its lock.
    fn locked() -> Self {
        let files = Self::new();
        files.first().compare(true).unwrap();
        files.first().compare(false).unwrap();
        files
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn lock(&self) -> String {
        fs::read_to_string(self.path("events.lock")).unwrap()
    }

    fn empty(&self) -> SchemaLock {
        SchemaLock::new(self.path("events.lock"), self.path("corpus"))
    }

    fn first(&self) -> SchemaLock {
        self.empty().aggregate::<Order>()
    }

    /// The problems, which an update does not take away; nor does it write anything.
    fn check_refused(&self, lock: &SchemaLock, expected: &[&str]) {
        let before = fs::read_to_string(self.path("events.lock")).ok();
        for update in [false, true] {
            assert_eq!(problems(lock, update, self.0.path()), expected);
        }
        assert_eq!(fs::read_to_string(self.path("events.lock")).ok(), before);
    }

    /// What is new, which an update writes.
    fn check_allowed(&self, lock: &SchemaLock, expected: &[&str]) {
        let found = problems(lock, false, self.0.path());
        let end =
            "events.lock: is not what it should be, but nothing in it is lost; run the test with ANNALS_UPDATE_LOCK=1";
        assert_eq!(found, [expected, &[end]].concat());
        lock.compare(true).unwrap();
        lock.compare(false).unwrap();
    }
}

fn problems(lock: &SchemaLock, update: bool, folder: &Path) -> Vec<String> {
    let folder = format!("{}/", folder.display());
    lock.compare(update).unwrap_err().iter().map(|problem| problem.replace(&folder, "")).collect()
}

#[test]
fn a_new_lock_has_a_line_per_file_path_and_state() {
    let lock = Files::locked().lock();
    let lines: Vec<String> = lock.lines().skip(1).map(|line| line.replace('\t', " ")).collect();
    let without_digest = |line: &String| match line.rsplit_once(' ') {
        Some((line, digest)) if digest.len() == 32 => line.to_owned(),
        _ => line.clone(),
    };
    assert_eq!(
        lines.iter().map(without_digest).collect::<Vec<_>>(),
        [
            "fold order 1 order.paid.v1.json",
            "fold order 1 order.placed.v1.json",
            "fold order 1 paid-twice.history.json",
            "payload order.paid.v1.json",
            "payload order.placed.v1.json",
            "payload paid-twice.history.json",
            "shape order.paid.v1.json $ object",
            "shape order.paid.v1.json $.cents integer",
            "shape order.paid.v1.json $.note null",
            "shape order.placed.v1.json $ object",
            "shape order.placed.v1.json $.item string",
            "state order 1 $ object",
            "state order 1 $.paid integer",
        ]
    );
}

#[test]
fn a_missing_lock_is_an_error_and_never_made_in_silence() {
    let files = Files::new();
    let found = problems(&files.first(), false, files.0.path());
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("events.lock: cannot be read (")
            && found[0].ends_with("run the test with ANNALS_UPDATE_LOCK=1")
    );
}

#[test]
fn a_shape_that_changed_without_a_new_version_is_refused() {
    let files = Files::new();
    files.empty().events::<OrderEvent>().compare(true).unwrap();
    files.check_refused(
        &files.empty().events::<Careless>(),
        &[
            "events.lock:6: `$.cents` of `order.paid.v1.json` was integer, and is number; raise the version of Careless::Paid \
             (`order.paid`) to 2, and add an upcast from version 1: a type in `upcast(..)`, or a step on JSON",
            "events.lock: `$.pieces` of `order.placed.v1.json` is integer, which is new; raise the version of Careless::Placed \
             (`order.placed`) to 2, and add an upcast from version 1: a type in `upcast(..)`, or a step on JSON",
        ],
    );
}

#[test]
fn a_raised_version_needs_an_example_and_is_then_only_new() {
    let files = Files::locked();
    let careful = files.empty().events::<Careful>();
    files.check_refused(
        &careful,
        &[
            "corpus/order.placed.v2.json: is missing; put a payload of `order.placed` version 2 (Careful::Placed) there, for example \
             {\"item\": \"cup\", \"pieces\": 1}",
        ],
    );
    files.put("corpus/order.placed.v2.json", r#"{"item": "pot", "pieces": 2}"#);
    files.check_refused(
        &careful,
        &["events.lock:2: the aggregate `order` is not compared any more; put it back into the list, or delete its lines if it is \
           gone for good"],
    );
    let of_aggregate = |line: &&str| line.starts_with("fold") || line.starts_with("state");
    let lock: String = files.lock().split_inclusive('\n').filter(|line| !of_aggregate(line)).collect();
    files.put("events.lock", &lock);
    files.check_allowed(
        &careful,
        &[
            "events.lock:8: `order.placed.v1.json` is of a version that is not written any more",
            "events.lock: `order.placed.v2.json` is new",
            "events.lock: what `order.placed.v1.json` is read as is new",
        ],
    );
    assert!(files.lock().contains("shape\torder.placed.v2.json\t$.pieces\tinteger\n"));
    assert!(!files.lock().contains("shape\torder.placed.v1.json"));
}

#[test]
fn another_state_needs_another_fold() {
    let files = Files::locked();
    let other = "the state of `order` after `order.placed.v1.json` is another one, but its fold is still 1; raise it: `fold = 2`";
    files.check_refused(&files.empty().aggregate::<OtherFold>(), &[&format!("events.lock:3: {other}")]);
    files.check_allowed(&files.empty().aggregate::<RaisedFold>(), &["events.lock:2: `order` has fold 2 now"]);
    let fell = "events.lock:2: `order` has fold 1, but had 2; a fold's number only rises";
    files.check_refused(&files.first(), &[fell]);
}

#[test]
fn a_state_of_another_shape_is_refused_path_by_path_and_with_a_raised_fold_only_new() {
    let files = Files::locked();
    let raise = "but its fold is still 1; raise it: `fold = 2`";
    files.check_refused(
        &files.empty().aggregate::<OtherShape>(),
        &[
            &format!(
                "events.lock:2: the state of `order` after `order.paid.v1.json` and 2 more files is another one, {raise}"
            ),
            &format!("events.lock:14: `$.paid` in the state of `order` was integer, and is null or number, {raise}"),
            &format!("events.lock: `$.items` in the state of `order` is array, which is new, {raise}"),
            &format!("events.lock: `$.items[]` in the state of `order` is string, which is new, {raise}"),
        ],
    );
    files.check_allowed(&files.empty().aggregate::<RaisedShape>(), &["events.lock:2: `order` has fold 2 now"]);
    assert!(files.lock().contains("state\torder\t2\t$.items[]\tstring\n") && !files.lock().contains("state\torder\t1"));
}

#[test]
fn what_a_new_example_adds_to_the_states_is_only_new() {
    let files = Files::new();
    fs::remove_file(files.path("corpus/paid-twice.history.json")).unwrap();
    files.put("corpus/order.placed.v1.json", r#"{"item": ""}"#);
    let lock = files.empty().aggregate::<OtherShape>();
    lock.compare(true).unwrap();
    assert!(!files.lock().contains("$.items[]"));
    files.put("corpus/order.placed.v1.named.json", r#"{"item": "pot"}"#);
    files.check_allowed(
        &lock,
        &[
            "events.lock: the state of `order` (fold 1) after `order.placed.v1.named.json` is new",
            "events.lock: `order.placed.v1.named.json` is new",
        ],
    );
    assert!(files.lock().contains("state\torder\t1\t$.items[]\tstring\n"));
}

#[test]
fn a_lock_without_the_paths_of_states_is_completed_and_its_digests_still_hold() {
    let files = Files::locked();
    let lock: String = files.lock().split_inclusive('\n').filter(|line| !line.starts_with("state")).collect();
    files.put("events.lock", &lock);
    files.check_refused(
        &files.empty().aggregate::<OtherFold>(),
        &["events.lock:3: the state of `order` after `order.placed.v1.json` is another one, but its fold is still 1; raise it: \
           `fold = 2`"],
    );
    files.check_allowed(&files.first(), &["events.lock: the paths in the state of `order` (fold 1) are new"]);
    assert!(files.lock().contains("state\torder\t1\t$.paid\tinteger\n"));
}

#[test]
fn stored_payloads_never_change_and_stay_readable() {
    let files = Files::locked();
    files.check_refused(
        &files.empty().events::<Forgetful>(),
        &[
            "corpus/order.paid.v1.json: `order.paid` version 1 is read by none of the types; stores hold such events, so add a step \
             from it to its type, or the type to the list",
            "corpus/order.paid.v2.json: is missing; put a payload of `order.paid` version 2 (Forgetful::Paid) there",
            "corpus/order.placed.v1.json: `order.placed` version 1 is read by none of the types; stores hold such events, so add a \
             step from it to its type, or the type to the list",
            "corpus/paid-twice.history.json: `order.paid` version 1 is read by none of the types; stores hold such events, so add a \
             step from it to its type, or the type to the list",
        ],
    );
    let strict = problems(&files.empty().events::<Strict>(), true, files.0.path());
    assert_eq!(
        strict[0],
        "corpus/order.paid.v1.json: `order.paid` version 1 cannot be read any more: the payload does not fit: missing field \
         `currency` at line 1 column 26; stores hold such payloads: if the change is meant, raise the version of Strict::Paid \
         (`order.paid`) to 2, and add an upcast from version 1: a type in `upcast(..)`, or a step on JSON; otherwise correct the \
         type"
    );
    // White space is not content; a value is.
    files.put("corpus/order.placed.v1.json", r#"{ "item":  "cup" }"#);
    files.first().compare(false).unwrap();
    files.put("corpus/order.placed.v1.json", r#"{"item": "pot"}"#);
    files.check_refused(
        &files.first(),
        &[
            "events.lock:6: `order.placed.v1.json` is not the payload that was locked; take both from version control again: what was \
             stored never changes, and another example is another file",
        ],
    );
    fs::remove_file(files.path("corpus/paid-twice.history.json")).unwrap();
    let found = problems(&files.first(), true, files.0.path());
    assert!(found.contains(&"events.lock:7: `paid-twice.history.json` is missing from the corpus; put it back: stores hold such events".to_owned()), "{found:?}");
}

#[test]
fn a_new_example_is_only_new() {
    let files = Files::locked();
    files.put("corpus/order.paid.v1.with-note.json", r#"{"cents": 5, "note": "thanks"}"#);
    files.check_allowed(
        &files.first(),
        &[
            "events.lock: the state of `order` (fold 1) after `order.paid.v1.with-note.json` is new",
            "events.lock: `order.paid.v1.with-note.json` is new",
        ],
    );
}

#[test]
fn a_lock_that_was_badly_merged_or_edited_says_what_to_do() {
    let files = Files::locked();
    let lock = files.lock();
    let (header, lines) = lock.split_once('\n').unwrap();
    files.put("events.lock", &format!("{header}\n<<<<<<< ours\n{lines}=======\n>>>>>>> theirs\nshape order.paid\n"));
    let marker =
        |line| format!("events.lock:{line}: a merge conflict; keep the lines of both sides and remove the marker");
    let edited =
        "events.lock:18: annals does not write such a line; take the file from version control again".to_owned();
    let expected = [marker(2), marker(16), marker(17), edited];
    files.check_refused(&files.first(), &expected.each_ref().map(String::as_str));

    // Both sides kept, in another order and some of them twice.
    let mut kept: Vec<&str> = lines.lines().rev().collect();
    kept.push(kept[0]);
    files.put("events.lock", &format!("{header}\n{}\n", kept.join("\n")));
    files.check_allowed(&files.first(), &[]);
    assert_eq!(files.lock(), lock);

    files.put("events.lock", &lock.replace("$.cents\tinteger", "$.cents\tstring"));
    files.check_refused(
        &files.first(),
        &[
            "events.lock:9: `$.cents` of `order.paid.v1.json` was string, and is integer; raise the version of OrderEvent::Paid \
             (`order.paid`) to 2, and add an upcast from version 1: a type in `upcast(..)`, or a step on JSON",
        ],
    );
}

#[test]
fn files_that_are_no_part_of_a_corpus_are_named() {
    let files = Files::new();
    files.put("corpus/notes.txt", "");
    files.put("corpus/order.paid.v0.json", "{}");
    files.put("corpus/order.paid.v1.b.json", "{");
    files.put("corpus/x.history.json", "[{}]");
    let found = problems(&files.first(), true, files.0.path());
    let named = "is not named like `order.placed.v1.json`, `order.placed.v1.another.json` or `any-words.history.json`; rename it";
    assert_eq!(found[0], format!("corpus/notes.txt: {named}"));
    assert_eq!(found[1], format!("corpus/order.paid.v0.json: {named}"));
    assert!(
        found[2].starts_with("corpus/order.paid.v1.b.json: ")
            && found[3].starts_with("corpus/x.history.json: missing field")
    );
}

/// As git writes it on Windows: each checkout failed, and an update helped until the next.
#[test]
fn the_ends_of_lines_do_not_count() {
    let files = Files::locked();
    files.put("events.lock", &files.lock().replace('\n', "\r\n"));
    files.first().compare(false).unwrap();
}
