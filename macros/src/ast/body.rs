//! The shape of a type, and its fields and variants.

use syn::{Attribute, Data, DeriveInput, Fields, Token};

/// The shape of the type.
pub(crate) enum Body<S, V> {
    Struct(S),
    Enum(Vec<V>),
    Union(Token![union]),
}

impl<S, V> Body<S, V> {
    pub(super) fn of<'a>(
        input: &'a DeriveInput,
        on_struct: impl FnOnce(&'a Fields) -> S,
        on_variant: impl FnMut(&'a syn::Variant) -> V,
    ) -> Self {
        match &input.data {
            Data::Struct(data) => Self::Struct(on_struct(&data.fields)),
            Data::Enum(data) => Self::Enum(data.variants.iter().map(on_variant).collect()),
            Data::Union(data) => Self::Union(data.union_token),
        }
    }
}

/// The attributes called `name` on any field of the type, where most of ours have no meaning.
pub(super) fn on_fields(input: &DeriveInput, name: &str) -> Vec<Attribute> {
    let fields: Vec<&syn::Field> = match &input.data {
        Data::Struct(data) => data.fields.iter().collect(),
        Data::Enum(data) => data.variants.iter().flat_map(|variant| &variant.fields).collect(),
        Data::Union(data) => data.fields.named.iter().collect(),
    };
    fields.into_iter().flat_map(|field| &field.attrs).filter(|attr| attr.path().is_ident(name)).cloned().collect()
}
