//! PARSE: the words of our attributes, and how their values are read.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::{Attribute, Error, Expr, Ident, Lit, LitInt, LitStr, Meta, Path, Result, Token, Type, parenthesized};

use crate::mistakes::Mistakes;

pub(crate) const EVENT: &str = "event";
pub(crate) const AGGREGATE: &str = "aggregate";
pub(crate) const READ_MODEL: &str = "read_model";
pub(crate) const COLUMN: &str = "column";

pub(crate) const CRATE: &str = "crate";
pub(crate) const NAME: &str = "name";
pub(crate) const VERSION: &str = "version";
pub(crate) const ID: &str = "id";
pub(crate) const SNAPSHOT: &str = "snapshot";
pub(crate) const TRANSPARENT: &str = "transparent";
pub(crate) const UPCAST: &str = "upcast";
pub(crate) const OF: &str = "of";
pub(crate) const UPCASTERS: &str = "upcasters";
pub(crate) const FOLD: &str = "fold";
pub(crate) const EVERY: &str = "every";
pub(crate) const AFTER: &str = "after";
pub(crate) const NEVER: &str = "never";
pub(crate) const TABLE: &str = "table";
pub(crate) const KEY: &str = "key";
pub(crate) const INDEX: &str = "index";
pub(crate) const PER_TENANT: &str = "per_tenant";
pub(crate) const TEXT: &str = "text";
pub(crate) const JSON: &str = "json";

/// A word of an attribute with its value.
pub(crate) struct Word<T> {
    pub(crate) word: Ident,
    pub(crate) value: T,
}

/// All values of one word. `validate` refuses more than one.
pub(crate) struct Values<T>(pub(crate) Vec<Word<T>>);

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Values<T> {
    /// Adds the value of `word`, if it could be read.
    pub(crate) fn add(&mut self, word: &Ident, value: Result<T>) -> Result<()> {
        self.0.push(Word { word: word.clone(), value: value? });
        Ok(())
    }

    pub(crate) fn first(&self) -> Option<&Word<T>> {
        self.0.first()
    }
}

