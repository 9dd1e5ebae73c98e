//! What a text for `select` may have, and what becomes of it.

use annals_eventstore::Tenant;
use jiff::Timestamp;

use super::QueryValue;
use super::text::{Clauses, clauses};
use super::value::checked;
use crate::column::{ColumnType, ColumnValue};
use crate::read_model::{ColumnSpec, TableSpec};

const fn column(name: &'static str, column_type: ColumnType, nullable: bool) -> ColumnSpec {
    ColumnSpec { name, column_type, nullable }
}

const ORDERS: &TableSpec = &TableSpec {
    name: "orders",
    columns: &[
        column("tenant", ColumnType::Text, false),
        column("id", ColumnType::Text, false),
        column("line", ColumnType::Integer, false),
        column("cents", ColumnType::Integer, false),
        column("share", ColumnType::Real, false),
        column("paid", ColumnType::Bool, false),
        column("at", ColumnType::Timestamp, false),
        column("note", ColumnType::Text, true),
        column("doc", ColumnType::Json, false),
        // Words of SQL, such as a hostile declaration would have.
        column("order", ColumnType::Text, false),
        column("select", ColumnType::Text, false),
        column("union", ColumnType::Text, false),
        column("pg_sleep", ColumnType::Integer, false),
        column("length", ColumnType::Integer, false),
    ],
    key: &["tenant", "id", "line"],
    indexes: &[],
    per_tenant: true,
};

/// Columns that are called like words which a text may have.
const WORDS: &TableSpec = &TableSpec {
    columns: &[
        column("id", ColumnType::Text, false),
        column("order", ColumnType::Text, false),
        column("end", ColumnType::Integer, false),
        column("null", ColumnType::Integer, false),
        column("limit", ColumnType::Integer, false),
    ],
    key: &["id"],
    per_tenant: false,
    ..*ORDERS
};

fn parsed(text: &str, values: &[&dyn QueryValue]) -> Result<Clauses, String> {
    parsed_for(ORDERS, text, values)
}

fn parsed_for(table: &'static TableSpec, text: &str, values: &[&dyn QueryValue]) -> Result<Clauses, String> {
    let values = checked(values).map_err(|(number, problem)| format!("value {number} {problem}"))?;
    clauses(table, text, &values, 100).map_err(|wrong| format!("{}; {}", wrong.problem, wrong.fix))
}

#[track_caller]
fn check(text: &str, values: &[&dyn QueryValue], condition: &str, order: &str, limit: &str) {
    let expected = Clauses { condition: condition.into(), order: order.into(), limit: limit.into() };
    assert_eq!(parsed(text, values), Ok(expected), "{text}");
}

const BY_KEY: &str = "r.\"id\", r.\"line\"";

#[test]
fn a_text_is_a_condition_an_order_and_a_limit_each_if_it_is_needed() {
    check("", &[], "", BY_KEY, "LIMIT 101");
    check(" \n\t", &[], "", BY_KEY, "LIMIT 101");
    check("paid", &[], "r.\"paid\"", BY_KEY, "LIMIT 101");
    check("NOT Paid or CENTS=5", &[], "NOT r.\"paid\" OR r.\"cents\" = 5", BY_KEY, "LIMIT 101");
    check("LIMIT 100", &[], "", BY_KEY, "LIMIT 100");
    check("limit $1 offset $2", &[&0, &7_i64], "", BY_KEY, "LIMIT $1 OFFSET $2");
    check("OFFSET 5", &[], "", BY_KEY, "LIMIT 101 OFFSET 5");
    check("ORDER BY at DESC", &[], "", "r.\"at\" DESC, r.\"id\", r.\"line\"", "LIMIT 101");
    check("order by line, id desc", &[], "", "r.\"line\", r.\"id\" DESC", "LIMIT 101");
    check("ORDER BY abs(line), cents", &[], "", "abs ( r.\"line\" ), r.\"cents\", r.\"id\", r.\"line\"", "LIMIT 101");
    check(
        "ORDER BY coalesce(note, id)",
        &[],
        "",
        "coalesce ( r.\"note\" , r.\"id\" ), r.\"id\", r.\"line\"",
        "LIMIT 101",
    );
    check(
        "ORDER BY note DESC NULLS LAST LIMIT 3",
        &[],
        "",
        "r.\"note\" DESC NULLS LAST, r.\"id\", r.\"line\"",
        "LIMIT 3",
    );
    check(
        "(note IS NOT DISTINCT FROM $1 AND cents BETWEEN -5 AND $2)\nORDER BY id\nLIMIT 9\nOFFSET 0",
        &[&Some("x".to_owned()), &9],
        "( r.\"note\" IS NOT DISTINCT FROM $1 AND r.\"cents\" BETWEEN - 5 AND $2 )",
        "r.\"id\", r.\"line\"",
        "LIMIT 9 OFFSET 0",
    );
    check("id = 'it''s -- /* ; \" ( $1'", &[], "r.\"id\" = 'it''s -- /* ; \" ( $1'", BY_KEY, "LIMIT 101");
    check("\"order\" = $1", &[&"x"], "r.\"order\" = $1", BY_KEY, "LIMIT 101");
    check("length > 1 AND length(id) > 1", &[], "r.\"length\" > 1 AND length ( r.\"id\" ) > 1", BY_KEY, "LIMIT 101");
    check("select = union", &[], "r.\"select\" = r.\"union\"", BY_KEY, "LIMIT 101");
    check("doc IS NOT NULL", &[], "r.\"doc\" IS NOT NULL", BY_KEY, "LIMIT 101");
    let case = "CASE WHEN paid THEN cents ELSE 0 END > share / 2.5";
    check(case, &[], "CASE WHEN r.\"paid\" THEN r.\"cents\" ELSE 0 END > r.\"share\" / 2.5", BY_KEY, "LIMIT 101");
}

