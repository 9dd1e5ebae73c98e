//! Rows go in and come out, and move with their checkpoint.

use annals_eventstore::{Checkpoint, EventId, Incarnation, Position};
use fastrand::Rng;
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    Backend, EVERYTHING, LookUp, MODEL, checkpoint, incarnation, key, place, prepare, row, unit, unowned, work,
};
use crate::changes::{FIRST_MOMENT, check_length, compare};
use crate::column::{ColumnType, ColumnValue};
use crate::database::{Model, Moved, Place, Work};
use crate::read_model::{ColumnSpec, IndexSpec, TableSpec};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

pub(super) async fn every_type_comes_back_as_it_was_written(backend: &dyn Backend) {
    let models = backend.handle();
    assert_eq!(prepare(backend, &MODEL).await.unwrap().places[0].checkpoint, Checkpoint::start(incarnation()));
    let nulls = {
        let mut columns = key("null", i64::MIN);
        columns.resize(8, ColumnValue::Null);
        columns
    };
    let whole = row("a", 1, 3.0);
    let first = work(0, 5, vec![whole.clone(), nulls.clone()], vec![]);
    assert_eq!(models.commit(&[&first], NOW).await.unwrap(), [Moved::Done]);
    let mut loaded = models.rows(&MODEL, &[key("a", 1), key("null", i64::MIN), key("a", 2)]).await.unwrap();
    loaded.sort_by_key(|row| row[0].to_string());
    assert_eq!(loaded, [whole, nulls]);
    assert_eq!(models.checkpoint(&MODEL).await.unwrap(), Some(checkpoint(5)));
}

pub(super) async fn the_extremes_of_every_type_come_back(backend: &dyn Backend) {
    let models = backend.handle();
    prepare(backend, &MODEL).await.unwrap();
    let micros = |micros| crate::column_types::moment(micros).unwrap();
    let longest = "ü".repeat(1_000);
    let mut rows = Vec::new();
    for (n, text) in
        ["", " ", "'\"\\%_;--", "\u{1}\u{7f}\u{10ffff}", "أهلا ☂ \u{202e}x", &longest].into_iter().enumerate()
    {
        let mut row = row(text, n as i64, 0.0);
        row[7] = ColumnValue::Json(serde_json::to_string(&[text]).unwrap().into());
        rows.push(row);
    }
    for (n, share) in [f64::MIN, f64::MAX, f64::MIN_POSITIVE, 5e-324, f64::INFINITY, f64::NEG_INFINITY, 0.1 + 0.2]
        .into_iter()
        .enumerate()
    {
        rows.push(row("share", n as i64, share));
    }
    for group in [i64::MIN, i64::MAX, 0, -1] {
        rows.push(row("group", group, 1.0));
    }
    // The first moment of PostgreSQL's times, and the last of ours.
    let last = Timestamp::MAX.as_microsecond();
    for (n, at) in [FIRST_MOMENT, last, 0, -1, 946_684_800_000_000].into_iter().enumerate() {
        let mut row = row("at", n as i64, 1.0);
        row[4] = ColumnValue::Timestamp(micros(at));
        row[3] = ColumnValue::Bool(false);
        rows.push(row);
    }
    for (n, id) in [Uuid::nil(), Uuid::max()].into_iter().enumerate() {
        let mut row = row("id", n as i64, 1.0);
        row[5] = ColumnValue::Uuid(id);
        rows.push(row);
    }
    for (n, raw) in [vec![], (0..=255).collect::<Vec<u8>>(), vec![0; 100_000]].into_iter().enumerate() {
        let mut row = row("raw", n as i64, 1.0);
        row[6] = ColumnValue::Bytes(raw.into());
        rows.push(row);
    }
    for (n, doc) in ["null", "\"\"", "{}", "[]", "9007199254740993", "-1", "true"].into_iter().enumerate() {
        let mut row = row("doc", n as i64, 1.0);
        row[7] = ColumnValue::Json(doc.into());
        rows.push(row);
    }
    let keys: Vec<_> = rows.iter().map(|row| row[..2].to_vec()).collect();
    models.commit(&[&work(0, 1, rows.clone(), vec![])], NOW).await.unwrap();
    let loaded = models.rows(&MODEL, &keys).await.unwrap();
    assert_eq!(loaded.len(), rows.len());
    for row in &rows {
        let found: Vec<_> = loaded.iter().filter(|found| found[..2] == row[..2]).collect();
        assert_eq!(found, [row]);
    }
    models.commit(&[&work(1, 2, vec![], keys.clone())], NOW).await.unwrap();
    assert!(models.rows(&MODEL, &keys).await.unwrap().is_empty(), "each is found by its key to be removed");
}

