//! The implementation of `Event`.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::Type;
use syn::spanned::Spanned;

use super::span::at;
use crate::validate::{EventKind, Shape, ValidEvent};

pub(crate) fn event(valid: &ValidEvent) -> TokenStream {
    match &valid.kind {
        EventKind::Named(shapes) => named(valid, shapes),
        EventKind::Wrapping(variants) => wrapping(valid, variants),
    }
}

fn named(valid: &ValidEvent, shapes: &[Shape]) -> TokenStream {
    let ValidEvent { root: p, ident, generics, .. } = valid;
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

fn wrapping(valid: &ValidEvent, variants: &[(Ident, Type)]) -> TokenStream {
    let ValidEvent { root: p, ident, generics, .. } = valid;
    let where_clause = &generics.where_clause;
    let names: Vec<&Ident> = variants.iter().map(|(name, _)| name).collect();
    // A wrapped type that is no event is reported at its place.
    let types: Vec<TokenStream> =
        variants.iter().map(|(_, ty)| quote_spanned!(at(ty.span())=> <#ty as #p::Event>)).collect();
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #p::Event for #ident #where_clause {
            const SHAPES: &'static [#p::EventShape] =
                &#p::join_shapes::<{ 0 #(+ #types::SHAPES.len())* }>(&[#(#types::SHAPES),*]);

            fn shape(&self) -> &'static #p::EventShape {
                match self { #(Self::#names(__event) => #types::shape(__event),)* }
            }

            fn encode(&self) -> #p::core::result::Result<#p::Payload, #p::Invalid> {
                match self { #(Self::#names(__event) => #types::encode(__event),)* }
            }

            fn decode(
                __name: &#p::core::primitive::str,
                __schema_version: #p::core::primitive::u32,
                __payload: &#p::Payload,
            ) -> #p::core::result::Result<Self, #p::DecodeError> {
                #(
                    if #p::has_name(#types::SHAPES, __name) {
                        return #types::decode(__name, __schema_version, __payload).map(Self::#names);
                    }
                )*
                #p::core::result::Result::Err(#p::unknown_name(<Self as #p::Event>::SHAPES, __name))
            }
        }

        // Compares the names, also where nothing else asks for them.
        const _: &[#p::EventShape] = <#ident as #p::Event>::SHAPES;
    }
}