/// SQLite read `end` as the column where PostgreSQL refused it, and `null` was null in both.
#[test]
fn a_column_that_is_called_like_a_word_is_written_in_quotes_where_a_value_must_be() {
    for (text, word) in [
        ("end > 1", "end"),
        ("NOT (limit = 1 AND end > 1)", "limit"),
        ("1 < NULL", "null"),
        ("5 IN (1, null)", "null"),
        ("5 NOT BETWEEN limit AND 5", "limit"),
        ("id = 'x' ORDER BY end DESC", "end"),
        ("order = 'x'", "order"),
        ("ORDER BY id, order", "order"),
    ] {
        let fix = format!("a column of that name; write the column as \"{word}\"");
        let refused = parsed_for(WORDS, text, &[]).expect_err(text);
        assert!(refused.contains(&fix), "{text}: {refused}");
    }
    for (text, condition, order, limit) in [
        ("\"end\" > 1 ORDER BY \"limit\" LIMIT 5", "r.\"end\" > 1", "r.\"limit\", r.\"id\"", "LIMIT 5"),
        ("ORDER BY \"order\" limit 3", "", "r.\"order\", r.\"id\"", "LIMIT 3"),
        ("LIMIT 3", "", "r.\"id\"", "LIMIT 3"),
        ("id IS NOT NULL", "r.\"id\" IS NOT NULL", "r.\"id\"", "LIMIT 101"),
        ("CASE WHEN id = 'x' THEN 1 END = 1", "CASE WHEN r.\"id\" = 'x' THEN 1 END = 1", "r.\"id\"", "LIMIT 101"),
    ] {
        let expected = Clauses { condition: condition.into(), order: order.into(), limit: limit.into() };
        assert_eq!(parsed_for(WORDS, text, &[]), Ok(expected), "{text}");
    }
}

#[test]
fn what_may_be_null_is_ordered_only_if_the_text_says_where() {
    for null in [
        "note",
        "(note)",
        "lower(note)",
        "note = id",
        "nullif(id, 'a')",
        "CASE WHEN paid THEN 1 END",
        "coalesce(id, note)",
        "coalesce(note, id) || note",
        "coalesce(note, note) || coalesce(id, 'x')",
        "coalesce(note, lower(note), id) = note, id",
    ] {
        let text = format!("ORDER BY {null} DESC");
        let refused = parsed(&text, &[]).unwrap_err();
        assert!(refused.contains("which may be null, and databases order nulls differently"), "{null}: {refused}");
        assert!(parsed(&format!("ORDER BY {} DESC NULLS LAST", null.trim_end_matches(", id")), &[]).is_ok(), "{null}");
    }
    for there in [
        "note IS NULL",
        "note IS NOT NULL DESC",
        "coalesce(note, id)",
        "coalesce(note, 'x') DESC",
        "cents = 5",
        "- line",
    ] {
        assert!(parsed(&format!("ORDER BY {there}"), &[]).is_ok(), "{there}");
    }
}

