//! The attributes of a type that derives `Aggregate`.

use quote::ToTokens;
use syn::parse::ParseStream;
use syn::{Attribute, Data, DeriveInput, Error, Generics, Ident, LitInt, LitStr, Path, Result, Type, Visibility};

use super::body::{Body, on_fields};
use crate::attr::{self, AFTER, AGGREGATE, CRATE, EVENT, EVERY, FOLD, ID, NAME, NEVER, SNAPSHOT, Values};
use crate::mistakes::Mistakes;
use crate::serde_words;

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
    /// What decides how serde writes the type, as text: names, types and serde's attributes.
    pub(crate) declaration: String,
    /// The words of serde's attributes on fields and variants.
    pub(crate) serde: Vec<Ident>,
}

pub(crate) enum Snapshot {
    Never,
    Every(LitInt),
    After(Vec<LitStr>),
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
            on_parts: on_parts(input, AGGREGATE),
            declaration: declaration(input.clone()),
            serde: serde_words::read(&on_parts(input, "serde")),
        }
    }
}

/// The attributes called `name` on any field or variant.
fn on_parts(input: &DeriveInput, name: &str) -> Vec<Attribute> {
    let mut on_parts = on_fields(input, name);
    if let Data::Enum(data) = &input.data {
        let on_variants = data.variants.iter().flat_map(|variant| &variant.attrs);
        on_parts.extend(on_variants.filter(|attr| attr.path().is_ident(name)).cloned());
    }
    on_parts
}

/// The type without what serde does not look at: its name, its visibility, and other attributes.
fn declaration(mut input: DeriveInput) -> String {
    let of_serde = |attrs: &mut Vec<Attribute>| attrs.retain(|attr| attr.path().is_ident("serde"));
    of_serde(&mut input.attrs);
    input.vis = Visibility::Inherited;
    input.ident = Ident::new("State", input.ident.span());
    let fields: Vec<&mut syn::Field> = match &mut input.data {
        Data::Struct(data) => data.fields.iter_mut().collect(),
        Data::Enum(data) => {
            data.variants.iter_mut().for_each(|variant| of_serde(&mut variant.attrs));
            data.variants.iter_mut().flat_map(|variant| variant.fields.iter_mut()).collect()
        }
        Data::Union(data) => data.fields.named.iter_mut().collect(),
    };
    for field in fields {
        of_serde(&mut field.attrs);
        field.vis = Visibility::Inherited;
    }
    input.into_token_stream().to_string()
}

impl Snapshot {
    /// `(every = 100)`, `(after = "order.delivered")`, `(after("order.delivered", ..))` or `(never)`.
    fn parse(word: &Ident, input: ParseStream<'_>) -> Result<Self> {
        let fix = "write `snapshot(every = 100)`, `snapshot(after = \"order.delivered\")` or `snapshot(never)`";
        if !input.peek(syn::token::Paren) {
            return Err(Error::new(word.span(), format!("`{word}` has no policy; {fix}")));
        }
        attr::in_parentheses(input, |content, span| {
            let Some(how) = content.parse::<Option<Ident>>()? else {
                let span = if content.is_empty() { span } else { content.span() };
                return Err(Error::new(span, format!("`{word}` has no policy; {fix}")));
            };
            let snapshot = if how == EVERY {
                Self::Every(attr::number(&how, content, "every = 100")?)
            } else if how == AFTER {
                Self::After(attr::texts(&how, content, "after = \"order.delivered\"")?)
            } else if how == NEVER {
                Self::Never
            } else {
                return Err(Error::new(how.span(), format!("`{how}` is no word of `{word}(..)`; {fix}")));
            };
            if content.is_empty() { Ok(snapshot) } else { Err(content.error(format!("one policy is enough; {fix}"))) }
        })
    }
}
