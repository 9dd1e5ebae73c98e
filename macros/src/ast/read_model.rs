//! The attributes of a type that derives `ReadModel`.

use syn::{Attribute, DeriveInput, Field, Fields, Generics, Ident, LitStr, Path, Type};

use super::body::{Body, on_fields};
use crate::attr::{self, COLUMN, CRATE, INDEX, JSON, KEY, NAME, PER_TENANT, READ_MODEL, TABLE, TEXT, Values};
use crate::mistakes::Mistakes;

pub(crate) struct ReadModelInput {
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    pub(crate) table: Values<LitStr>,
    pub(crate) key: Values<Vec<LitStr>>,
    pub(crate) index: Values<Vec<LitStr>>,
    pub(crate) per_tenant: Values<()>,
    pub(crate) krate: Values<Path>,
    /// Whether every word on the type was known and every value could be read.
    pub(crate) understood: bool,
    /// The columns of a struct; none if its fields have no names.
    pub(crate) body: Body<Option<Vec<ColumnInput>>, ()>,
    /// `#[read_model(..)]` on fields, and `#[column(..)]` on the type.
    pub(crate) misplaced: Vec<Attribute>,
}

pub(crate) struct ColumnInput {
    pub(crate) field: Ident,
    pub(crate) ty: Type,
    pub(crate) name: Values<LitStr>,
    pub(crate) text: Values<()>,
    pub(crate) json: Values<()>,
}

impl ReadModelInput {
    pub(crate) fn parse(input: &DeriveInput, mistakes: &mut Mistakes) -> Self {
        let (mut table, mut key, mut index) = (Values::default(), Values::default(), Values::default());
        let (mut per_tenant, mut krate) = (Values::default(), Values::default());
        let known = [TABLE, KEY, INDEX, PER_TENANT, CRATE];
        let understood = attr::read(&input.attrs, READ_MODEL, &known, &[], mistakes, |word, input| {
            if word == TABLE {
                table.add(word, attr::text(word, input, "table = \"order_list\""))
            } else if word == KEY {
                key.add(word, attr::texts(word, input, "key = \"order_id\""))
            } else if word == INDEX {
                index.add(word, attr::texts(word, input, "index = \"status\""))
            } else if word == PER_TENANT {
                per_tenant.add(word, attr::no_value(word, input, READ_MODEL))
            } else {
                krate.add(word, attr::path(word, input, "crate = path::to::annals"))
            }
        });
        let mut misplaced = on_fields(input, READ_MODEL);
        misplaced.extend(input.attrs.iter().filter(|attr| attr.path().is_ident(COLUMN)).cloned());
        let columns = |fields: &Fields| match fields {
            Fields::Named(fields) => {
                Some(fields.named.iter().filter_map(|field| ColumnInput::parse(field, mistakes)).collect())
            }
            Fields::Unit => Some(Vec::new()),
            Fields::Unnamed(_) => None,
        };
        let body = Body::of(input, columns, |_| ());
        Self {
            ident: input.ident.clone(),
            generics: input.generics.clone(),
            table,
            key,
            index,
            per_tenant,
            krate,
            understood,
            body,
            misplaced,
        }
    }
}

impl ColumnInput {
    /// None for a field without a name.
    fn parse(field: &Field, mistakes: &mut Mistakes) -> Option<Self> {
        let (mut name, mut text, mut json) = (Values::default(), Values::default(), Values::default());
        attr::read(&field.attrs, COLUMN, &[NAME, TEXT, JSON], &[], mistakes, |word, input| {
            if word == NAME {
                name.add(word, attr::text(word, input, "name = \"placed\""))
            } else {
                let storage = if word == TEXT { &mut text } else { &mut json };
                storage.add(word, attr::no_value(word, input, COLUMN))
            }
        });
        Some(Self { field: field.ident.clone()?, ty: field.ty.clone(), name, text, json })
    }
}
