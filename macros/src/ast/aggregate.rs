//! The attributes of a type that derives `Aggregate`.

use syn::parse::ParseStream;
use syn::{Attribute, DeriveInput, Error, Generics, Ident, LitInt, LitStr, Path, Result, Type};

use super::body::{Body, on_fields};
use crate::attr::{self, AGGREGATE, CRATE, EVENT, EVERY, FOLD, ID, NAME, NEVER, SNAPSHOT, Values};
use crate::mistakes::Mistakes;

pub(crate) struct AggregateInput {
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    pub(crate) name: Values<LitStr>,
    pub(crate) id: Values<Type>,
    pub(crate) event: Values<Type>,
    pub(crate) snapshot: Values<Snapshot>,
    pub(crate) fold: Values<LitInt>,
    pub(crate) krate: Values<Path>,
    /// Whether every word was known and every value could be read.
    pub(crate) understood: bool,
    pub(crate) body: Body<(), ()>,
    /// `#[aggregate(..)]` on fields and variants.
    pub(crate) on_parts: Vec<Attribute>,
}

pub(crate) enum Snapshot {
    Never,
    Every(LitInt),
}

impl AggregateInput {
    pub(crate) fn parse(input: &DeriveInput, mistakes: &mut Mistakes) -> Self {
        let (mut name, mut id, mut event) = (Values::default(), Values::default(), Values::default());
        let (mut snapshot, mut fold, mut krate) = (Values::default(), Values::default(), Values::default());
        let known = [NAME, ID, EVENT, SNAPSHOT, FOLD, CRATE];
        let understood = attr::read(&input.attrs, AGGREGATE, &known, &[], mistakes, |word, input| {
            if word == NAME {
                name.add(word, attr::text(word, input, "name = \"order\""))
            } else if word == ID {
                id.add(word, attr::ty(word, input, "id = OrderId"))
            } else if word == EVENT {
                event.add(word, attr::ty(word, input, "event = OrderEvent"))
            } else if word == SNAPSHOT {
                snapshot.add(word, Snapshot::parse(word, input))
            } else if word == FOLD {
                fold.add(word, attr::number(word, input, "fold = 2"))
            } else {
                krate.add(word, attr::path(word, input, "crate = path::to::annals"))
            }
        });
        let mut on_parts = on_fields(input, AGGREGATE);
        if let syn::Data::Enum(data) = &input.data {
            let on_variants = data.variants.iter().flat_map(|variant| &variant.attrs);
            on_parts.extend(on_variants.filter(|attr| attr.path().is_ident(AGGREGATE)).cloned());
        }
        Self {
            ident: input.ident.clone(),
            generics: input.generics.clone(),
            name,
            id,
            event,
            snapshot,
            fold,
            krate,
            understood,
            body: Body::of(input, |_| (), |_| ()),
            on_parts,
        }
    }
}

impl Snapshot {
    /// `(every = 100)` or `(never)`.
    fn parse(word: &Ident, input: ParseStream<'_>) -> Result<Self> {
        let fix = "write `snapshot(every = 100)` or `snapshot(never)`";
        if !input.peek(syn::token::Paren) {
            return Err(Error::new(word.span(), format!("`{word}` has no interval; {fix}")));
        }
        attr::in_parentheses(input, |content, span| {
            let Some(how) = content.parse::<Option<Ident>>()? else {
                let span = if content.is_empty() { span } else { content.span() };
                return Err(Error::new(span, format!("`{word}` has no interval; {fix}")));
            };
            let snapshot = if how == EVERY {
                Self::Every(attr::number(&how, content, "every = 100")?)
            } else if how == NEVER {
                Self::Never
            } else {
                return Err(Error::new(how.span(), format!("`{how}` is no word of `{word}(..)`; {fix}")));
            };
            if content.is_empty() { Ok(snapshot) } else { Err(content.error(format!("one policy is enough; {fix}"))) }
        })
    }
}
