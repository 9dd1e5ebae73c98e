//! The words and signs of a condition that a user wrote: those that mean the same in every database, and nothing else.
//!
//! The statement is put together from the tokens, never from the text itself. So nothing reaches a database that is not
//! listed here, and a column is written so that it can be nothing but a column of the read model.

use std::fmt;

use crate::read_model::{ColumnSpec, TENANT, TableSpec};

/// One word or sign.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'t> {
    Column(&'static ColumnSpec),
    /// A word of SQL, in capitals.
    Word(&'static str),
    Function(&'static str),
    Number(&'t str),
    /// A text in quotes.
    Text(&'t str),
    /// `$1`, by its number.
    Value(usize),
    Operator(&'static str),
    Open,
    Close,
    Comma,
}

/// There is no word that begins a query of its own: without them no text can read a table.
const WORDS: [&str; 27] = [
    "AND", "OR", "NOT", "IN", "IS", "NULL", "LIKE", "BETWEEN", "ESCAPE", "TRUE", "FALSE", "CASE", "WHEN", "THEN",
    "ELSE", "END", "DISTINCT", "FROM", "ORDER", "BY", "ASC", "DESC", "NULLS", "FIRST", "LAST", "LIMIT", "OFFSET",
];

/// Those that give the same in every database and have no effect.
const FUNCTIONS: [&str; 6] = ["lower", "upper", "length", "coalesce", "nullif", "abs"];

const OPERATORS: [&str; 13] = ["=", "<>", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "||"];

/// Those that compare two values of one type.
pub(super) const COMPARISONS: [&str; 7] = ["=", "<>", "!=", "<", "<=", ">", ">="];

/// What is wrong with a text, as the rest of a sentence that begins with it, and what to do instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) problem: String,
    pub(super) fix: String,
}

impl Problem {
    pub(super) fn new(problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { problem: problem.into(), fix: fix.into() }
    }
}

const OWN_QUERY: &str = "write a query that needs more than columns, values and comparisons as SQL of your own";

/// Columns are qualified, so that none can be taken for something else: SQLite takes a name in quotes that is no column for
/// a text.
impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column(column) => write!(f, "r.\"{}\"", column.name),
            Self::Word(text) | Self::Function(text) | Self::Operator(text) => f.write_str(text),
            Self::Number(text) | Self::Text(text) => f.write_str(text),
            Self::Value(number) => write!(f, "${number}"),
            Self::Open => f.write_str("("),
            Self::Close => f.write_str(")"),
            Self::Comma => f.write_str(","),
        }
    }
}

/// The tokens with spaces between them.
pub(super) fn join(tokens: &[Token]) -> String {
    tokens.iter().map(Token::to_string).collect::<Vec<_>>().join(" ")
}

/// Cuts a text into tokens.
pub(super) fn tokens<'t>(table: &'static TableSpec, text: &'t str) -> Result<Vec<Token<'t>>, Problem> {
    let mut found = Vec::new();
    let mut rest = text.trim_ascii_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '\'' => string(rest)?,
            '"' => quoted_column(table, rest)?,
            '$' => value(rest)?,
            '0'..='9' => number(rest)?,
            'a'..='z' | 'A'..='Z' | '_' => word(table, &found, rest)?,
            _ if is_operator(first) => operator(rest)?,
            other => return Err(Problem::new(format!("has the character {other:?} outside of quotes"), OWN_QUERY)),
        };
        found.push(token);
        let after = &rest[length..];
        // What stands directly behind may change the meaning: `E'..'` and `$1$` do in PostgreSQL.
        let joined = after.chars().next().filter(|c| is_word(*c) || matches!(c, '\'' | '"' | '$'));
        if let Some(joined) =
            joined.filter(|_| !matches!(token, Token::Open | Token::Close | Token::Comma | Token::Operator(_)))
        {
            let problem = format!("has {joined:?} directly behind `{}`", &rest[..length]);
            return Err(Problem::new(problem, "put a space between them, or bind the value"));
        }
        rest = after.trim_ascii_start();
    }
    Ok(found)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_operator(c: char) -> bool {
    matches!(c, '=' | '<' | '>' | '!' | '+' | '-' | '*' | '/' | '%' | '|')
}

/// How many bytes of the beginning of a text are such characters.
fn run(text: &str, is: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is(c)).unwrap_or(text.len())
}

fn string(text: &str) -> Result<(Token<'_>, usize), Problem> {
    let mut from = 1;
    let length = loop {
        let Some(end) = text[from..].find('\'') else {
            return Err(Problem::new("has a quote that is not closed", "close it, or bind the value"));
        };
        from += end + 1;
        // Two quotes are one quote of the text.
        if !text[from..].starts_with('\'') {
            break from;
        }
        from += 1;
    };
    let string = &text[..length];
    // Some servers take a backslash for the beginning of an escape, and then the text ends elsewhere.
    if string.contains(['\\', '\0']) {
        return Err(Problem::new("has a backslash or U+0000 within quotes", "bind the value: `$1`"));
    }
    Ok((Token::Text(string), length))
}

fn quoted_column<'t>(table: &'static TableSpec, text: &'t str) -> Result<(Token<'t>, usize), Problem> {
    let name = text[1..].split('"').next().unwrap_or_default();
    let closed = text[1 + name.len()..].starts_with('"');
    match column(table, name).filter(|_| closed) {
        Some(column) => Ok((Token::Column(column), name.len() + 2)),
        None => Err(unknown(table, name)),
    }
}