/// Reads every `#[attribute(word, word = .., word(..))]` among `attrs`: `take` gets each word of `known` and `misplaced`
/// and reads its value. Messages do not list misplaced words, because `validate` refuses them. Returns whether all was
/// understood; if not, a rule must not report that something is missing.
pub(crate) fn read(
    attrs: &[Attribute],
    attribute: &str,
    known: &[&str],
    misplaced: &[&str],
    mistakes: &mut Mistakes,
    mut take: impl FnMut(&Ident, ParseStream<'_>) -> Result<()>,
) -> bool {
    let mut understood = true;
    for attr in attrs.iter().filter(|attr| attr.path().is_ident(attribute)) {
        let Meta::List(list) = &attr.meta else {
            understood = false;
            mistakes.at(&attr.meta, format!("write `#[{attribute}(..)]` with {} in the parentheses", listed(known)));
            continue;
        };
        let words = |input: ParseStream<'_>| {
            while !input.is_empty() {
                if let Err(error) = one_word(input, attribute, known, misplaced, &mut take) {
                    understood = false;
                    mistakes.push(error);
                    skip_to_comma(input);
                }
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(())
        };
        if let Err(error) = words.parse2(list.tokens.clone()) {
            understood = false;
            mistakes.push(error);
        }
    }
    understood
}

fn one_word(
    input: ParseStream<'_>,
    attribute: &str,
    known: &[&str],
    misplaced: &[&str],
    take: &mut impl FnMut(&Ident, ParseStream<'_>) -> Result<()>,
) -> Result<()> {
    if !input.peek(Ident::peek_any) {
        return Err(input.error(format!("expected a word; `#[{attribute}(..)]` knows {}", listed(known))));
    }
    let word = Ident::parse_any(input)?;
    if !known.iter().chain(misplaced).any(|known| word == known) {
        return Err(Error::new(
            word.span(),
            format!("`{word}` is no word of `#[{attribute}(..)]` here; it knows {}", listed(known)),
        ));
    }
    take(&word, input)?;
    if !input.is_empty() && !input.peek(Token![,]) {
        return Err(input.error(format!("expected a comma after the value of `{word}`")));
    }
    Ok(())
}

fn skip_to_comma(input: ParseStream<'_>) {
    while !input.is_empty() && !input.peek(Token![,]) {
        // Parsing one token tree cannot fail while there is one.
        let _ = input.parse::<TokenTree>();
    }
}

/// The known words as text: "`a`, `b` and `c`".
pub(crate) fn listed(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => "no words".to_owned(),
    }
}

/// A word by itself.
pub(crate) fn no_value(word: &Ident, input: ParseStream<'_>, attribute: &str) -> Result<()> {
    if input.is_empty() || input.peek(Token![,]) {
        return Ok(());
    }
    Err(Error::new(word.span(), format!("`{word}` takes no value; write `#[{attribute}({word})]`")))
}

/// `= "text"`.
pub(crate) fn text(word: &Ident, input: ParseStream<'_>, example: &str) -> Result<LitStr> {
    text_of(value(word, input, example)?, word, example)
}

fn text_of(value: Expr, word: &Ident, example: &str) -> Result<LitStr> {
    match value {
        Expr::Lit(lit) if lit.attrs.is_empty() => match lit.lit {
            Lit::Str(text) => Ok(text),
            other => Err(wanted(other, word, "text in quotes", example)),
        },
        other => Err(wanted(other, word, "text in quotes", example)),
    }
}

/// `= 1`.
pub(crate) fn number(word: &Ident, input: ParseStream<'_>, example: &str) -> Result<LitInt> {
    match value(word, input, example)? {
        Expr::Lit(lit) if lit.attrs.is_empty() => match lit.lit {
            Lit::Int(number) => Ok(number),
            other => Err(wanted(other, word, "a whole number", example)),
        },
        other => Err(wanted(other, word, "a whole number", example)),
    }
}

/// `= some::Type<..>`.
pub(crate) fn ty(word: &Ident, input: ParseStream<'_>, example: &str) -> Result<Type> {
    equals(word, input, example)?;
    if input.peek(Lit) {
        return Err(wanted(input.parse::<Lit>()?, word, "a type without quotes", example));
    }
    input.parse()
}

/// `= path::to::annals`.
pub(crate) fn path(word: &Ident, input: ParseStream<'_>, example: &str) -> Result<Path> {
    equals(word, input, example)?;
    if input.peek(Lit) {
        return Err(wanted(input.parse::<Lit>()?, word, "a path without quotes", example));
    }
    input.call(Path::parse_mod_style)
}

/// `= "name"` or `("name", "name")`.
pub(crate) fn texts(word: &Ident, input: ParseStream<'_>, example: &str) -> Result<Vec<LitStr>> {
    if !input.peek(syn::token::Paren) {
        return match value(word, input, example)? {
            Expr::Array(array) => {
                let names: Vec<_> = array.elems.iter().map(|name| name.to_token_stream().to_string()).collect();
                let message = format!("several names are in parentheses; write `{word}({})`", names.join(", "));
                Err(Error::new_spanned(array, message))
            }
            one => text_of(one, word, example).map(|text| vec![text]),
        };
    }
    in_parentheses(input, |content, span| {
        let mut texts = Vec::new();
        while !content.is_empty() {
            texts.push(match content.parse::<Option<LitStr>>()? {
                Some(text) => text,
                None => {
                    return Err(wanted(
                        content.parse::<TokenTree>()?,
                        word,
                        "names in quotes",
                        &format!("{word}(\"..\", \"..\")"),
                    ));
                }
            });
            if !content.is_empty() {
                content.parse::<Token![,]>()?;
            }
        }
        if texts.is_empty() {
            return Err(Error::new(span, format!("`{word}` names nothing; write `{example}`")));
        }
        Ok(texts)
    })
}

/// `(OneType, OtherType)`.
pub(crate) fn types(word: &Ident, input: ParseStream<'_>, example: &str) -> Result<Vec<Type>> {
    if !input.peek(syn::token::Paren) {
        if !input.is_empty() && !input.peek(Token![,]) {
            // Otherwise syn would report the value, a second message for one mistake.
            skip_to_comma(input);
        }
        return Err(Error::new(word.span(), format!("`{word}` has types in parentheses; write `{example}`")));
    }
    in_parentheses(input, |content, span| {
        let types: Vec<Type> = content.parse_terminated(Type::parse, Token![,])?.into_iter().collect();
        if types.is_empty() {
            return Err(Error::new(span, format!("`{word}` names no type; write `{example}`")));
        }
        Ok(types)
    })
}

/// Reads the content of parentheses. `read` also gets the span of the parentheses.
pub(crate) fn in_parentheses<T>(
    input: ParseStream<'_>,
    read: impl FnOnce(ParseStream<'_>, Span) -> Result<T>,
) -> Result<T> {
    let content;
    let parentheses = parenthesized!(content in input);
    let value = read(&content, parentheses.span.join());
    if value.is_err() {
        // Otherwise syn would report the remaining tokens, a second message for one mistake.
        content.parse::<TokenStream>()?;
    }
    value
}

fn value(word: &Ident, input: ParseStream<'_>, example: &str) -> Result<Expr> {
    equals(word, input, example)?;
    let mut value: Expr = input.parse()?;
    // A literal that came through a `macro_rules!` variable is wrapped in an invisible group.
    while let Expr::Group(group) = value {
        value = *group.expr;
    }
    Ok(value)
}

fn equals(word: &Ident, input: ParseStream<'_>, example: &str) -> Result<()> {
    let equals = input.parse::<Option<Token![=]>>()?;
    if equals.is_none() || input.is_empty() {
        return Err(Error::new(word.span(), format!("`{word}` needs a value; write `{example}`")));
    }
    Ok(())
}

fn wanted(found: impl quote::ToTokens, word: &Ident, what: &str, example: &str) -> Error {
    Error::new_spanned(found, format!("`{word}` must be {what}; write `{example}`"))
}
