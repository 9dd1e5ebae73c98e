//! Where the compiler's own complaints about derived code stand.

use proc_macro2::Span;

/// Where `user` stands, but with names that mean what they mean in the rest of our code: the user's tokens may come out of a
/// macro, whose names are apart.
pub(super) fn at(user: Span) -> Span {
    Span::call_site().located_at(user)
}