/// A JSON text with all that databases write in ways of their own.
pub(crate) fn random_json(rng: &mut Rng, depth: usize) -> String {
    let sign = |rng: &mut Rng| if rng.bool() { "-" } else { "" };
    match rng.u32(..if depth == 0 { 6 } else { 8 }) {
        0 => ["null", "true", "false"][rng.usize(..3)].to_owned(),
        1 => format!("{}{}", sign(rng), rng.u64(..)),
        2 => serde_json::to_string(&f64::from_bits(rng.u64(..))).unwrap(),
        3 => format!("{}{}.{:03}", sign(rng), rng.u8(..3), rng.u16(..1_000)),
        4 => format!("{}{}.{}e{}", sign(rng), rng.u8(..10), rng.u16(..100), rng.i32(-40..40)),
        5 => {
            let text: String = (0..rng.usize(..5))
                .map(|_| ['a', '"', '\\', 'ü', '\n', '\u{1f}', '\u{7f}', '/'][rng.usize(..8)])
                .collect();
            serde_json::to_string(&text).unwrap()
        }
        6 => {
            let elements: Vec<String> = (0..rng.usize(..4)).map(|_| random_json(rng, depth - 1)).collect();
            format!("[{}]", elements.join(if rng.bool() { "," } else { " , " }))
        }
        _ => {
            let mut keys: Vec<String> =
                (0..rng.usize(..5)).map(|_| ["a", "b", "ab", "zz", "é", "\\n"][rng.usize(..6)].to_owned()).collect();
            keys.sort();
            keys.dedup();
            rng.shuffle(&mut keys);
            let fields: Vec<String> =
                keys.iter().map(|key| format!("\"{key}\":{}", random_json(rng, depth - 1))).collect();
            format!("{{{}}}", fields.join(","))
        }
    }
}

