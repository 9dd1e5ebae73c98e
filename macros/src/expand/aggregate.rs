//! The implementation of `Aggregate`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::LitStr;

use super::span::at;
use crate::validate::{ValidAggregate, ValidSnapshot};

pub(crate) fn aggregate(valid: &ValidAggregate, allowed: &TokenStream) -> TokenStream {
    let ValidAggregate { root: p, ident, generics, name, id, event, snapshot, fold, declaration } = valid;
    let where_clause = &generics.where_clause;
    let (policy, check) = match snapshot {
        ValidSnapshot::Never => (quote!(Never), None),
        ValidSnapshot::Every(every) => (quote!(Every(#every)), None),
        ValidSnapshot::After(names) => {
            // A name that no event has is reported at the first name.
            let span = at(names.first().map_or_else(|| ident.span(), LitStr::span));
            let check = quote_spanned! {span=>
                const _: () = #p::check_names(<#event as #p::Event>::SHAPES, &[#(#names),*]);
            };
            (quote!(After(&[#(#names),*])), Some(check))
        }
    };
    let codec = (!matches!(snapshot, ValidSnapshot::Never)).then(|| {
        // It requires serde's derives; with this span, the compiler reports a missing one at the type.
        let codec = quote_spanned!(at(ident.span())=> #p::SnapshotCodec::<#ident>::new(#declaration));
        quote! {
            fn snapshot_codec() -> #p::core::option::Option<#p::SnapshotCodec<Self>> {
                #p::core::option::Option::Some(#codec)
            }
        }
    });
    let check_of = quote_spanned! {at(name.span())=>
        const _: () = #p::check_of(<<#ident as #p::Aggregate>::Event as #p::Event>::OF, #name);
    };
    quote! {
        #[automatically_derived]
        #allowed
        impl #p::Aggregate for #ident #where_clause {
            const TYPE: &'static #p::core::primitive::str = #name;
            const FOLD: #p::core::primitive::u32 = #fold;
            const SNAPSHOT: #p::SnapshotPolicy = #p::SnapshotPolicy::#policy;
            type Id = #id;
            type Event = #event;
            #codec
        }
        #check
        #check_of
    }
}
