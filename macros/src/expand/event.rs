//! The implementation of `Event`.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};

use super::span::at;
use crate::validate::ValidEvent;

pub(crate) fn event(valid: &ValidEvent) -> TokenStream {
    let ValidEvent { root: p, ident, generics, shapes } = valid;
    let where_clause = &generics.where_clause;
    let entries = shapes.iter().map(|shape| {
        let (name, version, rust_name) = (&shape.name, shape.version, &shape.rust_name);
        quote!(#p::EventShape { name: #name, version: #version, rust_name: #rust_name })
    });
    let variants: Vec<&Ident> = shapes.iter().filter_map(|shape| shape.variant.as_ref()).collect();
    let shape_of_self = if variants.is_empty() {
        quote!(&<Self as #p::Event>::SHAPES[0])
    } else {
        let index = 0..variants.len();
        quote!(match self { #(Self::#variants { .. } => &<Self as #p::Event>::SHAPES[#index],)* })
    };
    // These two require serde's derives; with this span, the compiler reports a missing one at the type.
    let span = at(ident.span());
    let (encode, decode) = if variants.is_empty() {
        (
            quote_spanned!(span=> #p::encode_struct::<#ident>(self)),
            quote_spanned!(span=> #p::decode_struct::<#ident>(__payload)),
        )
    } else {
        (
            quote_spanned!(span=> #p::encode_variant::<#ident>(self)),
            quote_spanned!(span=> #p::decode_variant::<#ident>(__index, __payload)),
        )
    };
    let index = if variants.is_empty() { quote!(_) } else { quote!(__index) };
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #p::Event for #ident #where_clause {
            const SHAPES: &'static [#p::EventShape] = &[#(#entries),*];

            fn shape(&self) -> &'static #p::EventShape {
                #shape_of_self
            }

            fn encode(&self) -> #p::core::result::Result<#p::Payload, #p::Invalid> {
                #encode
            }

            fn decode(
                __name: &#p::core::primitive::str,
                __schema_version: #p::core::primitive::u32,
                __payload: &#p::Payload,
            ) -> #p::core::result::Result<Self, #p::DecodeError> {
                let #index = #p::find_shape(<Self as #p::Event>::SHAPES, __name, __schema_version)?;
                #decode
            }
        }
    }
}