pub(super) async fn random_values_come_back_in_their_normal_form(backend: &dyn Backend) {
    let seed = std::env::var("ANNALS_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().expect("a number"));
    println!("ANNALS_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let models = backend.handle();
    prepare(backend, &MODEL).await.unwrap();
    let mut rows: Vec<Vec<ColumnValue>> = (0..300)
        .map(|n| {
            let mut row = row("random", n, 0.0);
            let share = f64::from_bits(rng.u64(..));
            row[2] = ColumnValue::Real(if share.is_nan() { -0.0 } else { share });
            let second = rng.i64(-200_000_000_000..200_000_000_000);
            row[4] = ColumnValue::Timestamp(Timestamp::new(second, rng.i32(-999_999_999..999_999_999)).unwrap());
            // As a fold gives it: a file keeps the text as it is.
            row[7] = ColumnValue::Json(random_json(&mut rng, 3).into()).normal();
            row
        })
        .collect();
    let keys: Vec<_> = rows.iter().map(|row| row[..2].to_vec()).collect();
    models.commit(&[&work(0, 1, rows.clone(), vec![])], NOW).await.unwrap();
    let mut loaded = models.rows(&MODEL, &keys).await.unwrap();
    loaded.sort_by(|a, b| compare(&a[1], &b[1]));
    for (row, loaded) in rows.iter_mut().zip(&loaded) {
        for value in row.iter_mut() {
            *value = value.clone().normal();
        }
        assert_eq!(row, loaded);
    }
}

pub(super) async fn any_number_of_rows_is_written_loaded_and_removed_exactly(backend: &dyn Backend) {
    let models = backend.handle();
    prepare(backend, &MODEL).await.unwrap();
    let mut position = 0;
    for rows in [1_i64, 2, 3, 7, 64, 255, 256, 257, 700] {
        let name = format!("of {rows}");
        let written: Vec<_> = (0..rows).map(|n| row(&name, n, n as f64)).collect();
        let keys: Vec<_> = (0..rows).map(|n| key(&name, n)).collect();
        let commit = work(position, position + 1, written, vec![]);
        assert_eq!(models.commit(&[&commit], NOW).await.unwrap(), [Moved::Done]);
        assert_eq!(models.rows(&MODEL, &keys).await.unwrap().len(), rows as usize, "{rows} rows");
        let commit = work(position + 1, position + 2, vec![], keys[1..].to_vec());
        models.commit(&[&commit], NOW).await.unwrap();
        position += 2;
        let left = models.rows(&MODEL, &keys).await.unwrap();
        assert_eq!(left, [row(&name, 0, 0.0)], "all but the first of {rows} rows are removed");
    }
}

pub(super) async fn rows_are_removed_by_what_their_keys_begin_with_before_others_are_written(backend: &dyn Backend) {
    let models = backend.handle();
    prepare(backend, &MODEL).await.unwrap();
    let names: Vec<String> = (0..300).map(|n| format!("n{n}")).chain(["".into(), "n".into()]).collect();
    let keys: Vec<_> = names.iter().flat_map(|name| [key(name, 1), key(name, 2)]).collect();
    let rows = names.iter().flat_map(|name| [row(name, 1, 1.0), row(name, 2, 1.0)]).collect();
    models.commit(&[&work(0, 1, rows, vec![])], NOW).await.unwrap();
    let removing = |from, to, names: &[&str], written| {
        let removed_prefixes = names.iter().map(|name| key(name, 0)[..1].to_vec()).collect();
        let mut work = work(from, to, written, vec![key("n7", 1)]);
        work.changes.removed_prefixes = removed_prefixes;
        work
    };
    let stale = removing(7, 8, &["n1"], vec![]);
    assert_eq!(models.commit(&[&stale], NOW).await.unwrap(), [Moved::Overtaken]);
    assert_eq!(models.rows(&MODEL, &keys).await.unwrap().len(), 604, "nothing is removed where others were faster");
    let commit = removing(1, 2, &["", "n1"], vec![row("n1", 2, 2.0)]);
    models.commit(&[&commit], NOW).await.unwrap();
    let mut left = models.rows(&MODEL, &keys).await.unwrap();
    left.sort_by_key(|row| row[0].to_string());
    assert_eq!(left.len(), 604 - 1 - 4 + 1);
    assert_eq!(left.iter().filter(|left| **left == row("n1", 2, 2.0)).count(), 1, "what is written again is there");
    let names: Vec<&str> = names.iter().map(String::as_str).filter(|name| *name != "n9").collect();
    models.commit(&[&removing(2, 3, &names, vec![])], NOW).await.unwrap();
    assert_eq!(models.rows(&MODEL, &keys).await.unwrap().len(), 2, "those of one other name");
}

pub(super) async fn a_row_written_again_replaces_the_first(backend: &dyn Backend) {
    let models = backend.handle();
    prepare(backend, &MODEL).await.unwrap();
    models.commit(&[&work(0, 1, vec![row("a", 1, 1.0)], vec![])], NOW).await.unwrap();
    models.commit(&[&work(1, 2, vec![row("a", 1, 2.0)], vec![])], NOW).await.unwrap();
    assert_eq!(models.rows(&MODEL, &[key("a", 1)]).await.unwrap(), [row("a", 1, 2.0)]);
}

pub(super) async fn a_table_of_keys_alone_is_written_and_removed(backend: &dyn Backend) {
    const KEYS: Model = Model {
        projection: "keys",
        version: 1,
        table: &TableSpec {
            name: "keys",
            columns: &[ColumnSpec { name: "id", column_type: ColumnType::Integer, nullable: false }],
            key: &["id"],
            indexes: &[],
            per_tenant: false,
        },
    };
    let models = backend.handle();
    prepare(backend, &KEYS).await.unwrap();
    let keys: Vec<_> = (0..3).map(|n| vec![ColumnValue::Integer(n)]).collect();
    for to in 1..3 {
        let commit = Work { model: KEYS, ..work(to - 1, to, keys.clone(), vec![]) };
        models.commit(&[&commit], NOW).await.unwrap();
    }
    assert_eq!(models.rows(&KEYS, &keys).await.unwrap().len(), 3);
    let commit = Work { model: KEYS, ..work(2, 3, vec![], keys[..2].to_vec()) };
    models.commit(&[&commit], NOW).await.unwrap();
    assert_eq!(models.rows(&KEYS, &keys).await.unwrap(), keys[2..]);
}

pub(super) async fn rows_larger_than_a_message_should_be_are_written(backend: &dyn Backend) {
    let models = backend.handle();
    prepare(backend, &MODEL).await.unwrap();
    let large = |n: i64| {
        let mut row = row("large", n, 0.0);
        row[6] = ColumnValue::Bytes(vec![n as u8; 5 << 20].into());
        row
    };
    let rows: Vec<_> = (0..4).map(large).collect();
    let commit = work(0, 1, rows.clone(), vec![]);
    assert_eq!(models.commit(&[&commit], NOW).await.unwrap(), [Moved::Done]);
    let stale = work(0, 2, rows.clone(), vec![]);
    assert_eq!(models.commit(&[&stale], NOW).await.unwrap(), [Moved::Overtaken]);
    for row in &rows {
        let found = models.rows(&MODEL, &[row[..2].to_vec()]).await.unwrap();
        assert!(found == [row.clone()], "row {} is another", row[1]);
    }
}

/// The limit of [`TableSpec::MAX_INDEXED_BYTES`] is one that every database keeps, also of text that cannot be compressed.
pub(super) async fn values_as_long_as_an_index_may_hold_are_written(backend: &dyn Backend) {
    const TEXT: ColumnSpec = ColumnSpec { name: "id", column_type: ColumnType::Text, nullable: false };
    const NAMES: [&str; 30] = [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t", "u", "v",
        "w", "x", "y", "z", "aa", "bb", "cc", "dd",
    ];
    let models = backend.handle();
    let text =
        |len| ColumnValue::Text(std::iter::repeat_with(fastrand::alphanumeric).take(len).collect::<String>().into());
    for (version, names) in (1..).zip([&NAMES[..1], &NAMES[..2], &NAMES[..7], &NAMES[..]]) {
        let columns: Vec<ColumnSpec> = names.iter().map(|name| ColumnSpec { name, ..TEXT }).collect();
        let columns = [vec![TEXT], columns].concat();
        let indexes = vec![IndexSpec { columns: names }].leak();
        let table: &TableSpec = Box::leak(Box::new(TableSpec {
            name: "long",
            columns: columns.leak(),
            key: &["id"],
            indexes,
            per_tenant: false,
        }));
        let model = Model { projection: "long", version, table };
        prepare(backend, &model).await.unwrap();
        let most = TableSpec::MAX_INDEXED_BYTES - 8 * (names.len() - 1);
        // The last column takes what the others leave.
        let each = most / names.len();
        let mut row = vec![text(TableSpec::MAX_INDEXED_BYTES)];
        row.extend((1..names.len()).map(|_| text(each)));
        row.push(text(most - each * (names.len() - 1)));
        let values = || names.iter().copied().zip(&row[1..]);
        assert_eq!(check_length("index", values()), Ok(()), "{} columns", names.len());
        let longer = ColumnValue::Text("x".repeat(each + most % names.len() + 1).into());
        assert!(check_length("index", values().take(names.len() - 1).chain([("last", &longer)])).is_err());
        let commit = Work { model, ..work(0, 1, vec![row.clone()], vec![]) };
        assert_eq!(models.commit(&[&commit], NOW).await.unwrap(), [Moved::Done], "{} columns", names.len());
    }
}

const OTHER: Model = Model { projection: "other", version: 1, table: &TableSpec { name: "other", ..EVERYTHING } };

pub(super) async fn a_part_whose_checkpoint_stands_elsewhere_writes_nothing_and_the_others_do(backend: &dyn Backend) {
    let models = backend.handle();
    prepare(backend, &MODEL).await.unwrap();
    prepare(backend, &OTHER).await.unwrap();
    // With removals and without, as a database may do them in different ways.
    for (to, removed) in [(9, vec![]), (10, vec![key("c", 1)])] {
        let stale = work(7, to, vec![row("a", 1, 1.0)], removed.clone());
        let from = if to == 9 { 0 } else { 9 };
        let fresh = Work { model: OTHER, ..work(from, to, vec![row("b", to, 1.0)], removed) };
        let moved = models.commit(&[&stale, &fresh], NOW).await.unwrap();
        assert_eq!(moved, [Moved::Overtaken, Moved::Done]);
        assert!(models.rows(&MODEL, &[key("a", 1)]).await.unwrap().is_empty());
        assert_eq!(models.checkpoint(&MODEL).await.unwrap().unwrap().position, Position::START);
        assert_eq!(models.rows(&OTHER, &[key("b", to)]).await.unwrap().len(), 1);
        assert_eq!(models.checkpoint(&OTHER).await.unwrap(), Some(checkpoint(to)));
    }
}

/// Places that are not `position`, each by one part of it.
fn elsewhere(position: i64) -> [Place; 5] {
    let id = EventId::new(Uuid::from_u128(4_711)).unwrap();
    let is_there = place(position);
    let at = |checkpoint| Place { checkpoint, ..unowned(position) };
    [
        at(Checkpoint { incarnation: Incarnation(Uuid::from_u128(2)), ..is_there }),
        at(Checkpoint { event_id: if position == 0 { Some(id) } else { None }, ..is_there }),
        at(Checkpoint { event_id: Some(id), ..place(position + 1) }),
        Place { slot: 1, ..unowned(position) },
        Place { epoch: 1, ..unowned(position) },
    ]
}

pub(super) async fn rows_are_loaded_only_where_the_checkpoint_stands(backend: &dyn Backend) {
    let models = backend.handle();
    prepare(backend, &MODEL).await.unwrap();
    prepare(backend, &OTHER).await.unwrap();
    for position in [0, 5] {
        if position > 0 {
            models.commit(&[&work(0, position, vec![row("a", 1, 1.0)], vec![])], NOW).await.unwrap();
        }
        for keys in [vec![key("b", 1)], vec![key("a", 1)], (0..600).map(|n| key("a", n)).collect()] {
            let rows = models.load(&MODEL, &unowned(position), &keys, usize::MAX).await.unwrap().expect("it is there");
            assert_eq!(rows.len(), usize::from(position > 0 && keys != [key("b", 1)]));
            for other in elsewhere(position) {
                assert_eq!(models.load(&MODEL, &other, &keys, usize::MAX).await.unwrap(), None, "{other:?}");
            }
        }
        // Nor is anything written there, on any way of a commit.
        for from in elsewhere(position) {
            for removed in [vec![], vec![key("a", 1)]] {
                let stale = Work { from, ..work(0, 9, vec![row("c", 1, 1.0)], removed) };
                assert_eq!(models.commit(&[&stale], NOW).await.unwrap(), [Moved::Overtaken], "{from:?}");
            }
        }
        let stored =
            models.places(&[OTHER, MODEL, Model { version: 9, ..MODEL }].map(|model| unit(&model))).await.unwrap();
        assert_eq!(stored, [Some(unowned(0)), Some(unowned(position)), None]);
    }
}

pub(super) async fn parts_are_answered_in_the_order_in_which_they_came(backend: &dyn Backend) {
    const FIRST: Model = Model { projection: "a_first", version: 1, table: &TableSpec { name: "first", ..EVERYTHING } };
    let models = backend.handle();
    for model in [MODEL, OTHER, FIRST] {
        prepare(backend, &model).await.unwrap();
    }
    let part = |model, from| Work { model, ..work(from, 5, vec![row(model.projection, 1, 1.0)], vec![]) };
    let parts = [part(OTHER, 0), part(MODEL, 3), part(FIRST, 0)];
    let moved = models.commit(&parts.each_ref(), NOW).await.unwrap();
    assert_eq!(moved, [Moved::Done, Moved::Overtaken, Moved::Done]);
    for (model, rows) in [(OTHER, 1), (MODEL, 0), (FIRST, 1)] {
        assert_eq!(models.rows(&model, &[key(model.projection, 1)]).await.unwrap().len(), rows);
    }
}

pub(super) async fn preparing_twice_continues_from_the_stored_checkpoint(backend: &dyn Backend) {
    assert!(prepare(backend, &MODEL).await.unwrap().shown);
    backend.handle().commit(&[&work(0, 4, vec![], vec![])], NOW).await.unwrap();
    let again = prepare(backend, &MODEL).await.unwrap();
    assert_eq!((again.places[0].checkpoint, again.shown), (checkpoint(4), true));
}

pub(super) async fn of_two_that_commit_at_once_one_is_overtaken(backend: &dyn Backend) {
    prepare(backend, &MODEL).await.unwrap();
    let (one, two) = (backend.handle(), backend.handle());
    for from in 0..20 {
        // In turn a small commit, one that removes rows, and both against each other.
        let removed = |by: i64| if (from + by) % 3 == 0 { vec![key("gone", from)] } else { vec![] };
        let (first, second) = (
            work(from, from + 1, vec![row("a", 1, from as f64)], removed(0)),
            work(from, from + 1, vec![row("a", 1, from as f64)], removed(1)),
        );
        let (first, second) = ([&first], [&second]);
        let (first, second) = futures::join!(one.commit(&first, NOW), two.commit(&second, NOW));
        let moved = [first.unwrap(), second.unwrap()].concat();
        assert_eq!(moved.iter().filter(|moved| **moved == Moved::Done).count(), 1, "{moved:?}");
    }
    assert_eq!(one.rows(&MODEL, &[key("a", 1)]).await.unwrap(), [row("a", 1, 19.0)]);
    assert_eq!(two.checkpoint(&MODEL).await.unwrap(), Some(checkpoint(20)));
}
