//! All mistakes of one input, so that they are reported at once.

use std::fmt::Display;

use quote::ToTokens;
use syn::Error;

/// The mistakes found so far, in the order in which the rules found them.
#[derive(Default)]
pub(crate) struct Mistakes(Option<Error>);

impl Mistakes {
    /// Adds a mistake at `tokens`.
    pub(crate) fn at(&mut self, tokens: impl ToTokens, message: impl Display) {
        self.push(Error::new_spanned(tokens, message));
    }

    /// Adds a mistake that has its span.
    pub(crate) fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// `valid` if there are no mistakes, otherwise all mistakes. A rule that returns `None` has added a mistake.
    pub(crate) fn finish<T>(self, valid: Option<T>) -> Result<T, Error> {
        match (self.0, valid) {
            (None, Some(valid)) => Ok(valid),
            (Some(error), _) => Err(error),
            (None, None) => {
                Err(Error::new(proc_macro2::Span::call_site(), "annals refused this input without a reason"))
            }
        }
    }
}
