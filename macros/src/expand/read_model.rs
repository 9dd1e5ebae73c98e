//! The implementation of `ReadModel`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

use super::span::at;
use crate::validate::{Storage, TENANT, ValidColumn, ValidReadModel};

pub(crate) fn read_model(valid: &ValidReadModel, allowed: &TokenStream) -> TokenStream {
    let ValidReadModel { root: p, ident, generics, table, columns, key, indexes, per_tenant } = valid;
    let where_clause = &generics.where_clause;
    let tenant = per_tenant.then_some(TENANT);
    let tenant_spec =
        tenant.map(|name| quote!(#p::ColumnSpec { name: #name, column_type: #p::ColumnType::Text, nullable: false }));
    let specs = tenant_spec.into_iter().chain(columns.iter().map(|column| spec(p, column)));
    let written = columns.iter().map(|column| to_column(p, column));
    let read = columns.iter().map(|column| from_column(p, column));
    let normalized = columns.iter().map(|column| normalize(p, column));
    let key_names = tenant.into_iter().chain(key.iter().map(|column| column.name.as_str()));
    let key_types: Vec<_> = key.iter().map(|column| &column.ty).collect();
    let key_values: Vec<_> = key
        .iter()
        .map(|column| {
            let field = &column.field;
            quote!(#p::core::clone::Clone::clone(&self.#field))
        })
        .collect();
    // The key is the type of one column, or a tuple of several.
    let (key_type, key_value) = match (&key_types[..], &key_values[..]) {
        ([ty], [value]) => (quote!(#ty), quote!(#value)),
        _ => (quote!((#(#key_types,)*)), quote!((#(#key_values,)*))),
    };
    // Only the compiler knows an `Option` behind an alias.
    let never_null = key.iter().map(|column| {
        let ValidColumn { ty, name, .. } = column;
        let message = format!("`{name}` is in the key, and a key is never null; use a type that is not an `Option`");
        quote_spanned!(at(ty.span())=> const _: () = #p::core::assert!(!<#ty as #p::Column>::NULLABLE, #message);)
    });
    let indexes = indexes.iter().map(|columns| {
        let columns = tenant.into_iter().chain(columns.iter().map(String::as_str));
        quote!(#p::IndexSpec { columns: &[#(#columns),*] })
    });
    quote! {
        #(#never_null)*

        #[automatically_derived]
        #allowed
        impl #p::ReadModel for #ident #where_clause {
            type Key = #key_type;

            const TABLE: &'static #p::TableSpec = &#p::TableSpec {
                name: #table,
                columns: &[#(#specs),*],
                key: &[#(#key_names),*],
                indexes: &[#(#indexes),*],
                per_tenant: #per_tenant,
            };

            fn key(&self) -> Self::Key {
                #key_value
            }

            fn to_columns(&self) -> #p::Vec<#p::ColumnValue> {
                #p::Vec::from([#(#written),*])
            }

            fn from_columns(
                __columns: &mut dyn #p::core::iter::Iterator<Item = #p::ColumnValue>,
            ) -> #p::core::result::Result<Self, #p::ColumnError> {
                #p::core::result::Result::Ok(Self { #(#read),* })
            }

            fn normalize(&mut self) -> #p::core::result::Result<(), #p::ColumnError> {
                #(#normalized;)*
                #p::core::result::Result::Ok(())
            }
        }
    }
}

fn spec(p: &TokenStream, column: &ValidColumn) -> TokenStream {
    let ValidColumn { ty, name, optional, .. } = column;
    let (column_type, nullable) = match column.storage {
        // With the span of the field's type, so that the compiler reports there a type that is not a column.
        Storage::Column => (
            quote_spanned!(at(ty.span())=> <#ty as #p::Column>::TYPE),
            quote_spanned!(at(ty.span())=> <#ty as #p::Column>::NULLABLE),
        ),
        Storage::Text => (quote!(#p::ColumnType::Text), quote!(#optional)),
        Storage::Json => (quote!(#p::ColumnType::Json), quote!(#optional)),
    };
    quote!(#p::ColumnSpec { name: #name, column_type: #column_type, nullable: #nullable })
}

fn to_column(p: &TokenStream, column: &ValidColumn) -> TokenStream {
    let ValidColumn { field, ty, .. } = column;
    let span = at(ty.span());
    let write = match column.storage {
        Storage::Column => return quote_spanned!(span=> <#ty as #p::Column>::to_column(&self.#field)),
        Storage::Text => quote!(text_to_column),
        Storage::Json => quote!(json_to_column),
    };
    // `None` alone is null in the column. What else serde writes as null is not, so that it comes back as it was.
    match column.optional {
        true => {
            quote_spanned!(span=> self.#field.as_ref().map_or(#p::ColumnValue::Null, |__value| #p::#write(__value)))
        }
        false => quote_spanned!(span=> #p::#write::<#ty>(&self.#field)),
    }
}

fn from_column(p: &TokenStream, column: &ValidColumn) -> TokenStream {
    let ValidColumn { field, ty, name, .. } = column;
    let value = quote!(#p::next_column(__columns, #name)?);
    let span = at(ty.span());
    let in_column = quote!(map_err(|__error| __error.in_column(#name))?);
    let read = match column.storage {
        Storage::Column => return quote_spanned!(span=> #field: <#ty as #p::Column>::from_column(#value).#in_column),
        Storage::Text => quote!(text_from_column),
        Storage::Json => quote!(json_from_column),
    };
    match column.optional {
        true => quote_spanned! {span=>
            #field: match #value {
                #p::ColumnValue::Null => #p::core::option::Option::None,
                __value => #p::core::option::Option::Some(#p::#read(__value).#in_column),
            }
        },
        false => quote_spanned!(span=> #field: #p::#read::<#ty>(#value).#in_column),
    }
}

fn normalize(p: &TokenStream, column: &ValidColumn) -> TokenStream {
    let ValidColumn { field, ty, name, .. } = column;
    let span = at(ty.span());
    let in_column = quote!(map_err(|__error| __error.in_column(#name))?);
    let normalize = match column.storage {
        Storage::Column => return quote_spanned!(span=> <#ty as #p::Column>::normalize(&mut self.#field).#in_column),
        Storage::Text => quote!(text_normalize),
        Storage::Json => quote!(json_normalize),
    };
    match column.optional {
        true => quote_spanned! {span=>
            if let #p::core::option::Option::Some(__value) = &mut self.#field {
                #p::#normalize(__value).#in_column
            }
        },
        false => quote_spanned!(span=> #p::#normalize::<#ty>(&mut self.#field).#in_column),
    }
}
