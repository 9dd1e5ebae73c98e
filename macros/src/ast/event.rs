//! The attributes of a type that derives `Event`.

use syn::{Attribute, Data, DeriveInput, Fields, Generics, Ident, LitInt, LitStr, Path, Type};

use super::body::{Body, on_fields};
use crate::attr::{self, CRATE, EVENT, NAME, OF, TRANSPARENT, UPCAST, UPCASTERS, VERSION, Values};
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

/// The words that are allowed here, and those that belong elsewhere.
type WordLists = (&'static [&'static str], &'static [&'static str]);

/// The words of `#[event(..)]` on one type or variant.
pub(crate) struct EventLabels {
    pub(crate) name: Values<LitStr>,
    pub(crate) version: Values<LitInt>,
    /// The types of the older versions.
    pub(crate) upcast: Values<Vec<Type>>,
    /// The list of steps on JSON.
    pub(crate) upcasters: Values<Path>,
    /// The aggregate type of the events.
    pub(crate) of: Values<LitStr>,
    pub(crate) krate: Values<Path>,
    pub(crate) transparent: Values<()>,
    /// Whether every word was known and every value could be read.
    pub(crate) understood: bool,
}

impl EventInput {
    pub(crate) fn parse(input: &DeriveInput, mistakes: &mut Mistakes) -> Self {
        const ON_VARIANTS: WordLists = (&[NAME, VERSION, UPCAST, TRANSPARENT], &[OF, UPCASTERS, CRATE]);
        let on_type: WordLists = match &input.data {
            Data::Enum(_) => (&[OF, UPCASTERS, CRATE], &[NAME, VERSION, UPCAST, TRANSPARENT]),
            Data::Struct(_) | Data::Union(_) => (&[NAME, VERSION, UPCAST, OF, UPCASTERS, CRATE], &[]),
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
                    labels: EventLabels::parse(&variant.attrs, ON_VARIANTS, mistakes),
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
    fn parse(attrs: &[Attribute], (known, misplaced): WordLists, mistakes: &mut Mistakes) -> Self {
        let mut labels = Self {
            name: Values::default(),
            version: Values::default(),
            upcast: Values::default(),
            upcasters: Values::default(),
            of: Values::default(),
            krate: Values::default(),
            transparent: Values::default(),
            understood: true,
        };
        labels.understood = attr::read(attrs, EVENT, known, misplaced, mistakes, |word, input| {
            if word == NAME {
                labels.name.add(word, attr::text(word, input, "name = \"order.placed\""))
            } else if word == VERSION {
                labels.version.add(word, attr::number(word, input, "version = 2"))
            } else if word == UPCAST {
                labels.upcast.add(word, attr::types(word, input, "upcast(PlacedV1, PlacedV2)"))
            } else if word == UPCASTERS {
                labels.upcasters.add(word, attr::path(word, input, "upcasters = STEPS"))
            } else if word == OF {
                labels.of.add(word, attr::text(word, input, "of = \"order\""))
            } else if word == TRANSPARENT {
                labels.transparent.add(word, Ok(()))
            } else {
                labels.krate.add(word, attr::path(word, input, "crate = path::to::annals"))
            }
        });
        labels
    }
}
