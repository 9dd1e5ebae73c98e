//! Rules that more than one derive has.

use quote::ToTokens;
use syn::{Attribute, Generics, LitInt, LitStr};

use crate::attr::Values;
use crate::mistakes::Mistakes;

/// The longest stored name; `MAX_NAME_BYTES` of the event store, which a test compares with this.
const MAX_NAME_BYTES: usize = 200;

/// With two values of a word, it would be unclear which one applies.
pub(super) fn once<'a, T>(values: &'a Values<T>, mistakes: &mut Mistakes) -> Option<&'a T> {
    for again in values.0.iter().skip(1) {
        mistakes.at(&again.word, format!("`{}` is given twice; keep one of them", again.word));
    }
    values.first().map(|first| &first.value)
}

/// A word without a default is required. No message if some of the attribute could not be understood: it may be the
/// missing word.
pub(super) fn required(missing: bool, understood: bool, at: impl ToTokens, message: &str, mistakes: &mut Mistakes) {
    if missing && understood {
        mistakes.at(at, message);
    }
}

/// Every store must be able to store the name, and `$` and `__` are reserved for annals. `StreamId` and `NewEvent` have the
/// same rule.
pub(super) fn stored_name(name: &LitStr, mistakes: &mut Mistakes) {
    let text = name.value();
    let problem = if text.is_empty() {
        "the stored name is empty; give it at least one character".to_owned()
    } else if text.len() > MAX_NAME_BYTES {
        format!("the stored name has {} bytes, the most is {MAX_NAME_BYTES}; shorten it", text.len())
    } else if let Some(index) = text.chars().position(char::is_control) {
        format!("the stored name has a control character at position {}; remove it", index + 1)
    } else if text.starts_with('$') || text.starts_with("__") {
        "stored names that begin with `$` or `__` belong to annals; choose another prefix".to_owned()
    } else {
        return;
    };
    mistakes.at(name, problem);
}

/// Schema versions, folds and snapshot intervals count from 1 and are stored in 32 bits.
pub(super) fn from_one(number: &LitInt, what: &str, mistakes: &mut Mistakes) -> u32 {
    let value = number.base10_parse::<u32>().ok().filter(|_| number.suffix().is_empty());
    match value {
        Some(value) if value > 0 => value,
        _ => {
            mistakes.at(number, format!("{what} is a whole number from 1 to {}, without a suffix", u32::MAX));
            1
        }
    }
}

/// A stored name belongs to one type; a generic type would be many.
pub(super) fn not_generic(generics: &Generics, derive: &str, mistakes: &mut Mistakes) {
    if !generics.params.is_empty() {
        mistakes.at(
            generics,
            format!(
                "`{derive}` cannot be derived for a generic type; a stored name belongs to one type, so write it out"
            ),
        );
    }
}

/// An attribute without a meaning would be ignored silently.
pub(super) fn not_misplaced(attributes: &[Attribute], message: &str, mistakes: &mut Mistakes) {
    for attribute in attributes {
        mistakes.at(attribute, message);
    }
}
