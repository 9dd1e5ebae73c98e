//! The implementation of `Event`.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::Type;
use syn::spanned::Spanned;

use super::span::at;
use crate::validate::{EventKind, Shape, ValidEvent};

pub(crate) fn event(valid: &ValidEvent, allowed: &TokenStream) -> TokenStream {
    match &valid.kind {
        EventKind::Named(shapes) => named(valid, shapes, allowed),
        EventKind::Wrapping(variants) => wrapping(valid, variants, allowed),
    }
}

fn named(valid: &ValidEvent, shapes: &[Shape], allowed: &TokenStream) -> TokenStream {
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
    let (read, check) = read(valid, shapes);
    let of = valid.of.as_ref().map(|aggregate_type| {
        let events = quote!(<#ident as #p::Event>::READS);
        quote! {
            const OF: &'static [#p::EventsOf] =
                &[#p::EventsOf { aggregate_type: #aggregate_type, events: #events }];
        }
    });
    quote! {
        #[automatically_derived]
        #allowed
        impl #p::Event for #ident #where_clause {
            const SHAPES: &'static [#p::EventShape] = &[#(#entries),*];
            #of

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

            #read
        }

        #check
    }
}

/// What it reads beside what it writes, and the check of that while the user's crate is compiled; nothing where no older
/// version is declared.
fn read(valid: &ValidEvent, shapes: &[Shape]) -> (TokenStream, TokenStream) {
    let ValidEvent { root: p, ident, upcasters, .. } = valid;
    if upcasters.is_none() && shapes.iter().all(|shape| shape.older.is_empty()) {
        return (TokenStream::new(), TokenStream::new());
    }
    let typed: Vec<TokenStream> = shapes
        .iter()
        .flat_map(|shape| (first_typed(shape)..).zip(&shape.older).map(|(version, ty)| (&shape.name, version, ty)))
        .map(|(name, version, ty)| {
            let rust_name = quote!(#ty).to_string().replace(" :: ", "::");
            quote!(#p::EventShape { name: #name, version: #version, rust_name: #rust_name })
        })
        .collect();
    let steps = upcasters.as_ref().map_or_else(|| quote!(&[]), |path| quote_spanned!(at(path.span())=> #path));
    let declared = shapes.len() + typed.len();
    let count = upcasters.as_ref().map_or_else(|| quote!(#declared), |_| quote!({ #declared + #steps.len() }));
    let by_type = shapes.iter().filter(|shape| !shape.older.is_empty()).map(|shape| by_type(p, ident, shape));
    let read = quote! {
        const READS: &'static [#p::EventShape] =
            &#p::reads::<#count>(<#ident as #p::Event>::SHAPES, &[#(#typed),*], #steps);

        fn read(
            __name: &#p::core::primitive::str,
            __schema_version: #p::core::primitive::u32,
            __payload: &#p::Payload,
        ) -> #p::core::result::Result<#p::Parts<Self>, #p::DecodeError> {
            fn __one(
                __name: &#p::core::primitive::str,
                __schema_version: #p::core::primitive::u32,
                __payload: &#p::Payload,
            ) -> #p::core::result::Result<#ident, #p::DecodeError> {
                #(#by_type)*
                <#ident as #p::Event>::decode(__name, __schema_version, __payload)
            }
            #p::read_stored(#steps, __name, __schema_version, __payload, __one)
        }
    };
    (read, quote!(const _: &[#p::EventShape] = <#ident as #p::Event>::READS;))
}

/// The version that the oldest type of a shape stands for.
fn first_typed(shape: &Shape) -> u32 {
    shape.version.saturating_sub(shape.older.len() as u32)
}

/// Reads the older versions of one shape, each through the types of the later ones.
fn by_type(p: &TokenStream, ident: &Ident, shape: &Shape) -> TokenStream {
    let Shape { name, older, .. } = shape;
    // The last step leads to the content of a variant with a single field, otherwise to the whole enum or struct.
    let (last, wrap) = match (&shape.variant, &shape.field) {
        (Some(variant), Some(field)) => (quote!(#field), quote!(#ident::#variant)),
        _ => (quote!(#ident), quote!()),
    };
    let versions: Vec<u32> = (first_typed(shape)..).take(older.len()).collect();
    let arms = (0..older.len()).map(|begin| {
        let ty = &older[begin];
        let version = versions[begin];
        let decode = quote_spanned!(at(ty.span())=> #p::decode_struct::<#ty>(__payload)?);
        let steps = (begin..older.len()).map(|at_type| {
            let (from, version) = (&older[at_type], versions[at_type]);
            let to = older.get(at_type + 1).map_or_else(|| last.clone(), |next| quote!(#next));
            quote_spanned!(at(from.span())=> let __value = #p::convert::<#from, #to>(#name, #version, __value)?;)
        });
        quote! {
            #version => {
                let __value = #decode;
                #(#steps)*
                return #p::core::result::Result::Ok(#wrap(__value));
            }
        }
    });
    quote! {
        if __name == #name {
            match __schema_version {
                #(#arms)*
                _ => {}
            }
        }
    }
}

fn wrapping(valid: &ValidEvent, variants: &[(Ident, Type)], allowed: &TokenStream) -> TokenStream {
    let ValidEvent { root: p, ident, generics, .. } = valid;
    let where_clause = &generics.where_clause;
    let names: Vec<&Ident> = variants.iter().map(|(name, _)| name).collect();
    // A wrapped type that is no event is reported at its place.
    let types: Vec<TokenStream> =
        variants.iter().map(|(_, ty)| quote_spanned!(at(ty.span())=> <#ty as #p::Event>)).collect();
    quote! {
        #[automatically_derived]
        #allowed
        impl #p::Event for #ident #where_clause {
            const SHAPES: &'static [#p::EventShape] =
                &#p::join_shapes::<{ 0 #(+ #types::SHAPES.len())* }>(&[#(#types::SHAPES),*]);
            const READS: &'static [#p::EventShape] =
                &#p::join_shapes::<{ 0 #(+ #types::READS.len())* }>(&[#(#types::READS),*]);
            const OF: &'static [#p::EventsOf] =
                &#p::join_of::<{ 0 #(+ #types::OF.len())* }>(&[#(#types::OF),*]);

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

            fn read(
                __name: &#p::core::primitive::str,
                __schema_version: #p::core::primitive::u32,
                __payload: &#p::Payload,
            ) -> #p::core::result::Result<#p::Parts<Self>, #p::DecodeError> {
                #(
                    if #p::has_name(#types::READS, __name) {
                        let __parts = #types::read(__name, __schema_version, __payload)?;
                        return #p::core::result::Result::Ok(__parts.map(Self::#names));
                    }
                )*
                #p::core::result::Result::Err(#p::unknown_name(<Self as #p::Event>::READS, __name))
            }
        }

        // Compares the names, also where nothing else asks for them.
        const _: &[#p::EventShape] = <#ident as #p::Event>::READS;
    }
}
