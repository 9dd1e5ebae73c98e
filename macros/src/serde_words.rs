//! PARSE: the words of serde's attributes that affect how a value is written. serde itself checks its syntax.

use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Ident, Meta, Token};

/// The first identifier of each item in every `#[serde(..)]` among `attrs`.
pub(crate) fn read(attrs: &[Attribute]) -> Vec<Ident> {
    let mut words = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("serde")) {
        let Meta::List(list) = &attr.meta else { continue };
        let items = |input: ParseStream<'_>| {
            while !input.is_empty() {
                if input.peek(Ident::peek_any) {
                    words.push(input.call(Ident::parse_any)?);
                }
                while !input.is_empty() && !input.peek(Token![,]) {
                    input.parse::<proc_macro2::TokenTree>()?;
                }
                input.parse::<Option<Token![,]>>()?;
            }
            Ok(())
        };
        // Every token is consumed, so this cannot fail; if it did, serde would report it.
        let _: syn::Result<()> = items.parse2(list.tokens.clone());
    }
    words
}
