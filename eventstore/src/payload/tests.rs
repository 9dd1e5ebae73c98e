use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{MAX_DEPTH, Payload, decode_struct, decode_variant, encode_struct, encode_variant};
use crate::append::Append;
use crate::error::{DecodeError, Invalid};
use crate::event::{EventId, NewEvent, RecordedEvent};
use crate::limits::Limits;
use crate::position::Position;
use crate::stream::{ExpectedVersion, StreamId, StreamVersion, Tenant};

/// The number of cases, with a seed that is printed and can be set by `ANNALS_SEED`.
fn cases(cases: u32) -> Config {
    let seed = crate::testing_seed();
    println!("ANNALS_SEED={seed}");
    Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() }
}

fn accepted(text: &str) -> Payload {
    Payload::from_json(text).unwrap_or_else(|e| panic!("`{}` was refused: {e}", &text[..text.len().min(200)]))
}

/// The error for a text that must be refused.
fn refused(text: &str) -> Invalid {
    match Payload::from_json(text) {
        Ok(_) => panic!("`{}` was accepted", &text[..text.len().min(200)]),
        Err(e) => e,
    }
}

#[track_caller]
fn check_refused(text: &str, field: &str, problem: &str) {
    let e = refused(text);
    assert_eq!(e.field, field, "{e}");
    assert!(e.problem.contains(problem), "`{e}` does not contain `{problem}`");
    assert!(!e.fix.is_empty());
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

// ---- the rules of accepted text

#[test]
fn depth_is_accepted_up_to_the_limit_and_refused_above_it_on_any_stack() {
    accepted(&nested(MAX_DEPTH));
    accepted(&format!("{}1{}", r#"{"a":"#.repeat(MAX_DEPTH), "}".repeat(MAX_DEPTH)));
    for depth in [MAX_DEPTH + 1, 128, 100_000] {
        let e = refused(&nested(depth));
        assert_eq!(e.problem, "nests deeper than 64");
        assert_eq!(e.field, format!("payload{}", "[0]".repeat(MAX_DEPTH)));
    }
    check_refused(&"[".repeat(100_000), &format!("payload{}", "[0]".repeat(MAX_DEPTH)), "nests deeper");
    check_refused(&"[".repeat(3), "payload[0][0][0]", "expected a value");
}

#[test]
fn nul_is_refused_in_values_and_keys_however_it_is_written() {
    check_refused(r#"{"lines":[{},{"note":"a\u0000b"}]}"#, "payload.lines[1].note", "U+0000");
    check_refused("{\"lines\":[{},{\"note\":\"a\0b\"}]}", "payload.lines[1].note", "U+0000");
    check_refused(r#"{"a":{"\u0000":1}}"#, "payload.a", "U+0000");
    accepted(r#""\\u0000 is only text""#);
}

#[test]
fn lone_surrogates_are_refused_and_pairs_are_kept() {
    for text in [
        r#"{"a":"\ud800"}"#,
        r#"{"a":"\udc00"}"#,
        r#"{"a":"\ud800\ud800"}"#,
        r#"{"a":"\ud83d\u0041"}"#,
        r#"{"a":"\ud83d"#,
    ] {
        check_refused(text, "payload.a", "lone surrogate");
    }
    let smile: String = accepted(r#""\ud83d\ude00""#).read().unwrap();
    assert_eq!(smile, "\u{1f600}");
    check_refused(r#"{"\ud800":1}"#, "payload", "lone surrogate");
}

#[test]
fn byte_order_mark_and_trailing_text_are_refused() {
    check_refused("\u{feff}{}", "payload", "byte order mark");
    for text in ["{} {}", "{},", "1 2", "null]", "\"a\"x", "{}\u{feff}"] {
        check_refused(text, "payload", "something follows the end");
    }
    check_refused("", "payload", "expected a value");
    check_refused(" ", "payload", "expected a value");
}

#[test]
fn duplicate_keys_are_refused_as_the_same_text_however_written() {
    check_refused(r#"{"a":{"b":1,"c":2,"b":3}}"#, "payload.a.b", "is in the same object twice");
    check_refused(r#"{"a":1,"\u0061":2}"#, "payload.a", "is in the same object twice");
    check_refused(r#"{"two words":1,"two words":2}"#, r#"payload["two words"]"#, "is in the same object twice");
    accepted(r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}"#);
    // Many keys are kept in a set instead of a list; no key is lost on either side of that bound.
    for keys in [15, 16, 17, 18, 40] {
        let fields: Vec<String> = (0..keys).map(|n| format!("\"k{n}\":{{\"k{n}\":1}}")).collect();
        accepted(&format!("{{{}}}", fields.join(",")));
        for again in [0, keys / 2, keys - 1] {
            check_refused(
                &format!("{{{},\"k{again}\":2}}", fields.join(",")),
                &format!("payload.k{again}"),
                "is in the same object twice",
            );
        }
    }
}

#[test]
fn objects_of_very_many_keys_take_no_quadratic_time() {
    let time = |keys: usize| {
        // Most out of order.
        let fields: Vec<String> = (0..keys).map(|n| format!("\"{:06}\":0", (n * 7919) % 1_000_003)).collect();
        let text = format!("{{{}}}", fields.join(","));
        let began = std::time::Instant::now();
        assert_eq!(accepted(&text).as_str().len(), text.len() + 2 * keys - 1);
        began.elapsed()
    };
    // 32 times the keys take about 32 times as long; a comparison of each key with each key, 1,024 times.
    // Other work on the machine may spoil one try and even several, but makes no quadratic time linear.
    let mut tries = (0..30).map(|_| (time(1_000), time(32_000)));
    assert!(tries.any(|(few, many)| many < few * 200), "32,000 keys never took less than 200 times as long as 1,000");
}

#[test]
fn numbers_beyond_f64_are_refused_and_the_rest_kept() {
    let long = "9".repeat(400);
    let small = format!("0.{}1", "0".repeat(20_000));
    for text in
        ["1e400", "-1e400", "1e131071", "1E+309", &long, "1e99999999999999999999", "1e-20000", "0e20000", &small]
    {
        check_refused(&format!(r#"{{"n":[0,{text}]}}"#), "payload.n[1]", "beyond the range of `f64`");
    }
    let largest = format!("{}", f64::MAX);
    for text in [
        "0",
        "-0",
        "-0.0",
        "0.1",
        "5e-324",
        "1e-400",
        "1.7976931348623157e308",
        &largest,
        "9007199254740993",
        "18446744073709551615",
        "-9223372036854775808",
        "170141183460469231731687303715884105727",
        "1E5",
        "1e+5",
        "1e-5",
        "0.30000000000000004",
    ] {
        let (kept, sent): (f64, f64) = (accepted(text).read().unwrap(), text.parse().unwrap());
        assert_eq!(kept, sent, "{text}");
    }
}

/// What PostgreSQL returns for each of these is tested by `eventstore/tests/it/postgres/values.rs`.
#[test]
fn a_value_has_one_text_which_is_that_of_jsonb() {
    for (text, canonical) in [
        ("1e16", "10000000000000000"),
        ("1E+2", "100"),
        ("1.50", "1.50"),
        ("1.5e3", "1500"),
        ("1.50e1", "15.0"),
        ("1.5e-3", "0.0015"),
        ("100e-2", "1.00"),
        ("0.05e1", "0.5"),
        ("0.5e1", "5"),
        ("1e-7", "0.0000001"),
        ("-1.25e1", "-12.5"),
        ("-0", "0"),
        ("-0.0", "0.0"),
        ("-0e5", "0"),
        ("0e-3", "0.000"),
        ("0.00e1", "0.0"),
        ("1e0", "1"),
        ("9007199254740993", "9007199254740993"),
        (r#""\u0061\/\b\u0001\u001F\"\\\ud83d\ude00""#, "\"a/\\b\\u0001\\u001f\\\"\\\\\u{1f600}\""),
        (r#"{"zip":1,"b":2,"a":3,"":4}"#, r#"{"": 4, "a": 3, "b": 2, "zip": 1}"#),
        (
            r#"{"\u0062":{"bb":[1,{"d":null,"c":true}],"a":{}},"a":[]}"#,
            r#"{"a": [], "b": {"a": {}, "bb": [1, {"c": true, "d": null}]}}"#,
        ),
        ("{\"\u{e9}\":1,\"zz\":2,\"aaa\":3}", "{\"zz\": 2, \"\u{e9}\": 1, \"aaa\": 3}"),
        ("[ ]", "[]"),
        ("[1,[],{}]", "[1, [], {}]"),
    ] {
        assert_eq!(accepted(text).as_str(), canonical, "{text}");
        assert_eq!(accepted(canonical).as_str(), canonical);
    }
}

#[test]
fn numbers_that_would_become_very_long_are_refused() {
    let e = refused(&format!("[{}1e-16383]", "1e-16383,".repeat(10_000)));
    assert_eq!(e.field, "payload[4092]");
    assert!(e.problem.contains("67108864 bytes"), "{e}");
}

#[test]
fn only_the_grammar_of_rfc_8259_is_accepted() {
    for text in [
        "01",
        "-",
        "-01",
        "+1",
        ".5",
        "1.",
        "1.e5",
        "1e",
        "1e+",
        "0x10",
        "NaN",
        "Infinity",
        "-Infinity",
        "tru",
        "nulll",
        "True",
        "'a'",
        "{a:1}",
        "{'a':1}",
        r#"{"a" 1}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        "{,}",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1",
        r#"{"a":1"#,
        r#"{"a""#,
        "{",
        "}",
        "]",
        "[}",
        "{]",
        "[1}",
        r#"{"a":1]"#,
        "\"",
        r#""\"#,
        r#""\x""#,
        r#""\u12""#,
        r#""\u12g4""#,
        "\"\n\"",
        "\"\u{1f}\"",
        "\u{a0}1",
        "\u{b}1",
        "/* */1",
        "1//",
        "[1]]",
        "\u{0}",
    ] {
        assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "serde_json accepts `{text}`");
        assert!(refused(text).problem.contains("not valid JSON"), "{text}");
    }
}

#[test]
fn white_space_between_tokens_is_of_one_kind_and_inside_strings_stays() {
    let text = " {\n\t\"a b\" : [ 1 , 2 ,\r\n{ } , [ ] ] , \"c\" : \" d \" } ";
    assert_eq!(accepted(text).as_str(), r#"{"c": " d ", "a b": [1, 2, {}, []]}"#);
}

#[test]
fn a_very_long_key_is_shortened_in_the_error() {
    let e = refused(&format!(r#"{{"{}":1e400}}"#, "k".repeat(100_000)));
    assert_eq!(e.field, format!("payload.{}..", "k".repeat(60)));
}

#[test]
fn the_path_is_that_of_the_broken_value() {
    check_refused(r#"{"a":[1,{"b":"x,]}\"","c":[[],[1e999]]}]}"#, "payload.a[1].c[1][0]", "beyond");
    check_refused(r#"{"a":{"b":1},"c d":{"":[nul]}}"#, r#"payload["c d"][""][0]"#, "byte 24");
    check_refused(r#"[{"a":1},{"b":2},x]"#, "payload[2]", "expected a value");
    check_refused(r#"{"a":{"b":"text" "c":1}}"#, "payload.a.b", "expected `,` or `}`");
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn random_text_is_valid_here_exactly_if_it_is_for_serde_json(text in json_like()) {
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        match Payload::from_json(&text) {
            Ok(payload) => {
                prop_assert!(theirs.is_ok(), "{text}: {theirs:?}");
                // As text, because an integer may have been written as a float; ours by way of an `f64` too, as two texts
                // of 17 digits can mean the same one.
                let ours = payload.read::<serde_json::Value>().unwrap();
                prop_assert_eq!(accepted(&ours.to_string()), accepted(&theirs.unwrap().to_string()));
            }
            Err(e) if e.problem.contains("not valid JSON") => prop_assert!(theirs.is_err(), "{text}: {e}"),
            // Our further rules.
            Err(_) => {}
        }
    }
}

/// Texts made of pieces of JSON, most of them a little wrong, some right.
fn json_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec!["{", "}", "[", "]", ",", ":", "\"a\"", "\"b\"", "1", " ", "\n"]),
        2 => prop::sample::select(vec![
            "\"a\":", "\"b\":", "-", "0", ".", "e", "E+", "5", "true", "false", "null", "\"", "\\", "\\u00", "\\ud83d\\ude00",
            "\"\\n\"", "\u{e9}", "\t", "1e5", "0.5", "[]", "{}",
        ]),
    ];
    let pieces = prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat());
    let right = json_value().prop_map(|value| value.to_string());
    let damaged = (json_value(), any::<prop::sample::Index>(), any::<char>()).prop_map(|(value, at, c)| {
        let mut text: Vec<char> = value.to_string().chars().collect();
        let at = at.index(text.len());
        text[at] = c;
        text.into_iter().collect()
    });
    prop_oneof![pieces, right, damaged]
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        prop::num::f64::NORMAL.prop_map(Into::into),
        "[^\0]{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::hash_map("[a-c\"\\\\\u{e9} ]{0,3}", inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

// ---- what is written

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    f64: f64,
    f32: f32,
    i64: i64,
    u64: u64,
    i128: i128,
    u128: u128,
    char: char,
    text: String,
    unit: (),
    option: Option<Box<Everything>>,
    list: Vec<Kind>,
    map: BTreeMap<u32, Option<i8>>,
    #[serde(flatten)]
    more: HashMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Unit,
    One(i32),
    Two(String, bool),
    Named {
        a: Option<f64>,
    },
    Optional(Option<u8>),
    Flat {
        id: u8,
        #[serde(flatten)]
        rest: BTreeMap<String, i32>,
    },
}

fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Unit),
        any::<i32>().prop_map(Kind::One),
        (text(), any::<bool>()).prop_map(|(a, b)| Kind::Two(a, b)),
        prop::option::of(finite()).prop_map(|a| Kind::Named { a }),
        any::<Option<u8>>().prop_map(Kind::Optional),
        (any::<u8>(), prop::collection::btree_map("[x-z]{1,3}", any::<i32>(), 0..3))
            .prop_map(|(id, rest)| Kind::Flat { id, rest }),
    ]
}

fn finite() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |f| f.is_finite())
}

fn everything() -> impl Strategy<Value = Everything> {
    let flat = (
        (finite(), any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |f| f.is_finite())),
        (any::<i64>(), any::<u64>(), any::<i128>(), any::<u128>()),
        (any::<char>().prop_filter("no NUL", |c| *c != '\0'), text()),
        prop::collection::vec(kind(), 0..5),
        prop::collection::btree_map(any::<u32>(), any::<Option<i8>>(), 0..4),
        prop::collection::hash_map("more_[a-z \u{e9}\"]{0,4}", text(), 0..3),
    );
    let one = flat.prop_map(|((f64, f32), (i64, u64, i128, u128), (char, text), list, map, more)| Everything {
        f64,
        f32,
        i64,
        u64,
        i128,
        u128,
        char,
        text,
        unit: (),
        option: None,
        list,
        map,
        more,
    });
    one.prop_recursive(3, 8, 1, |inner| {
        (inner.clone(), inner).prop_map(|(mut outer, inner)| {
            outer.option = Some(Box::new(inner));
            outer
        })
    })
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn every_accepted_value_reads_back_equal(value in everything()) {
        let payload = encode_struct(&value).unwrap();
        let back: Everything = decode_struct(&payload).unwrap();
        prop_assert_eq!(back.f64.to_bits(), value.f64.to_bits());
        prop_assert_eq!(back.f32.to_bits(), value.f32.to_bits());
        prop_assert_eq!(back, value);
    }

    #[test]
    fn every_variant_reads_back_equal_by_its_index(value in kind()) {
        let index = match value {
            Kind::Unit => 0,
            Kind::One(_) => 1,
            Kind::Two(..) => 2,
            Kind::Named { .. } => 3,
            Kind::Optional(_) => 4,
            Kind::Flat { .. } => 5,
        };
        let payload = encode_variant(&value).unwrap();
        prop_assert_eq!(decode_variant::<Kind>(index, &payload).unwrap(), value);
        prop_assert!(decode_variant::<Kind>(6, &payload).is_err());
    }
}

#[test]
fn a_variant_is_written_as_its_content_alone() {
    let written = |value: &Kind| encode_variant(value).unwrap().as_str().to_owned();
    assert_eq!(written(&Kind::Unit), "{}");
    assert_eq!(written(&Kind::One(-3)), "-3");
    assert_eq!(written(&Kind::Two("a".into(), true)), r#"["a", true]"#);
    assert_eq!(written(&Kind::Named { a: Some(0.5) }), r#"{"a": 0.5}"#);
    assert_eq!(written(&Kind::Optional(None)), "null");
    assert_eq!(written(&Kind::Flat { id: 1, rest: [("x".into(), 2)].into() }), r#"{"x": 2, "id": 1}"#);
    // Enums inside the content keep their names.
    assert_eq!(Payload::of(&vec![Kind::Unit, Kind::One(1)]).unwrap().as_str(), r#"["Unit", {"One": 1}]"#);
}

#[test]
fn an_enum_that_serde_writes_otherwise_is_refused_as_event() {
    #[derive(Serialize, Deserialize)]
    #[serde(tag = "type")]
    enum Tagged {
        A { b: u8 },
    }
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        A(u8),
    }
    for e in [encode_variant(&Tagged::A { b: 1 }).unwrap_err(), encode_variant(&Untagged::A(1)).unwrap_err()] {
        assert_eq!(e.field, "payload");
        assert!(e.problem.contains("not written by serde as a plain enum") && e.fix.contains("untagged"), "{e}");
    }
    let e = decode_variant::<Tagged>(0, &accepted("{}")).err().unwrap();
    assert!(matches!(e, DecodeError::Payload { source } if source.to_string().contains("plain enum")));
}

#[test]
fn non_finite_numbers_are_refused_with_their_path() {
    #[derive(Serialize)]
    struct Line {
        price: Option<f64>,
        weight: f32,
    }
    #[derive(Serialize)]
    enum Event {
        Placed { lines: Vec<Line> },
        Moved(HashMap<String, f64>),
        Pair(u8, f32),
    }
    let fine = || Line { price: None, weight: 1.5 };
    let refused = |event: &Event, field: &str, problem: &str| {
        let e = encode_variant(event).unwrap_err();
        assert_eq!(e.field, field);
        assert!(e.problem.contains(problem) && e.fix.contains("finite"), "{e}");
    };
    let nan = Line { price: Some(f64::NAN), weight: 1.0 };
    refused(&Event::Placed { lines: vec![fine(), fine(), nan] }, "payload.lines[2].price", "NaN");
    let heavy = Line { price: Some(1.0), weight: f32::NEG_INFINITY };
    refused(&Event::Placed { lines: vec![heavy] }, "payload.lines[0].weight", "infinite");
    refused(&Event::Moved([("x y".to_owned(), f64::INFINITY)].into()), r#"payload["x y"]"#, "infinite");
    refused(&Event::Pair(1, f32::NAN), "payload[1]", "NaN");
    assert_eq!(Payload::of(&f64::NAN).unwrap_err().field, "payload");
    encode_variant(&Event::Placed { lines: vec![fine()] }).unwrap();
}

#[test]
fn non_finite_numbers_are_found_at_every_place_of_a_value() {
    #[derive(Serialize)]
    enum Any {
        Unnamed(f64),
        Pair(u8, f64),
        Named { x: f64 },
    }
    #[derive(Serialize)]
    struct Inner(f64);
    #[derive(Serialize)]
    struct Two(u8, f64);
    #[derive(Serialize)]
    struct Outer<T> {
        a: T,
    }
    #[derive(Serialize)]
    struct Flat<T> {
        #[serde(flatten)]
        rest: T,
    }
    let nan = f64::NAN;
    let refused = [
        (Payload::of(&vec![nan]), "payload[0]"),
        (Payload::of(&(1, nan)), "payload[1]"),
        (Payload::of(&Two(1, nan)), "payload[1]"),
        (Payload::of(&Inner(nan)), "payload"),
        (Payload::of(&Some(nan)), "payload"),
        (Payload::of(&Outer { a: Outer { a: Some(Inner(nan)) } }), "payload.a.a"),
        (Payload::of(&Flat { rest: Outer { a: nan } }), "payload.a"),
        (Payload::of(&BTreeMap::from([(7, nan)])), "payload.7"),
        (Payload::of(&Any::Unnamed(nan)), "payload.Unnamed"),
        (Payload::of(&Any::Pair(1, nan)), "payload.Pair[1]"),
        (Payload::of(&Any::Named { x: nan }), "payload.Named.x"),
        (encode_variant(&Any::Unnamed(nan)), "payload"),
        (encode_variant(&Any::Pair(1, nan)), "payload[1]"),
        (encode_variant(&Any::Named { x: nan }), "payload.x"),
    ];
    for (refused, field) in refused {
        let e = refused.unwrap_err();
        assert_eq!((e.field.as_str(), e.problem.as_str()), (field, "is NaN, which JSON cannot hold"));
    }
}

#[test]
fn what_serde_json_cannot_write_is_refused_with_its_path() {
    let mut map = BTreeMap::new();
    map.insert("pairs", BTreeMap::from([((1, 2), 3)]));
    let e = Payload::of(&map).unwrap_err();
    assert_eq!(e.field, "payload.pairs");
    assert!(e.problem.contains("key must be a string"), "{e}");
}

#[test]
fn written_text_obeys_the_rules_of_accepted_text() {
    #[derive(Serialize)]
    struct Twice {
        a: u8,
        #[serde(rename = "a")]
        b: u8,
    }
    assert_eq!(Payload::of(&Twice { a: 1, b: 2 }).unwrap_err().field, "payload.a");
    assert_eq!(Payload::of(&("x", "a\0")).unwrap_err().field, "payload[1]");
    assert_eq!(Payload::of(&vec![u128::MAX]).unwrap().as_str(), "[340282366920938463463374607431768211455]");
}

#[test]
fn raw_json_inside_a_value_is_kept_compact_and_checked() {
    #[derive(Serialize, Deserialize)]
    struct Import {
        raw: Box<RawValue>,
    }
    let import = |text: &str| Import { raw: RawValue::from_string(text.to_owned()).unwrap() };
    let payload = encode_struct(&import("{ \"a\" : 12345678901234567890123 }")).unwrap();
    assert_eq!(payload.as_str(), r#"{"raw": {"a": 12345678901234567890123}}"#);
    assert_eq!(payload.read::<Import>().unwrap().raw.get(), r#"{"a": 12345678901234567890123}"#);
    assert_eq!(encode_struct(&import(r#"{"a":1,"a":2}"#)).unwrap_err().field, "payload.raw.a");
    // The innermost place that may hold a value may hold a raw one.
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Nest {
        Raw(Box<RawValue>),
        List(Vec<Nest>),
    }
    let raw = || Nest::Raw(RawValue::from_string("7".to_owned()).unwrap());
    let deep = |depth| (0..depth).fold(raw(), |inner, _| Nest::List(vec![inner]));
    assert_eq!(Payload::of(&deep(MAX_DEPTH)).unwrap().as_str().len(), 2 * MAX_DEPTH + 1);
    assert!(Payload::of(&deep(MAX_DEPTH + 1)).is_err());
}

#[test]
fn values_nested_too_deep_are_refused_before_the_stack_ends() {
    #[derive(Serialize)]
    struct Chain {
        next: Option<Box<Chain>>,
    }
    let mut chain = Chain { next: None };
    for _ in 1..MAX_DEPTH {
        chain = Chain { next: Some(Box::new(chain)) };
    }
    Payload::of(&chain).unwrap();
    chain = Chain { next: Some(Box::new(chain)) };
    assert!(Payload::of(&chain).unwrap_err().problem.contains("nests deeper"));
    for _ in 0..100_000 {
        chain = Chain { next: Some(Box::new(chain)) };
    }
    assert!(Payload::of(&chain).unwrap_err().problem.contains("nests too deep"));
    // Dropping it link by link, as dropping it whole would exhaust the stack.
    while let Some(next) = chain.next {
        chain = *next;
    }
}

#[test]
fn values_that_open_nothing_in_the_text_or_only_a_variant_do_not_exhaust_the_stack_either() {
    enum Kind {
        Variant,
        Struct,
        Optional,
    }
    /// So many values, one inside the other, none of which is there before it is written.
    struct Nest(Kind, usize);
    impl Serialize for Nest {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let Self(kind, left) = self;
            match (kind, left.checked_sub(1)) {
                (_, None) => serializer.serialize_u8(7),
                (Kind::Variant, Some(left)) => {
                    serializer.serialize_newtype_variant("Nest", 0, "In", &Nest(Kind::Variant, left))
                }
                (Kind::Struct, Some(left)) => serializer.serialize_newtype_struct("Nest", &Nest(Kind::Struct, left)),
                (Kind::Optional, Some(left)) => serializer.serialize_some(&Nest(Kind::Optional, left)),
            }
        }
    }
    for (kind, inside, text) in [
        (Kind::Variant, 3, r#"{"In": {"In": {"In": 7}}}"#),
        (Kind::Struct, MAX_DEPTH, "7"),
        (Kind::Optional, MAX_DEPTH, "7"),
    ] {
        let mut nest = Nest(kind, inside);
        assert_eq!(Payload::of(&nest).unwrap().as_str(), text);
        nest.1 = 100_000;
        assert!(Payload::of(&nest).unwrap_err().problem.contains("nests too deep"));
        // The outermost variant of an event has no name in the text.
        if matches!(nest.0, Kind::Variant) {
            assert!(encode_variant(&nest).unwrap_err().problem.contains("nests too deep"));
        }
    }
}

#[test]
fn numbers_are_counted_as_they_are_written_without_exponents() {
    for (text, written_out) in [
        ("7", 1),
        ("-7", 2),
        ("1e9", 10),
        ("-1.5e3", 5),
        ("1e-3", 5),
        ("123.45e-2", 6),
        ("5e-324", 326),
        ("-2.2250738585072014e-308", 327),
        ("1.7976931348623157e308", 309),
        ("1e-16383", 16_385),
        (r#"{"a":[1e9,1e9],"1e9":"1e9"}"#, 27 + 2 * 7 + " ".len() * 4),
    ] {
        assert_eq!(Payload::trusted(text).written_out(usize::MAX).unwrap(), written_out, "{text}");
        let accepted = accepted(text);
        assert_eq!(accepted.written_out(usize::MAX).unwrap(), accepted.as_str().len(), "{text}");
    }
    let payload = Payload::trusted(r#"{"a":[1e9,1,1e9]}"#);
    let refused = payload.written_out(30).unwrap_err();
    assert_eq!(refused.field, "payload.a[2]");
    assert!(refused.problem.contains("more than 30 bytes") && !refused.fix.is_empty(), "{refused}");
}

// ---- what is read

#[test]
fn a_unit_variant_reads_from_an_object_or_null() {
    // Fields of a later build are ignored, as those that a variant with fields does not know.
    for text in ["{}", "null", r#"{"by":"x","at":[{"y":1}]}"#] {
        assert_eq!(decode_variant::<Kind>(0, &accepted(text)).unwrap(), Kind::Unit);
    }
    for (text, problem) in [("[]", "as the event has no fields"), ("1", "has no fields")] {
        let DecodeError::Payload { source } = decode_variant::<Kind>(0, &accepted(text)).unwrap_err() else {
            panic!("another error");
        };
        assert!(source.to_string().contains(problem), "{source}");
    }
}

#[test]
fn content_that_does_not_fit_is_refused_in_the_words_of_serde_json_without_its_values() {
    let error = |index, text: &str| match decode_variant::<Kind>(index, &accepted(text)).unwrap_err() {
        DecodeError::Payload { source } => source.to_string(),
        other => panic!("{other}"),
    };
    for secret in [r#""secret""#, r#""secret, expected `i32` at line 1""#] {
        let text = error(1, secret);
        assert!(
            text.starts_with("invalid type: string, expected i32 at line 1 column ") && !text.contains("secret"),
            "{text}"
        );
    }
    assert_eq!(error(1, "4711.5"), "invalid type: floating point, expected i32 at line 1 column 6");
    assert_eq!(error(1, "4711000000000"), "invalid value: integer, expected i32 at line 1 column 13");
    assert!(error(2, r#"["a"]"#).contains("invalid length 1"));
    assert!(error(2, r#"["a",true,1]"#).contains("trailing characters"));
    // serde would take an array for the fields in order; a stored event has one form.
    assert!(error(3, "[0.5]").contains("invalid type: sequence"));
    assert!(error(9, "{}").contains("variant index"));
    let trailing = Payload::trusted("1 2");
    assert!(decode_variant::<Kind>(1, &trailing).unwrap_err().to_string().contains("does not fit"));
}

// ---- equality

#[track_caller]
fn check_equal(a: &str, b: &str, equal: bool) {
    let (a, b) = (Payload::trusted(a), Payload::trusted(b));
    assert_eq!(a == b, equal, "{a:?} and {b:?}");
    assert_eq!(b == a, equal, "{b:?} and {a:?}");
}

#[test]
fn payloads_are_equal_as_json_values() {
    for (a, b) in [
        (r#"{"a":1,"b":[2,{"c":3,"d":4}]}"#, r#"{ "b": [2, {"d":4.0,"c":3}], "a": 1e0 }"#),
        ("1", "1.0"),
        ("1", "1e0"),
        ("100", "1e2"),
        ("1.50", "15E-1"),
        ("-0.0", "0"),
        ("0e5", "0"),
        ("0.001", "1e-3"),
        ("12300e-2", "1.23e2"),
        (r#""\u0061\/\n""#, "\"a/\\u000a\""),
        (r#"{"\u0061":1}"#, r#"{"a":1}"#),
        ("[ ]", "[]"),
        ("1e308", "100e306"),
    ] {
        check_equal(a, b, true);
    }
    for (a, b) in [
        ("9007199254740992", "9007199254740993"),
        ("18446744073709551615", "18446744073709551616"),
        ("0.1", "0.10000000000000001"),
        ("1", "-1"),
        ("1", "10"),
        ("0.1", "0.01"),
        ("1", "\"1\""),
        ("null", "false"),
        ("[]", "{}"),
        ("[1,2]", "[2,1]"),
        ("[1]", "[1,1]"),
        (r#"{"a":1}"#, r#"{"a":1,"b":1}"#),
        (r#"{"a":1}"#, r#"{"b":1}"#),
        (r#""a""#, r#""A""#),
        ("\"\u{e9}\"", "\"e\u{301}\""),
        ("true", "false"),
        ("0", "null"),
    ] {
        check_equal(a, b, false);
    }
}

#[test]
fn text_that_is_no_json_is_equal_only_to_itself() {
    let deep = nested(100_000);
    for text in
        ["", "{", "[1", "{\"a\"}", "nul", "-", "1e", "1e99999999999999999999", "\"", "\"\\", "\"\\x\"", "1 2", &deep]
    {
        check_equal(text, text, true);
        check_equal(text, &format!(" {text}"), false);
        check_equal(text, "null", false);
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn equality_obeys_its_laws_and_sees_every_change(a in json_value(), b in json_value()) {
        let pretty = Payload::trusted(serde_json::to_string_pretty(&a).unwrap());
        let compact = accepted(pretty.as_str());
        prop_assert_eq!(&compact, &pretty);
        prop_assert_eq!(&pretty, &compact);
        prop_assert_eq!(&compact, &compact.clone());
        let other = accepted(&b.to_string());
        let same = same_value(&a, &b);
        prop_assert_eq!(compact == other, same, "{:?} {:?}", compact, other);
        prop_assert_eq!(pretty == other, same);
        prop_assert_eq!(other == pretty, same);
    }
}

/// serde_json distinguishes `1` from `1.0`; the strategy never makes a float and an integer of the same value but zero.
fn same_value(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == 0.0 && b == 0.0)
}

// ---- what is shown

/// Logs show events by `Debug`: on their way to the store, in it and read back.
#[test]
fn debug_of_events_and_appends_shows_the_sizes_of_payloads_and_not_their_text() {
    let new = || {
        let id = EventId::new(uuid::Uuid::from_u128(7)).unwrap();
        NewEvent::raw(id, "order.placed", 1, accepted(r#"{"name":"secret"}"#)).unwrap()
    };
    let stream = StreamId::new(Tenant::default(), "order", "o-17").unwrap();
    let append = Append::to(stream.clone(), ExpectedVersion::Any, vec![new()]);
    let (one, start) = (StreamVersion::new(1).unwrap(), Position::new(1).unwrap());
    let recorded = RecordedEvent::new(new(), stream, one, start, None, jiff::Timestamp::UNIX_EPOCH);
    let checked = append.clone().check(&Limits::default()).unwrap();
    for text in [format!("{:?}", new()), format!("{append:#?}"), format!("{checked:?}"), format!("{recorded:?}")] {
        assert!(text.contains("Payload(18 bytes)") && text.contains("order.placed"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}
