//! Whether values are compared with columns of their type.
//!
//! PostgreSQL refuses a time that is compared with a text; SQLite finds no rows. So the comparisons that can be seen
//! without knowing the types of expressions are checked before either is asked.

use super::tokens::{COMPARISONS, Problem, Token};
use crate::column::ColumnType;
use crate::read_model::ColumnSpec;

/// Checks each value, number, text and column that is compared with a column directly, by `IN`, `BETWEEN` or `IS DISTINCT FROM`.
pub(super) fn check(tokens: &[Token], values: &[ColumnType]) -> Result<(), Problem> {
    for (at, token) in tokens.iter().enumerate() {
        if let Token::Column(column) = token {
            check_json(column, tokens.get(at + 1))?;
        }
        if *token == Token::Operator("%") {
            check_remainder(tokens, at, values)?;
        }
        let (found, what) = match token {
            Token::Text(text) => (ColumnType::Text, format!("the text {text}")),
            Token::Number(number) if number.contains('.') => (ColumnType::Real, format!("the number {number}")),
            Token::Number(number) => (ColumnType::Integer, format!("the number {number}")),
            Token::Value(number) => match values.get(number - 1) {
                Some(ColumnType::Json) => {
                    let problem = format!("has JSON as value ${number}, and databases compare JSON differently");
                    return Err(Problem::new(problem, "keep what you compare in a column of its own"));
                }
                Some(found) => (*found, format!("${number}, which is {},", word_of(*found))),
                None => continue,
            },
            Token::Column(column) => {
                (column.column_type, format!("`{}`, which is {},", column.name, word_of(column.column_type)))
            }
            _ => continue,
        };
        let before = compared_before(&tokens[..at]);
        let is_written = !matches!(token, Token::Value(_)) && is_number(found);
        for column in before.into_iter().chain(compared_behind(&tokens[at + 1..])) {
            // Large integers and real numbers are compared exactly by SQLite alone.
            let fits = column.column_type == found || is_written && is_number(column.column_type);
            if !fits {
                let problem =
                    format!("compares `{}`, which is {}, with {what}", column.name, word_of(column.column_type));
                let fix = match token {
                    Token::Column(_) => "compare columns of one type",
                    _ => "bind a value of the type that the row's field has",
                };
                return Err(Problem::new(problem.trim_end_matches(','), fix));
            }
        }
    }
    Ok(())
}

fn check_json(column: &ColumnSpec, next: Option<&Token>) -> Result<(), Problem> {
    if column.column_type != ColumnType::Json || next == Some(&Token::Word("IS")) {
        return Ok(());
    }
    let problem = format!("has the column `{}`, which is JSON, and databases compare JSON differently", column.name);
    Err(Problem::new(
        problem,
        "keep what you compare in a column of its own; only `IS NULL` and `IS NOT NULL` may follow",
    ))
}

/// SQLite gives the remainder of whole numbers, whatever they were before; PostgreSQL that of the numbers as they are, or none.
fn check_remainder(tokens: &[Token], at: usize, values: &[ColumnType]) -> Result<(), Problem> {
    let is_real = |token: &Token| match token {
        Token::Column(column) => column.column_type == ColumnType::Real,
        Token::Number(number) => number.contains('.'),
        Token::Value(number) => values.get(number - 1) == Some(&ColumnType::Real),
        _ => false,
    };
    let behind = tokens[at + 1..].iter().find(|token| **token != Token::Operator("-"));
    match tokens[..at].last().into_iter().chain(behind).find(|token| is_real(token)) {
        Some(token) => Err(Problem::new(
            format!("has the remainder of `{token}`, which is a real number, and databases give it differently"),
            "use `%` between integers",
        )),
        None => Ok(()),
    }
}

fn is_number(kind: ColumnType) -> bool {
    matches!(kind, ColumnType::Integer | ColumnType::Real)
}

/// The column with which a value is compared whose place is behind these tokens.
fn compared_before(tokens: &[Token]) -> Option<&'static ColumnSpec> {
    let (last, before) = tokens.split_last()?;
    match last {
        Token::Operator(operator) if COMPARISONS.contains(operator) => column_of(before),
        Token::Word("LIKE" | "BETWEEN") => column_of(before),
        // `IS NOT DISTINCT FROM $1`
        Token::Word("FROM") => match before {
            [before @ .., Token::Word("IS"), Token::Word("DISTINCT")]
            | [before @ .., Token::Word("IS"), Token::Word("NOT"), Token::Word("DISTINCT")] => column_of(before),
            _ => None,
        },
        // `BETWEEN $1 AND $2`
        Token::Word("AND") => match before {
            [before @ .., Token::Word("BETWEEN"), _] => column_of(before),
            _ => None,
        },
        // `IN ($1, $2)`
        Token::Open | Token::Comma => {
            let is_listed =
                |token: &Token| matches!(token, Token::Comma | Token::Number(_) | Token::Text(_) | Token::Value(_));
            let list = tokens.iter().rposition(|token| !is_listed(token))?;
            match &tokens[..=list] {
                [before @ .., Token::Word("IN"), Token::Open] => column_of(before),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The column with which a value is compared that stands before these tokens.
fn compared_behind(tokens: &[Token]) -> Option<&'static ColumnSpec> {
    match tokens {
        [Token::Operator(operator), Token::Column(column), ..] if COMPARISONS.contains(operator) => Some(column),
        [Token::Word("IS"), Token::Word("DISTINCT"), Token::Word("FROM"), Token::Column(column), ..]
        | [
            Token::Word("IS"),
            Token::Word("NOT"),
            Token::Word("DISTINCT"),
            Token::Word("FROM"),
            Token::Column(column),
            ..,
        ] => Some(column),
        _ => None,
    }
}

/// The column that stands last, before a `NOT`. It may be a part of an expression, whose type is then that of the column.
fn column_of(tokens: &[Token]) -> Option<&'static ColumnSpec> {
    match tokens {
        [.., Token::Column(column)] | [.., Token::Column(column), Token::Word("NOT")] => Some(column),
        _ => None,
    }
}

fn word_of(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Integer => "an integer",
        ColumnType::Real => "a real number",
        ColumnType::Text => "text",
        ColumnType::Bool => "a bool",
        ColumnType::Timestamp => "a timestamp",
        ColumnType::Uuid => "a UUID",
        ColumnType::Bytes => "bytes",
        ColumnType::Json => "JSON",
    }
}
