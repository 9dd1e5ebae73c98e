//! Spans for errors of the compiler in derived code.

use proc_macro2::Span;

/// The location of `user`, with names resolved as in the rest of our code. The user's tokens may come from a macro with its
/// own hygiene.
pub(super) fn at(user: Span) -> Span {
    Span::call_site().located_at(user)
}
