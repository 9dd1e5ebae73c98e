//! Data built by hand, as the documentation of COPY describes it.

use super::*;

type Row = [Option<Vec<u8>>; 2];

const FIELDS: usize = 2;

fn header() -> Vec<u8> {
    [SIGNATURE, &[0; 8]].concat()
}

fn push(data: &mut Vec<u8>, row: &Row) {
    data.extend_from_slice(&2_i16.to_be_bytes());
    for field in row {
        let length = field.as_ref().map_or(-1, |f| i32::try_from(f.len()).unwrap());
        data.extend_from_slice(&length.to_be_bytes());
        data.extend_from_slice(field.as_deref().unwrap_or_default());
    }
}

fn rows() -> Vec<Row> {
    let text = |t: &str| Some(t.as_bytes().to_vec());
    vec![[text("one"), None], [Some(Vec::new()), text("two")], [None, None], [text("three"), text("a longer one")]]
}

fn whole() -> Vec<u8> {
    let mut data = header();
    rows().iter().for_each(|row| push(&mut data, row));
    data.extend_from_slice(&(-1_i16).to_be_bytes());
    data
}

/// The rows in these messages, and the result of the parser.
fn taken<'m>(messages: impl IntoIterator<Item = &'m [u8]>) -> (Vec<Row>, Result<(), String>) {
    let (mut copied, mut rows) = (Copied::default(), Vec::new());
    let mut take = |fields: &Fields<'_, FIELDS>| -> Result<bool, BoxDynError> {
        rows.push(fields.map(|f| f.map(<[u8]>::to_vec)));
        Ok(true)
    };
    let read = messages.into_iter().try_for_each(|message| copied.message(message, &mut take).map(drop));
    (rows, read.and_then(|()| copied.end()).map_err(|e| e.to_string()))
}

#[test]
fn wherever_the_messages_are_cut_the_rows_are_the_same() {
    let data = whole();
    assert_eq!(taken([&data[..]]), (rows(), Ok(())));
    for first in 0..=data.len() {
        for second in first..=data.len() {
            let messages = [&data[..first], &data[first..second], &data[second..]];
            assert_eq!(taken(messages), (rows(), Ok(())), "cut at {first} and {second}");
        }
    }
    assert_eq!(taken(data.chunks(1)), (rows(), Ok(())), "byte for byte");
}

#[test]
fn an_answer_without_rows_is_whole() {
    let mut data = header();
    data.extend_from_slice(&[0xff, 0xff]);
    assert_eq!(taken([&data[..]]), (Vec::new(), Ok(())));
}

#[test]
fn an_answer_that_ends_early_is_never_taken_for_whole() {
    let data = whole();
    for length in 0..data.len() {
        let (_, end) = taken([&data[..length]]);
        assert_eq!(end, Err("the data ends too early".into()), "{length} bytes");
    }
}

#[test]
fn what_is_not_this_format_is_refused_with_the_reason() {
    let refused = |data: &[u8]| taken([data]).1.unwrap_err();
    let unknown = "it is not in the format of COPY that this build knows";
    for at in 0..HEADER {
        // One wrong bit of the signature, a flag, or an extension.
        let mut data = whole();
        data[at] ^= 1;
        assert_eq!(refused(&data), unknown, "byte {at}");
    }
    for (count, message) in [(1_i16, "a row has 1 fields instead of 2"), (3, "a row has 3 fields instead of 2")] {
        let data = [header(), count.to_be_bytes().to_vec()].concat();
        assert_eq!(refused(&data), message);
    }
    let mut twice = whole();
    push(&mut twice, &[None, None]);
    assert_eq!(refused(&twice), "there is data after the end");
    let beyond = [whole(), vec![0]].concat();
    assert_eq!(refused(&beyond), "the data ends too early");
}

#[test]
fn nothing_is_given_after_the_taker_has_enough() {
    let (data, mut given) = (whole(), 0);
    let mut take = |_: &Fields<'_, FIELDS>| -> Result<bool, BoxDynError> {
        given += 1;
        Ok(given < 3)
    };
    assert!(!Copied::default().message(&data, &mut take).unwrap());
    assert_eq!(given, 3);
}

#[test]
fn the_error_of_the_taker_ends_the_reading() {
    let mut take = |_: &Fields<'_, FIELDS>| -> Result<bool, BoxDynError> { Err("enough".into()) };
    let error = Copied::default().message(&whole(), &mut take).unwrap_err();
    assert_eq!(error.to_string(), "enough");
}
