//! From input to output: parse, validate, then expand; or report every mistake and expand a stub.

use proc_macro2::TokenStream;
use syn::{DeriveInput, Error};

use crate::ast::{AggregateInput, EventInput, ReadModelInput};
use crate::attr::{AGGREGATE, EVENT, READ_MODEL};
use crate::mistakes::Mistakes;
use crate::{expand, fallback, lints, root, validate};

pub(crate) fn event(input: &DeriveInput) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let parsed = EventInput::parse(input, &mut mistakes);
    let krate = parsed.labels.krate.first().map(|word| &word.value);
    let root = root::find(root::OF_EVENTS, krate, EVENT);
    match validate::event(&parsed, root.clone(), mistakes) {
        Ok(valid) => expand::event(&valid, &lints::allowed(input)),
        Err(error) => report(&error, root.ok().map(|p| fallback::event(&p, &parsed))),
    }
}

pub(crate) fn aggregate(input: &DeriveInput) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let parsed = AggregateInput::parse(input, &mut mistakes);
    let root = root::find(root::OF_EVENTS, parsed.krate.first().map(|word| &word.value), AGGREGATE);
    match validate::aggregate(&parsed, root.clone(), mistakes) {
        Ok(valid) => expand::aggregate(&valid, &lints::allowed(input)),
        Err(error) => report(&error, root.ok().map(|p| fallback::aggregate(&p, &parsed))),
    }
}

pub(crate) fn read_model(input: &DeriveInput) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let parsed = ReadModelInput::parse(input, &mut mistakes);
    let root = root::find(root::OF_READ_MODELS, parsed.krate.first().map(|word| &word.value), READ_MODEL);
    match validate::read_model(&parsed, root.clone(), mistakes) {
        Ok(valid) => expand::read_model(&valid, &lints::allowed(input)),
        Err(error) => report(&error, root.ok().map(|p| fallback::read_model(&p, &parsed))),
    }
}

/// The mistakes, and a stub that keeps other code from failing because of them.
fn report(error: &Error, stub: Option<TokenStream>) -> TokenStream {
    let mut tokens = error.to_compile_error();
    tokens.extend(stub);
    tokens
}
