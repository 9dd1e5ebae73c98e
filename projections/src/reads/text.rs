//! The text that a user gives to `select`: a condition, an order and a limit, each optional.

use super::tokens::{COMPARISONS, Problem, Token, expects_value, join, tokens};
use super::types;
use crate::column::{ColumnType, ColumnValue};
use crate::read_model::TableSpec;

/// The parts of a statement that follow from the text, written for any database. Values are `$1` and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clauses {
    /// Empty if every row is wanted.
    pub(super) condition: String,
    /// Never empty: rows that are equal so far are in the order of their keys.
    pub(super) order: String,
    /// `LIMIT`, and `OFFSET` if there is one.
    pub(super) limit: String,
}

/// Checks a text and its values. `most` rows may be asked for; where the text has no limit, the statement gives one row more
/// at most, so that too many are noticed.
pub(super) fn clauses(
    table: &'static TableSpec,
    text: &str,
    values: &[(ColumnType, ColumnValue)],
    most: usize,
) -> Result<Clauses, Problem> {
    let tokens = tokens(table, text)?;
    check_brackets(&tokens)?;
    check_comparisons(&tokens)?;
    check_values(&tokens, values.len())?;
    let types: Vec<ColumnType> = values.iter().map(|(column_type, _)| *column_type).collect();
    types::check(&tokens, &types)?;
    let (condition, rest) = split_at_word(&tokens, &["ORDER", "LIMIT", "OFFSET"]);
    let (order, rest) = match rest {
        [Token::Word("ORDER"), Token::Word("BY"), rest @ ..] => split_at_word(rest, &["LIMIT", "OFFSET"]),
        _ => (&[][..], rest),
    };
    let has_order = rest.len() + condition.len() + order.len() < tokens.len();
    if has_order && order.is_empty() {
        return Err(Problem::new("has no column behind `ORDER BY`", "name one"));
    }
    let (limit, offset) = match rest {
        [] => (None, None),
        [Token::Word("LIMIT"), limit] => (Some(limit), None),
        [Token::Word("OFFSET"), offset] => (None, Some(offset)),
        [Token::Word("LIMIT"), limit, Token::Word("OFFSET"), offset] => (Some(limit), Some(offset)),
        _ => {
            let fix = "write `ORDER BY ..`, `LIMIT n` and `OFFSET n` in this order, each once, outside of brackets; n is a number or `$1`";
            return Err(Problem::new(format!("has `{}`", join(rest)), fix));
        }
    };
    if let Some(last) = condition.last().filter(|_| expects_value(condition)) {
        return Err(Problem::new(format!("ends with `{last}`"), "write what follows it"));
    }
    if let Some(clause) = condition.iter().chain(order).find(|token| is_clause(token)) {
        let fix = "write each clause once, and outside of brackets";
        return Err(Problem::new(format!("has `{clause}` where it cannot be"), fix));
    }
    let limit = match limit {
        Some(limit) => number(limit, values, Some(most), "LIMIT")?,
        None => (most + 1).to_string(),
    };
    let mut limit = format!("LIMIT {limit}");
    if let Some(offset) = offset {
        limit.push_str(" OFFSET ");
        limit.push_str(&number(offset, values, None, "OFFSET")?);
    }
    Ok(Clauses { condition: join(condition), order: order_of(table, order)?, limit })
}

fn is_clause(token: &Token) -> bool {
    matches!(token, Token::Word("ORDER" | "BY" | "LIMIT" | "OFFSET"))
}

/// The tokens before the first of these words, and the others.
fn split_at_word<'a, 't>(tokens: &'a [Token<'t>], words: &[&str]) -> (&'a [Token<'t>], &'a [Token<'t>]) {
    let is_one = |token: &Token| matches!(token, Token::Word(word) if words.contains(word));
    tokens.split_at(tokens.iter().position(is_one).unwrap_or(tokens.len()))
}

fn check_brackets(tokens: &[Token]) -> Result<(), Problem> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Open => depth += 1,
            Token::Close if depth == 0 => {
                return Err(Problem::new("closes a bracket that it has not opened", "open and close each bracket"));
            }
            Token::Close => depth -= 1,
            // SQLite would take what follows for the name of a table.
            Token::Word("IN") if tokens.get(at + 1) != Some(&Token::Open) => {
                return Err(Problem::new("has no list behind `IN`", "write `IN ($1, $2)`"));
            }
            // A function of this name in a schema that is called like the rows.
            Token::Column(column) if tokens.get(at + 1) == Some(&Token::Open) => {
                let problem = format!("has a bracket directly behind the column `{}`", column.name);
                return Err(Problem::new(problem, "put an operator between them"));
            }
            token if depth > 0 && is_clause(token) => {
                return Err(Problem::new(format!("has `{token}` in brackets"), "write it outside of brackets"));
            }
            _ => {}
        }
    }
    match depth {
        0 => Ok(()),
        _ => Err(Problem::new("has a bracket that is not closed", "open and close each bracket")),
    }
}

