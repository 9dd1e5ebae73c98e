//! The implementation of `Aggregate`.

use proc_macro2::TokenStream;
use quote::quote;

use crate::validate::{ValidAggregate, ValidSnapshot};

pub(crate) fn aggregate(valid: &ValidAggregate) -> TokenStream {
    let ValidAggregate { root: p, ident, generics, name, id, event, snapshot, fold } = valid;
    let where_clause = &generics.where_clause;
    let snapshot = match snapshot {
        ValidSnapshot::Never => quote!(#p::SnapshotPolicy::Never),
        ValidSnapshot::Every(every) => quote!(#p::SnapshotPolicy::Every(#every)),
    };
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #p::Aggregate for #ident #where_clause {
            const TYPE: &'static #p::core::primitive::str = #name;
            const FOLD: #p::core::primitive::u32 = #fold;
            const SNAPSHOT: #p::SnapshotPolicy = #snapshot;
            type Id = #id;
            type Event = #event;
        }
    }
}
