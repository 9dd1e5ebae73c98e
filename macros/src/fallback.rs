//! A stub implementation for input that was refused. The code that uses the type still compiles, so one mistake gives one
//! message. The stub never runs, because the message beside it is an error.

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use syn::Generics;
use syn::ext::IdentExt;

use crate::ast::{AggregateInput, Body, ColumnInput, EventInput, ReadModelInput};

pub(crate) fn event(p: &TokenStream, input: &EventInput) -> TokenStream {
    let refused = refused(p);
    implement(
        p,
        "Event",
        &input.ident,
        &input.generics,
        quote! {
            const SHAPES: &'static [#p::EventShape] = &[];
            fn shape(&self) -> &'static #p::EventShape { #refused }
            fn encode(&self) -> #p::core::result::Result<#p::Payload, #p::Invalid> { #refused }
            fn decode(
                _: &#p::core::primitive::str,
                _: #p::core::primitive::u32,
                _: &#p::Payload,
            ) -> #p::core::result::Result<Self, #p::DecodeError> { #refused }
        },
    )
}

pub(crate) fn aggregate(p: &TokenStream, input: &AggregateInput) -> TokenStream {
    let id = input.id.first().map_or_else(
        || quote!(#p::String),
        |id| {
            let id = &id.value;
            quote!(#id)
        },
    );
    let event = input.event.first().map_or_else(
        || quote!(#p::NoEvent),
        |event| {
            let event = &event.value;
            quote!(#event)
        },
    );
    implement(
        p,
        "Aggregate",
        &input.ident,
        &input.generics,
        quote! {
            const TYPE: &'static #p::core::primitive::str = "refused";
            const FOLD: #p::core::primitive::u32 = 1;
            const SNAPSHOT: #p::SnapshotPolicy = #p::SnapshotPolicy::Never;
            type Id = #id;
            type Event = #event;
        },
    )
}

pub(crate) fn read_model(p: &TokenStream, input: &ReadModelInput) -> TokenStream {
    let refused = refused(p);
    let key = key(input).unwrap_or_else(|| quote!(#p::String));
    implement(
        p,
        "ReadModel",
        &input.ident,
        &input.generics,
        quote! {
            type Key = #key;
            const TABLE: &'static #p::TableSpec =
                &#p::TableSpec { name: "refused", columns: &[], key: &[], indexes: &[], per_tenant: false };
            fn key(&self) -> Self::Key { #refused }
            fn to_columns(&self) -> #p::Vec<#p::ColumnValue> { #refused }
            fn from_columns(
                _: &mut dyn #p::core::iter::Iterator<Item = #p::ColumnValue>,
            ) -> #p::core::result::Result<Self, #p::ColumnError> { #refused }
        },
    )
}

/// The type of the key, if its attribute can be understood; otherwise the key of the stub is text.
fn key(input: &ReadModelInput) -> Option<TokenStream> {
    let Body::Struct(Some(columns)) = &input.body else { return None };
    let types = input.key.first()?.value.iter().map(|name| {
        let plain = |column: &&ColumnInput| column.text.first().is_none() && column.json.first().is_none();
        let called = |column: &&ColumnInput| match column.name.first() {
            Some(renamed) => renamed.value.value() == name.value(),
            None => column.field.unraw() == name.value(),
        };
        columns.iter().filter(plain).find(called).map(|column| &column.ty)
    });
    let types = types.collect::<Option<Vec<_>>>().filter(|_| input.generics.params.is_empty())?;
    Some(if let [ty] = types[..] { quote!(#ty) } else { quote!((#(#types,)*)) })
}

fn refused(p: &TokenStream) -> TokenStream {
    quote!(#p::core::unreachable!("the derive refused this type"))
}

/// For every instance of a generic type that can have the trait.
fn implement(p: &TokenStream, name: &str, ident: &Ident, generics: &Generics, items: TokenStream) -> TokenStream {
    let name = Ident::new(name, proc_macro2::Span::call_site());
    let mut generics = generics.clone();
    if !generics.params.is_empty() {
        generics.make_where_clause().predicates.push(syn::parse_quote! {
            Self: #p::core::marker::Sized + #p::core::marker::Send + #p::core::marker::Sync + 'static
        });
        if name != "Event" {
            generics.make_where_clause().predicates.push(syn::parse_quote!(Self: #p::core::clone::Clone));
        }
        if name == "Aggregate" {
            generics.make_where_clause().predicates.push(syn::parse_quote!(Self: #p::core::default::Default));
        }
    }
    let (parameters, arguments, where_clause) = generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #parameters #p::#name for #ident #arguments #where_clause { #items }
    }
}