fn value(text: &str) -> Result<(Token<'_>, usize), Problem> {
    let length = 1 + run(&text[1..], |c| c.is_ascii_digit());
    match text[1..length].parse() {
        Ok(number) if number > 0 && !text[1..].starts_with('0') => Ok((Token::Value(number), length)),
        _ => Err(Problem::new("has a `$` that begins no value", "name values by `$1`, `$2` and so on")),
    }
}

/// The most digits of a number: so many are exact as an integer and as a real number.
const MOST_DIGITS: usize = 15;

fn number(text: &str) -> Result<(Token<'_>, usize), Problem> {
    let whole = run(text, |c| c.is_ascii_digit());
    let fraction = text[whole..].strip_prefix('.').map_or(0, |rest| run(rest, |c| c.is_ascii_digit()));
    let length = if fraction > 0 { whole + 1 + fraction } else { whole };
    if length > MOST_DIGITS || text[length..].starts_with('.') {
        return Err(Problem::new(format!("has the number `{}`", &text[..length]), "bind the value: `$1`"));
    }
    Ok((Token::Number(&text[..length]), length))
}

fn operator(text: &str) -> Result<(Token<'_>, usize), Problem> {
    let length = run(text, is_operator);
    let sign = &text[..length];
    match OPERATORS.iter().find(|operator| **operator == sign) {
        Some(operator) => Ok((Token::Operator(operator), length)),
        None if sign.contains("--") || sign.contains("/*") => {
            Err(Problem::new("has a comment", "leave it out, and put spaces between signs"))
        }
        None => Err(Problem::new(
            format!("has the operator `{sign}`"),
            format!("put spaces between signs; there are {}", OPERATORS.join(" ")),
        )),
    }
}

/// Whether a value must follow, as far as the last word or sign says it.
pub(super) fn expects_value(before: &[Token]) -> bool {
    match before {
        // `x IS NOT ..` and `x NOT IN ..` are no values.
        [before @ .., Token::Word("NOT")] => expects_value(before),
        [] | [.., Token::Open | Token::Comma | Token::Operator(_)] => true,
        [.., Token::Word(word)] => matches!(
            *word,
            "AND"
                | "OR"
                | "LIKE"
                | "BETWEEN"
                | "ESCAPE"
                | "WHEN"
                | "THEN"
                | "ELSE"
                | "FROM"
                | "BY"
                | "LIMIT"
                | "OFFSET"
        ),
        _ => false,
    }
}

/// A name where a value must be is that of a column. If it is a word as well, the databases read it differently.
fn is_ambiguous(table: &TableSpec, before: &[Token], word: &str, rest: &str) -> bool {
    let next = rest.trim_ascii_start();
    let is_clause = match word {
        "NOT" | "CASE" => true,
        "ORDER" => next.get(..2).is_some_and(|next| next.eq_ignore_ascii_case("by")),
        "LIMIT" | "OFFSET" => before.is_empty() && next.starts_with(|c: char| c == '$' || c.is_ascii_digit()),
        _ => false,
    };
    !is_clause && expects_value(before) && column(table, &word.to_ascii_lowercase()).is_some()
}

fn word<'t>(table: &'static TableSpec, before: &[Token], text: &'t str) -> Result<(Token<'t>, usize), Problem> {
    let length = run(text, |c| c.is_ascii_alphanumeric() || c == '_');
    let word = &text[..length];
    let is_called = text[length..].trim_ascii_start().starts_with('(');
    let same = |known: &&&str| known.eq_ignore_ascii_case(word);
    if let Some(known) = WORDS.iter().find(same) {
        if is_ambiguous(table, before, known, &text[length..]) {
            let problem = format!("has the word `{word}` where a value must be, and a column of that name");
            return Err(Problem::new(problem, format!("write the column as \"{}\"", word.to_ascii_lowercase())));
        }
        return Ok((Token::Word(known), length));
    }
    if let Some(known) = FUNCTIONS.iter().find(same).filter(|_| is_called) {
        return Ok((Token::Function(known), length));
    }
    match column(table, &word.to_ascii_lowercase()).filter(|_| !is_called) {
        Some(column) => Ok((Token::Column(column), length)),
        None if word.eq_ignore_ascii_case("where") => {
            Err(Problem::new("has the word `where`", "begin with the condition that follows it"))
        }
        None => Err(unknown(table, word)),
    }
}

fn column(table: &TableSpec, name: &str) -> Option<&'static ColumnSpec> {
    table.row_columns().iter().find(|column| column.name == name)
}

fn unknown(table: &TableSpec, name: &str) -> Problem {
    let problem =
        format!("has the name `{}`, which is no column, word or function that it may have", name.escape_debug());
    let fix = match table.per_tenant && name.eq_ignore_ascii_case(TENANT) {
        true => "leave the tenant out: the rows are those of the tenant that is given".to_owned(),
        false => {
            let columns: Vec<String> = table.row_columns().iter().map(|column| format!("`{}`", column.name)).collect();
            format!("its columns are {}; {OWN_QUERY}", columns.join(", "))
        }
    };
    Problem::new(problem, fix)
}