/// The one reads `a IS DISTINCT FROM b = c` as `(a IS DISTINCT FROM b) = c`, the other as `a IS DISTINCT FROM (b = c)`.
#[test]
fn comparisons_in_a_row_are_refused_without_brackets() {
    for row in [
        "paid IS DISTINCT FROM id = 'a'",
        "paid = id LIKE 'a'",
        "cents < line = paid",
        "paid = (id = 'a') IS NULL",
        "cents BETWEEN 1 AND 2 = paid",
        "paid OR id IN ('a') = paid",
        "CASE WHEN paid THEN paid = paid = paid END",
        "paid ORDER BY cents = line = paid",
        "(cents = line IS NULL)",
    ] {
        let refused = parsed(row, &[]).unwrap_err();
        assert!(refused.contains("behind another comparison, and databases read that differently"), "{row}: {refused}");
    }
    for apart in [
        "paid IS DISTINCT FROM (id = 'a')",
        "(cents = line) = paid",
        "cents BETWEEN 1 AND 2 AND line BETWEEN 3 AND 4 OR id = 'a'",
        "CASE WHEN cents = 1 THEN line = 2 ELSE id = 'a' END = paid",
        "NOT cents = 1 AND NOT line IN (1, 2)",
        "cents = 1 ORDER BY cents = line, line = 1",
    ] {
        assert!(parsed(apart, &[]).is_ok(), "{apart}: {:?}", parsed(apart, &[]));
    }
}

#[test]
fn a_remainder_is_that_of_integers() {
    for (real, named) in
        [("cents % 2.5 = 0", "`2.5`"), ("share % 2 = 0", "`r.\"share\"`"), ("cents % - $1 = 0", "`$1`")]
    {
        let values: &[&dyn QueryValue] = if real.contains('$') { &[&0.5] } else { &[] };
        let refused = parsed(real, values).unwrap_err();
        assert!(refused.contains(&format!("the remainder of {named}, which is a real number")), "{real}: {refused}");
    }
    assert!(parsed("cents % $1 = line % 2", &[&3_i64]).is_ok());
    assert!(parsed("cents < share", &[]).is_ok(), "numbers are compared as such");
}

