//! Columns: every value comes back as it was, and what cannot come back is refused.

use std::fmt::Debug;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::__private::{json_from_column, json_to_column, text_from_column, text_to_column};
use crate::{Column, ColumnSpec, ColumnType, ColumnValue, IndexSpec, RowKey, TableSpec};

fn comes_back<T: Column + PartialEq + Debug>(value: T) {
    assert_eq!(T::from_column(value.to_column()).unwrap(), value);
}

fn refused(value: &ColumnValue) -> &str {
    match value {
        ColumnValue::Refused(why) => why,
        other => panic!("should be refused, but is {other:?}"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Open,
    PaidInFull,
}

crate::text_column!(Status);

#[test]
fn every_value_comes_back() {
    comes_back(i64::MIN);
    comes_back(i32::MAX);
    comes_back(i16::MIN);
    comes_back(u8::MAX);
    comes_back(u16::MAX);
    comes_back(u32::MAX);
    comes_back(true);
    comes_back(0.1 + 0.2);
    comes_back(f64::NEG_INFINITY);
    comes_back(String::from("naïve ☂"));
    comes_back(Arc::<str>::from("x"));
    comes_back("2026-03-01T10:00:00.123456Z".parse::<Timestamp>().unwrap());
    comes_back(jiff::civil::date(2026, 2, 28));
    comes_back(Uuid::from_u128(7));
    comes_back(vec![0_u8, 255]);
    comes_back(Option::<i64>::None);
    comes_back(Some(String::new()));
    comes_back(Status::PaidInFull);
    comes_back(Some(Status::Open));
}

#[test]
fn text_of_serde_stands_bare_in_its_column() {
    assert_eq!(Status::PaidInFull.to_column(), ColumnValue::Text("paid_in_full".into()));
    assert!(Status::from_column(ColumnValue::Text("gone".into())).is_err());
}

#[test]
fn what_serde_does_not_write_as_text_is_refused_as_text() {
    assert_eq!(refused(&text_to_column(&[1, 2])), "is not written as a string by serde; use `#[column(json)]`");
    let null = text_to_column(&None::<Status>);
    assert_eq!(refused(&null), "is written as null by serde; use an `Option`, and one alone");
    assert!(text_from_column::<Option<Status>>(ColumnValue::Null).is_err());
}

#[test]
fn json_comes_back_and_numbers_that_json_lacks_are_refused() {
    let value = vec![Some(1.5), None];
    assert_eq!(json_from_column::<Vec<Option<f64>>>(json_to_column(&value)).unwrap(), value);
    assert_eq!(json_to_column(&serde_json::Value::Null), ColumnValue::Json("null".into()));
    let refused = refused(&json_to_column(&[1.0, f64::NAN])).to_owned();
    assert!(refused.contains("[1]"), "the place is named: {refused}");
}

#[test]
fn a_column_out_of_range_names_what_it_should_be() {
    let error = u8::from_column(ColumnValue::Integer(256)).unwrap_err().in_column("age");
    assert_eq!(error.to_string(), "column `age` should be an integer within u8, but is a larger one");
    let error = u8::from_column(ColumnValue::Integer(-1)).unwrap_err();
    assert_eq!(error.found, "a smaller one");
    let error = String::from_column(ColumnValue::Integer(1)).unwrap_err().in_column("name");
    assert_eq!(error.to_string(), "column `name` should be text, but is an integer");
}

#[test]
fn nan_and_nul_are_refused() {
    assert!(refused(&f64::NAN.to_column()).starts_with("is NaN"));
    assert!(refused(&String::from("a\0b").to_column()).contains("U+0000"));
    assert!(refused(&text_to_column("a\0b")).contains("U+0000"));
}

#[test]
fn the_sign_of_zero_is_dropped_so_that_a_loaded_row_equals_itself() {
    assert_eq!((-0.0_f64).to_column(), 0.0_f64.to_column());
}

/// The short way of a type to its normal form leads where the long one through its column leads.
#[test]
fn a_value_made_normal_is_the_one_that_its_column_gives_back() {
    fn check<T: Column + Clone + Debug>(value: T) {
        let mut normal = value.clone();
        normal.normalize().unwrap();
        let back = T::from_column(value.to_column().normal()).unwrap();
        assert_eq!(format!("{normal:?}"), format!("{back:?}"), "of {value:?}");
    }
    let mut rng = fastrand::Rng::new();
    for _ in 0..200 {
        check(rng.i64(..));
        check(rng.u8(..));
        check(rng.bool());
        check(f64::from_bits(rng.u64(..)).max(f64::MIN));
        check(Some(Uuid::from_u128(rng.u128(..))));
        check(Timestamp::new(rng.i64(-200_000_000_000..200_000_000_000), rng.i32(-999_999_999..999_999_999)).unwrap());
        check(jiff::civil::date(rng.i16(0..9999), 1 + rng.i8(0..12), 1 + rng.i8(0..28)));
    }
    for zero in [0.0, -0.0] {
        check(zero);
        check(Some(zero));
    }
    check("naïve".to_owned());
    check(vec![0_u8, 1]);
    check(Some(Status::Open));
    let doubtful = |mut value: f64| value.normalize().is_err();
    assert!(doubtful(f64::NAN) && !doubtful(f64::INFINITY));
    assert!("a\0b".to_owned().normalize().is_err());
    let mut first = Timestamp::MIN;
    assert!(first.normalize().is_err(), "before PostgreSQL's times");
}

#[test]
fn keys_of_several_columns_keep_their_order() {
    let key = (Status::Open, 7_i64, Uuid::from_u128(1));
    assert_eq!(key.to_columns(), [Status::Open.to_column(), 7_i64.to_column(), Uuid::from_u128(1).to_column()]);
}

/// A text that a message shows may be a secret of somebody's.
#[test]
fn errors_of_columns_quote_no_values() {
    let secret = || ColumnValue::Text("secret".into());
    let errors = [
        jiff::civil::Date::from_column(secret()).unwrap_err(),
        annals_eventstore::Tenant::from_column(ColumnValue::Text("secret\n".into())).unwrap_err(),
        text_from_column::<Status>(secret()).unwrap_err(),
        json_from_column::<i64>(ColumnValue::Json("\"secret\"".into())).unwrap_err(),
        json_from_column::<Status>(ColumnValue::Json("\"secret\"".into())).unwrap_err(),
    ];
    for error in errors {
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
}

/// What the compiler's note suggests for types that no column can have.
#[test]
fn the_types_that_are_suggested_for_others_are_columns() {
    fn suggested<T: Column>() {}
    suggested::<i64>();
    suggested::<u32>();
    suggested::<f64>();
    suggested::<String>();
}

const ID: ColumnSpec = ColumnSpec { name: "id", column_type: ColumnType::Text, nullable: false };
const GOOD: TableSpec = TableSpec { name: "orders", columns: &[ID], key: &["id"], indexes: &[], per_tenant: false };

#[track_caller]
fn wrong(spec: TableSpec, problem: &str) {
    let error = spec.check().expect_err("the declaration is wrong").to_string();
    assert!(error.contains(problem), "{error}");
}

#[test]
fn a_table_declared_wrongly_is_refused_with_what_to_do() {
    assert_eq!(GOOD.check(), Ok(()));
    for name in ["", "Orders", "1st", "_x", "a b", "a\"; DROP TABLE events --", "ü", &"x".repeat(49)] {
        wrong(TableSpec { name: name.to_owned().leak(), ..GOOD }, "cannot be used in SQL");
    }
    wrong(TableSpec { name: "annals_orders", ..GOOD }, "which is taken");
    wrong(TableSpec { columns: &[], ..GOOD }, "has 0 columns");
    for name in ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"] {
        let columns = vec![ID, ColumnSpec { name, ..ID }].leak();
        wrong(TableSpec { columns, ..GOOD }, &format!("`{name}` is one that PostgreSQL adds to every table"));
    }
    wrong(TableSpec { columns: &[ID, ID], ..GOOD }, "`id` is declared twice");
    wrong(TableSpec { columns: &[ColumnSpec { name: "I", ..ID }], key: &["I"], ..GOOD }, "the column's name `I`");
    wrong(TableSpec { key: &[], ..GOOD }, "has no key");
    wrong(TableSpec { key: &["other"], ..GOOD }, "the key names `other`");
    wrong(TableSpec { key: &["id", "id"], ..GOOD }, "`id` twice");
    wrong(TableSpec { columns: &[ColumnSpec { nullable: true, ..ID }], ..GOOD }, "may be null");
    wrong(TableSpec { indexes: &[IndexSpec { columns: &["other"] }], ..GOOD }, "an index names `other`");
    wrong(TableSpec { indexes: &[IndexSpec { columns: &[] }], ..GOOD }, "an index on no column");
}
