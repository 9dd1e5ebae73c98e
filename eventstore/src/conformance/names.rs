//! Names of streams are kept and compared byte for byte.

use super::case::{Case, versions};
use crate::stream::{ExpectedVersion, StreamId, Tenant};

/// Begins a stream under each name, as tenant, type and id, and checks that none is taken for another.
async fn are_different(case: &Case, names: &[&str]) {
    let mut streams = Vec::new();
    for &name in names {
        streams.push(StreamId::new(Tenant::default(), "order", name).unwrap());
        streams.push(StreamId::new(Tenant::default(), name, "1").unwrap());
        streams.push(StreamId::new(Tenant::new(name).unwrap(), "order", "1").unwrap());
    }
    for stream in &streams {
        case.store.append(stream, ExpectedVersion::NoStream, case.events(1)).await.unwrap();
    }
    for stream in &streams {
        let stored = case.load(stream).await;
        assert_eq!(versions(&stored), [1], "{stream}");
        assert_eq!(stored[0].stream, *stream);
    }
    let listed = case.everything().await.streams;
    assert_eq!(listed.len(), streams.len());
    for stream in &streams {
        assert!(listed.iter().any(|info| info.stream == *stream), "{stream} is not listed");
    }
}

pub(super) async fn numbers_as_names_are_texts(case: Case) {
    are_different(&case, &["007", "7", "7.0", "1e3", "1000", "-0", "0", "0x10", "16"]).await;
}

pub(super) async fn letters_of_either_case_are_different(case: Case) {
    are_different(&case, &["a", "A", "\u{e9}", "\u{c9}", "\u{df}", "ss", "i", "I", "\u{131}", "\u{130}"]).await;
}

pub(super) async fn spaces_make_a_difference(case: Case) {
    are_different(&case, &["a", "a ", " a", "a  ", "a\u{a0}", "a\u{200b}"]).await;
}

pub(super) async fn composed_and_decomposed_accents_are_different(case: Case) {
    are_different(&case, &["caf\u{e9}", "cafe\u{301}", "cafe", "\u{212b}", "\u{c5}", "A\u{30a}"]).await;
}

pub(super) async fn characters_with_a_meaning_elsewhere_have_none_here(case: Case) {
    let names = ["*", ">", "a.b", "a.*", "%", "_", "'", "\"", "\\", "/", "?", "?1", "@1", ":a", "--", ";"];
    are_different(&case, &names).await;
}

pub(super) async fn invisible_characters_make_a_difference(case: Case) {
    let directions =
        ["a", "\u{200f}a", "a\u{200f}", "\u{202e}a\u{202c}", "\u{2067}a\u{2069}", "\u{5d0}", "\u{5d0}\u{200e}"];
    are_different(&case, &directions).await;
}

pub(super) async fn joined_and_separate_faces_are_different(case: Case) {
    let family = "\u{1f469}\u{200d}\u{1f469}\u{200d}\u{1f467}";
    let flag = "\u{1f3f3}\u{fe0f}\u{200d}\u{1f308}";
    let others =
        ["\u{1f469}\u{1f469}\u{1f467}", "\u{1f3f3}\u{1f308}", "\u{1f3f3}\u{fe0f}", "\u{1f44d}", "\u{1f44d}\u{1f3fd}"];
    are_different(&case, &[&[family, flag], &others[..]].concat()).await;
}

pub(super) async fn a_name_cannot_end_a_statement(case: Case) {
    are_different(&case, &["'); DROP TABLE events; --", "\" OR 1=1 --", "x' UNION SELECT * FROM events --"]).await;
}

pub(super) async fn the_longest_names_are_taken(case: Case) {
    let long = "x".repeat(200);
    let accents = "\u{e9}".repeat(100);
    let faces = "\u{1f600}".repeat(50);
    are_different(&case, &[&long, &accents, &faces]).await;
    let longest = StreamId::new(Tenant::new(&long).unwrap(), &long, &long).unwrap();
    case.store.append(&longest, ExpectedVersion::NoStream, case.events(2)).await.unwrap();
    assert_eq!(versions(&case.load(&longest).await), [1, 2]);
}