/// What would lead out of the condition, or mean something else in some database, is never handed to one.
#[test]
fn what_a_text_cannot_have_is_refused_by_name() {
    let long = "9".repeat(16);
    let hostile = [
        ("1 = 1; DROP TABLE orders", "has the character ';' outside of quotes"),
        ("1 = 1 -- all", "has a comment"),
        ("1 = 1 /* all */", "has a comment"),
        ("1 = 1 */", "has the operator `*/`"),
        ("cents > 5--3", "has a comment"),
        ("paid) OR (1 = 1", "closes a bracket that it has not opened"),
        ("paid) UNION SELECT 1", "closes a bracket that it has not opened"),
        ("(paid", "has a bracket that is not closed"),
        ("paid OR id IN (SELECT id FROM orders)", "has the name `orders`"),
        ("id IN (SELECT $1)", "names `$1`, but 0 values were given"),
        ("id IN (TABLE orders)", "has the name `TABLE`"),
        ("id IN (VALUES ('a'))", "has the name `VALUES`"),
        ("id IN orders", "has the name `orders`"),
        ("id IN union", "has no list behind `IN`"),
        ("EXISTS (SELECT 1)", "has the name `EXISTS`"),
        ("pg_sleep(10) IS NULL", "has the name `pg_sleep`"),
        ("\"pg_sleep\"(10) IS NULL", "has a bracket directly behind the column `pg_sleep`"),
        ("\"pg_sleep\" (10) IS NULL", "has a bracket directly behind the column `pg_sleep`"),
        ("query_to_xml('select 1', true, true, '') IS NULL", "has the name `query_to_xml`"),
        ("load_extension('x') IS NULL", "has the name `load_extension`"),
        ("orders.paid", "has the name `orders`"),
        ("r.paid", "has the name `r`"),
        ("paid.r", "has the character '.' outside of quotes"),
        ("tenant = 'south'", "leave the tenant out"),
        ("\"tenant\" = 'south'", "leave the tenant out"),
        ("\"south\" = id", "has the name `south`"),
        ("\"id\"\"x\" = 'a'", "has '\"' directly behind `\"id\"`"),
        ("\"id", "has the name `id`"),
        ("id = E'\\'", "has the name `E`"),
        ("id = 'a\\' OR 1 = 1", "has a backslash or U+0000 within quotes"),
        ("id = 'a\0'", "has a backslash or U+0000 within quotes"),
        ("id = \0", "has the character '\\0' outside of quotes"),
        ("id = 'a", "has a quote that is not closed"),
        ("id = 'a'$1", "has '$' directly behind `'a'`"),
        ("id = x'ab'", "has the name `x`"),
        ("id = 5'ab'", "has '\\'' directly behind `5`"),
        ("id = $$a$$", "has a `$` that begins no value"),
        ("id = $a$x$a$", "has a `$` that begins no value"),
        ("id = $1$", "has '$' directly behind `$1`"),
        ("id = $1a", "has 'a' directly behind `$1`"),
        ("id = $0", "has a `$` that begins no value"),
        ("id = $01", "has a `$` that begins no value"),
        ("id = $99999999999999999999999", "has a `$` that begins no value"),
        ("id = $1", "names `$1`, but 0 values were given"),
        ("id = ?", "has the character '?' outside of quotes"),
        ("id = :id", "has the character ':' outside of quotes"),
        ("id::int = 1", "has the character ':' outside of quotes"),
        ("id = [id]", "has the character '[' outside of quotes"),
        ("id = `id`", "has the character '`' outside of quotes"),
        ("id == 'a'", "has the operator `==`"),
        ("doc -> 'a' IS NULL", "has the operator `->`"),
        ("doc = '{}'", "has the column `doc`, which is JSON"),
        ("ORDER BY doc", "has the column `doc`, which is JSON"),
        ("id COLLATE nocase = 'a'", "has the name `COLLATE`"),
        ("CAST(id AS integer) = 5", "has the name `CAST`"),
        ("WHERE paid", "begin with the condition that follows it"),
        ("paid FOR UPDATE", "has the name `FOR`"),
        ("paid RETURNING id", "has the name `RETURNING`"),
        ("paid GROUP BY id", "has the name `GROUP`"),
        ("paid ORDER id", "has `ORDER r.\"id\"`"),
        ("paid ORDER BY", "has no column behind `ORDER BY`"),
        ("paid AND", "ends with `AND`"),
        ("paid OR NOT ORDER BY id", "ends with `NOT`"),
        ("cents = LIMIT 1", "ends with `=`"),
        ("ORDER BY LIMIT 1", "has no column behind `ORDER BY`"),
        ("ORDER BY note", "orders by `note`, which may be null"),
        ("ORDER BY id, note DESC", "orders by `note`, which may be null"),
        ("ORDER BY id ORDER BY line", "has `ORDER` where it cannot be"),
        ("ORDER BY 2 DESC", "orders by `2`"),
        ("ORDER BY id, 'x'", "orders by `'x'`"),
        ("LIMIT 1 ORDER BY id", "has `LIMIT 1 ORDER BY r.\"id\"`"),
        ("LIMIT 1 LIMIT 2", "has `LIMIT 1 LIMIT 2`"),
        ("LIMIT 5, 10", "has `LIMIT 5 , 10`"),
        ("OFFSET 1 LIMIT 1", "has `OFFSET 1 LIMIT 1`"),
        ("LIMIT", "has `LIMIT`"),
        ("LIMIT - 1", "has `LIMIT - 1`"),
        ("LIMIT ALL", "has the name `ALL`"),
        ("LIMIT NULL", "has `NULL` behind `LIMIT`"),
        ("LIMIT 1.5", "has `1.5` behind `LIMIT`"),
        ("LIMIT 101", "asks for 101 rows at once, and 100 are the most"),
        ("id IN (id ORDER BY id)", "has `ORDER` in brackets"),
        ("(paid LIMIT 1)", "has `LIMIT` in brackets"),
        ("cents = 1.2.3", "has the number `1.2`"),
        ("cents = 1e9", "has 'e' directly behind `1`"),
        ("cents = 0x1F", "has 'x' directly behind `0`"),
        (long.as_str(), "has the number `9999999999999999`"),
        ("status\u{e9} = 1", "has the name `status`"),
        ("cents\u{e9} = 1", "has 'é' directly behind `cents`"),
        ("paid\u{a0}OR 1 = 1", "has the character '\\u{a0}' outside of quotes"),
        ("\u{ff07}a\u{ff07} = id", "outside of quotes"),
    ];
    let says_so = |text: &str, says: &str| parsed(text, &[]).is_err_and(|problem| problem.contains(says));
    let others = hostile.iter().filter(|(text, says)| !says_so(text, says));
    let others: Vec<_> = others.map(|(text, _)| (text, parsed(text, &[]))).collect();
    assert!(others.is_empty(), "{others:#?}");
}

