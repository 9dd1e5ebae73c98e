//! Lints of the user's that derived code would set off.

use proc_macro2::{TokenStream, TokenTree};
use quote::quote;
use syn::{Attribute, Data, DeriveInput, Fields, Meta};

/// Allows derived code to name what is deprecated, where the type is or says that it names such things. Elsewhere nothing is allowed:
/// a crate that forbids the lint refuses also code that allows it.
pub(crate) fn allowed(input: &DeriveInput) -> TokenStream {
    let of_fields = |fields: &Fields| fields.iter().any(|field| names_deprecated(&field.attrs));
    let in_body = match &input.data {
        Data::Struct(data) => of_fields(&data.fields),
        Data::Enum(data) => data.variants.iter().any(|v| names_deprecated(&v.attrs) || of_fields(&v.fields)),
        Data::Union(_) => false,
    };
    if in_body || names_deprecated(&input.attrs) { quote!(#[allow(deprecated)]) } else { TokenStream::new() }
}

/// Whether an attribute is `deprecated`, or a lint attribute about it.
fn names_deprecated(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| match &attr.meta {
        Meta::List(list) if attr.path().is_ident("allow") || attr.path().is_ident("expect") => list
            .tokens
            .clone()
            .into_iter()
            .any(|token| matches!(&token, TokenTree::Ident(word) if word == "deprecated")),
        meta => meta.path().is_ident("deprecated"),
    })
}
