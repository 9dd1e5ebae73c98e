//! What stands at a type that derives `Event`.

use syn::{Attribute, Data, DeriveInput, Fields, Generics, Ident, LitInt, LitStr, Path, Type};

use super::body::{Body, on_fields};
use crate::attr::{self, CRATE, EVENT, NAME, Said, TRANSPARENT, VERSION};
use crate::mistakes::Mistakes;
use crate::serde_words;

pub(crate) struct EventInput {
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    pub(crate) labels: EventLabels,
    pub(crate) serde: Vec<Ident>,
    pub(crate) body: Body<(), VariantInput>,
    /// `#[event(..)]` on fields.
    pub(crate) on_fields: Vec<Attribute>,
}

pub(crate) struct VariantInput {
    pub(crate) ident: Ident,
    pub(crate) labels: EventLabels,
    pub(crate) serde: Vec<Ident>,
    /// The type of the only field, if it has no name.
    pub(crate) wrapped: Option<Type>,
}

/// The words that belong at one place, and those that belong at another.
type Places = (&'static [&'static str], &'static [&'static str]);

/// The words of `#[event(..)]` at one place.
pub(crate) struct EventLabels {
    pub(crate) name: Said<LitStr>,
    pub(crate) version: Said<LitInt>,
    pub(crate) krate: Said<Path>,
    pub(crate) transparent: Said<()>,
    /// Whether every word was known and every value could be read.
    pub(crate) understood: bool,
}

impl EventInput {
    pub(crate) fn parse(input: &DeriveInput, mistakes: &mut Mistakes) -> Self {
        let on_type: Places = match &input.data {
            Data::Enum(_) => (&[CRATE], &[NAME, VERSION, TRANSPARENT]),
            Data::Struct(_) | Data::Union(_) => (&[NAME, VERSION, CRATE], &[]),
        };
        Self {
            ident: input.ident.clone(),
            generics: input.generics.clone(),
            labels: EventLabels::parse(&input.attrs, on_type, mistakes),
            serde: serde_words::read(&input.attrs),
            body: Body::of(
                input,
                |_| (),
                |variant| VariantInput {
                    ident: variant.ident.clone(),
                    labels: EventLabels::parse(&variant.attrs, (&[NAME, VERSION, TRANSPARENT], &[CRATE]), mistakes),
                    serde: serde_words::read(&variant.attrs),
                    wrapped: match &variant.fields {
                        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Some(fields.unnamed[0].ty.clone()),
                        _ => None,
                    },
                },
            ),
            on_fields: on_fields(input, EVENT),
        }
    }
}

impl EventLabels {
    fn parse(attrs: &[Attribute], (known, misplaced): Places, mistakes: &mut Mistakes) -> Self {
        let (mut name, mut version, mut krate) = (Said::default(), Said::default(), Said::default());
        let mut transparent = Said::default();
        let understood = attr::read(attrs, EVENT, known, misplaced, mistakes, |word, input| {
            if word == NAME {
                name.add(word, attr::text(word, input, "name = \"order.placed\""))
            } else if word == VERSION {
                version.add(word, attr::number(word, input, "version = 2"))
            } else if word == TRANSPARENT {
                transparent.add(word, Ok(()))
            } else {
                krate.add(word, attr::path(word, input))
            }
        });
        Self { name, version, krate, transparent, understood }
    }
}