#[test]
fn values_are_all_named_and_fit_what_they_are_compared_with() {
    let at = Timestamp::UNIX_EPOCH;
    let tenant = Tenant::new("north").unwrap();
    let ok: [(&str, &[&dyn QueryValue]); 9] = [
        ("cents = $1 AND cents > $1 AND cents < 0.5 AND share > 5", &[&5_u32]),
        ("share < $1 OR share <> $1", &[&0.5]),
        ("at > $1 AND $1 <= at", &[&at]),
        ("paid = $1", &[&true]),
        ("note = $1", &[&None::<String>]),
        ("id IN ($1, 'b', $2) AND id NOT LIKE 'c%'", &[&"a", &String::from("c")]),
        ("lower(id) = $1 AND length(id) > 2", &[&tenant]),
        ("at BETWEEN $1 AND $2", &[&at, &at]),
        ("coalesce(note, 'none') = $1", &[&"none"]),
    ];
    for (text, values) in ok {
        assert!(parsed(text, values).is_ok(), "{text}: {:?}", parsed(text, values));
    }
    let wrong: [(&str, &[&dyn QueryValue], &str); 26] = [
        ("id = $1", &[&"a", &"b"], "does not name `$2`, but 2 values were given"),
        ("id = $2", &[&"a"], "names `$2`, but 1 values were given"),
        ("id = $2", &[&"a", &"b"], "does not name `$1`"),
        ("cents > $1", &[&0.5], "compares `cents`, which is an integer, with $1, which is a real number"),
        ("share = $1", &[&5], "compares `share`, which is a real number, with $1, which is an integer"),
        ("at > $1", &[&"2026-03-01"], "compares `at`, which is a timestamp, with $1, which is text"),
        ("at > '2026-03-01'", &[], "compares `at`, which is a timestamp, with the text '2026-03-01'"),
        ("'2026-03-01' < at", &[], "compares `at`, which is a timestamp, with the text '2026-03-01'"),
        ("at BETWEEN '2026' AND '2027'", &[], "compares `at`, which is a timestamp, with the text '2026'"),
        ("at NOT BETWEEN $1 AND '2027'", &[&at], "compares `at`, which is a timestamp, with the text '2027'"),
        ("paid = 1", &[], "compares `paid`, which is a bool, with the number 1"),
        ("cents NOT IN (1, '2')", &[], "compares `cents`, which is an integer, with the text '2'"),
        ("cents IN ($1, $2)", &[&1, &true], "compares `cents`, which is an integer, with $2, which is a bool"),
        ("cents LIKE '1%'", &[], "compares `cents`, which is an integer, with the text '1%'"),
        ("cents IS NOT DISTINCT FROM $1", &[&"5"], "compares `cents`, which is an integer, with $1, which is text"),
        ("'a' IS DISTINCT FROM paid", &[], "compares `paid`, which is a bool, with the text 'a'"),
        ("note IS DISTINCT FROM at", &[], "compares `at`, which is a timestamp, with `note`, which is text"),
        ("id = cents", &[], "compares `cents`, which is an integer, with `id`, which is text"),
        ("id = 5.5", &[], "compares `id`, which is text, with the number 5.5"),
        ("LIMIT $1", &[&"5"], "has `$1` behind `LIMIT`"),
        ("LIMIT $1", &[&-1], "has `$1` behind `LIMIT`"),
        ("LIMIT $1", &[&None::<i64>], "has `$1` behind `LIMIT`"),
        ("LIMIT $1", &[&101], "asks for 101 rows at once"),
        ("LIMIT 1 OFFSET $1", &[&-1], "has `$1` behind `OFFSET`"),
        ("share > $1", &[&f64::NAN], "value 1 is NaN"),
        ("id = $1 AND id = $2", &[&"a", &"b\0"], "value 2 holds the character U+0000"),
    ];
    for (text, values, says) in wrong {
        let problem = parsed(text, values).unwrap_err();
        assert!(problem.contains(says), "{text}: {problem}");
    }
}

/// What a value is does not depend on whether it is there.
#[test]
fn a_value_that_is_null_has_the_type_of_its_column() {
    assert_eq!(
        checked(&[&None::<Timestamp>, &"x"]).unwrap(),
        [(ColumnType::Timestamp, ColumnValue::Null), (ColumnType::Text, ColumnValue::Text("x".into())),]
    );
}
