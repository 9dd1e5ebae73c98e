//! Rules that more than one derive has.

use quote::ToTokens;
use syn::{Attribute, Generics, LitInt, LitStr};

use crate::attr::Said;
use crate::mistakes::Mistakes;

/// The longest stored name; `MAX_NAME_BYTES` of the event store, which a test compares with what passes here.
const MAX_NAME_BYTES: usize = 200;

/// A word said twice leaves open which one counts.
pub(super) fn once<'a, T>(said: &'a Said<T>, mistakes: &mut Mistakes) -> Option<&'a T> {
    for again in said.0.iter().skip(1) {
        mistakes.at(&again.word, format!("`{}` is given twice; keep one of them", again.word));
    }
    said.first().map(|first| &first.value)
}

/// What has no sensible default must be said. Silent if some of what was said could not be understood: it may have
/// been this.
pub(super) fn required(missing: bool, understood: bool, at: impl ToTokens, message: &str, mistakes: &mut Mistakes) {
    if missing && understood {
        mistakes.at(at, message);
    }
}

/// Every store must hold the name alike, and `$` and `__` are annals' own; the rule of `StreamId` and `NewEvent`.
pub(super) fn stored_name(name: &LitStr, mistakes: &mut Mistakes) {
    let text = name.value();
    let problem = if text.is_empty() {
        "the stored name is empty; give it at least one character".to_owned()
    } else if text.len() > MAX_NAME_BYTES {
        format!("the stored name has {} bytes, the most is {MAX_NAME_BYTES}; shorten it", text.len())
    } else if let Some(place) = text.chars().position(char::is_control) {
        format!("the stored name has a control character at place {}; remove it", place + 1)
    } else if text.starts_with('$') || text.starts_with("__") {
        "stored names that begin with `$` or `__` belong to annals; choose another beginning".to_owned()
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

/// A stored name stands for one type; type parameters would make many of it.
pub(super) fn not_generic(generics: &Generics, derive: &str, mistakes: &mut Mistakes) {
    if !generics.params.is_empty() {
        mistakes.at(
            generics,
            format!(
                "`{derive}` cannot be derived for a generic type; stored names stand for one type, so write it out"
            ),
        );
    }
}

/// An attribute where it means nothing would be forgotten in silence.
pub(super) fn not_misplaced(attributes: &[Attribute], message: &str, mistakes: &mut Mistakes) {
    for attribute in attributes {
        mistakes.at(attribute, message);
    }
}