/// Two comparisons in a row are read from left to right by one database and by rank by another.
fn check_comparisons(tokens: &[Token]) -> Result<(), Problem> {
    // For each open bracket or `CASE`: whether something was compared, and how many `AND` belong to a `BETWEEN`.
    let mut open = vec![(false, 0_usize)];
    for token in tokens {
        match token {
            Token::Open | Token::Word("CASE") => open.push((false, 0)),
            Token::Close | Token::Word("END") => drop(open.pop()),
            _ => {}
        }
        let Some((compared, ands)) = open.last_mut() else { return Ok(()) };
        match token {
            Token::Word("AND") if *ands > 0 => *ands -= 1,
            Token::Comma | Token::Word("AND" | "OR" | "WHEN" | "THEN" | "ELSE" | "ORDER" | "BY") => *compared = false,
            Token::Operator(operator) if !COMPARISONS.contains(operator) => {}
            Token::Operator(_) | Token::Word("IS" | "IN" | "LIKE" | "BETWEEN") => {
                if std::mem::replace(compared, true) {
                    let problem =
                        format!("has `{token}` behind another comparison, and databases read that differently");
                    return Err(Problem::new(problem, "put one of them in brackets"));
                }
                *ands += usize::from(*token == Token::Word("BETWEEN"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Every value is named in the text, and no other.
fn check_values(tokens: &[Token], given: usize) -> Result<(), Problem> {
    let named = |number: usize| tokens.contains(&Token::Value(number));
    let beyond = tokens.iter().find(|token| matches!(token, Token::Value(number) if *number > given));
    if let Some(token) = beyond {
        return Err(Problem::new(format!("names `{token}`, but {given} values were given"), "give a value for each"));
    }
    match (1..=given).find(|number| !named(*number)) {
        Some(number) => {
            let problem = format!("does not name `${number}`, but {given} values were given");
            Err(Problem::new(problem, "name each value, or leave it out"))
        }
        None => Ok(()),
    }
}

/// How many rows, which is written in the text or is one of the values.
fn number(
    token: &Token,
    values: &[(ColumnType, ColumnValue)],
    most: Option<usize>,
    clause: &str,
) -> Result<String, Problem> {
    let number = match token {
        Token::Number(number) => number.parse().ok(),
        Token::Value(number) => match values.get(number - 1) {
            Some((_, ColumnValue::Integer(number))) => Some(*number),
            _ => None,
        },
        _ => None,
    };
    let number = number.and_then(|number| u64::try_from(number).ok());
    match (number, most) {
        (None, _) => Err(Problem::new(
            format!("has `{token}` behind `{clause}`, which is no whole number of 0 or more"),
            "give such a number, or a value that is one",
        )),
        (Some(number), Some(most)) if number > most as u64 => {
            let fix = "read them in parts: the rows whose keys follow the last of the part before";
            Err(Problem::new(format!("asks for {number} rows at once, and {most} are the most"), fix))
        }
        _ => Ok(token.to_string()),
    }
}

/// The order that was asked for, and behind it that of the keys.
fn order_of(table: &'static TableSpec, tokens: &[Token]) -> Result<String, Problem> {
    let mut depth = 0_usize;
    let items = tokens.split(|token| {
        match token {
            Token::Open => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && *token == Token::Comma
    });
    let mut ordered = Vec::new();
    let mut columns = Vec::new();
    for item in items.filter(|_| !tokens.is_empty()) {
        // A number alone would be the place of a column.
        if let [constant @ (Token::Number(_) | Token::Text(_) | Token::Value(_)), behind @ ..] = item
            && matches!(behind, [] | [Token::Word(_), ..])
        {
            return Err(Problem::new(format!("orders by `{constant}`"), "name the column"));
        }
        if let [Token::Column(column), behind @ ..] = item
            && matches!(behind, [] | [Token::Word("ASC" | "DESC"), ..] | [Token::Word("NULLS"), ..])
        {
            columns.push(column.name);
        }
        if may_be_null(item) && !item.contains(&Token::Word("NULLS")) {
            let what = match item {
                [Token::Column(column), ..] if columns.contains(&column.name) => column.name.to_owned(),
                _ => join(item),
            };
            let problem = format!("orders by `{what}`, which may be null, and databases order nulls differently");
            return Err(Problem::new(problem, "write `NULLS FIRST` or `NULLS LAST` behind it"));
        }
        ordered.push(join(item));
    }
    // The tenant is the same in all rows.
    let key = table.key.iter().filter(|key| !columns.contains(key));
    let key = key.filter_map(|key| table.row_columns().iter().find(|column| column.name == *key));
    ordered.extend(key.map(|column| Token::Column(column).to_string()));
    Ok(ordered.join(", "))
}

/// Whether what is ordered by may be null, as far as that can be seen.
fn may_be_null(item: &[Token]) -> bool {
    let is_direction = |token: &Token| matches!(token, Token::Word("ASC" | "DESC" | "NULLS"));
    let end = item.iter().position(is_direction).unwrap_or(item.len());
    let is_null = |token: &Token| match token {
        Token::Column(column) => column.nullable,
        Token::Function(function) => *function == "nullif",
        Token::Word(word) => matches!(*word, "NULL" | "CASE"),
        _ => false,
    };
    match &item[..end] {
        [Token::Column(_), Token::Word("IS"), Token::Word("NULL")]
        | [Token::Column(_), Token::Word("IS"), Token::Word("NOT"), Token::Word("NULL")] => false,
        // Its last value stands in for all nulls before.
        [Token::Function("coalesce"), Token::Open, values @ .., Token::Comma, last, Token::Close]
            if !values.contains(&Token::Close) =>
        {
            is_null(last)
        }
        all => all.iter().any(is_null),
    }
}
