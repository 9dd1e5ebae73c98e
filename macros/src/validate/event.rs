//! The rules of `#[derive(Event)]`.

use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::{Error, Generics, Ident, LitStr, Path, Type};

use super::shared::{from_one, not_generic, not_misplaced, once, required, stored_name};
use crate::ast::{Body, EventInput, EventLabels, VariantInput};
use crate::attr::{EVENT, OF, TRANSPARENT, UPCAST, UPCASTERS};
use crate::mistakes::Mistakes;

/// A valid event.
pub(crate) struct ValidEvent {
    pub(crate) root: TokenStream,
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    /// The list of its steps on JSON.
    pub(crate) upcasters: Option<Path>,
    /// The aggregate type of all of them.
    pub(crate) of: Option<LitStr>,
    pub(crate) kind: EventKind,
}

/// Where the stored names of an event type come from.
pub(crate) enum EventKind {
    /// It declares them, in this order; a struct has one.
    Named(Vec<Shape>),
    /// From the event types that its variants wrap.
    Wrapping(Vec<(Ident, Type)>),
}

pub(crate) struct Shape {
    /// `None` for a struct.
    pub(crate) variant: Option<Ident>,
    pub(crate) name: LitStr,
    pub(crate) version: u32,
    pub(crate) rust_name: String,
    /// The types of the versions before `version`, the oldest first.
    pub(crate) older: Vec<Type>,
    /// The only field of the variant, if it has no name: what the last step leads to.
    pub(crate) field: Option<Type>,
}

/// Checks every rule; `root` is the path of annals.
pub(crate) fn event(
    input: &EventInput,
    root: Result<TokenStream, Error>,
    mut mistakes: Mistakes,
) -> Result<ValidEvent, Error> {
    once(&input.labels.krate, &mut mistakes);
    not_generic(&input.generics, "Event", &mut mistakes);
    not_misplaced(
        &input.on_fields,
        "`#[event(..)]` has no meaning on a field; put it on the variant or the struct",
        &mut mistakes,
    );
    let kind = match &input.body {
        Body::Struct(()) => structure(input, &mut mistakes),
        Body::Enum(variants) => enumeration(input, variants, &mut mistakes),
        Body::Union(union) => {
            mistakes.at(union, "a union cannot be an event; make it an enum, whose variant says what happened");
            None
        }
    };
    let upcasters = once(&input.labels.upcasters, &mut mistakes).cloned();
    let of = once(&input.labels.of, &mut mistakes).cloned();
    if let Some(of) = &of {
        stored_name(of, &mut mistakes);
    }
    let root = root.map_err(|error| mistakes.push(error)).ok();
    let valid = root.zip(kind).map(|(root, kind)| ValidEvent {
        root,
        ident: input.ident.clone(),
        generics: input.generics.clone(),
        upcasters,
        of,
        kind,
    });
    mistakes.finish(valid)
}

fn structure(input: &EventInput, mistakes: &mut Mistakes) -> Option<EventKind> {
    serde_writes_only_the_fields(&input.serde, mistakes);
    let rust_name = input.ident.unraw().to_string();
    let mut shape = label(&input.ident, &input.labels, None, rust_name, mistakes)?;
    shape.older = older_versions(&input.labels, shape.version, &input.labels, mistakes);
    Some(EventKind::Named(vec![shape]))
}

fn enumeration(input: &EventInput, variants: &[VariantInput], mistakes: &mut Mistakes) -> Option<EventKind> {
    names_belong_to_variants(&input.labels, mistakes);
    if variants.iter().any(|variant| variant.labels.transparent.first().is_some()) {
        for word in &input.labels.upcasters.0 {
            let message =
                format!("steps belong to the wrapped event types; move `{UPCASTERS}` to the one that reads the events");
            mistakes.at(&word.word, message);
        }
        for word in &input.labels.of.0 {
            let message = format!("each wrapped event type has its own aggregate type; move `{OF}` to them");
            mistakes.at(&word.word, message);
        }
        return Some(EventKind::Wrapping(wrapping(variants, mistakes)));
    }
    serde_writes_only_the_content(&input.serde, mistakes);
    has_variants(&input.ident, variants, mistakes);
    let mut shapes = Vec::new();
    for variant in variants {
        type_words_belong_to_the_type(&variant.labels, mistakes);
        every_variant_is_read_and_written(&variant.serde, mistakes);
        let rust_name = format!("{}::{}", input.ident.unraw(), variant.ident.unraw());
        let shape = label(&variant.ident, &variant.labels, Some(variant.ident.clone()), rust_name, mistakes);
        shapes.push(shape.map(|shape| Shape {
            older: older_versions(&variant.labels, shape.version, &input.labels, mistakes),
            field: variant.wrapped.clone(),
            ..shape
        }));
    }
    let shapes: Vec<_> = shapes.into_iter().flatten().collect();
    names_are_unique(&shapes, mistakes);
    Some(EventKind::Named(shapes))
}

/// An enum that wraps other event types declares nothing of its own, so that serde has no part in it.
fn wrapping(variants: &[VariantInput], mistakes: &mut Mistakes) -> Vec<(Ident, Type)> {
    let mut wrapped = Vec::new();
    for variant in variants {
        let VariantInput { ident, labels, wrapped: ty, .. } = variant;
        type_words_belong_to_the_type(labels, mistakes);
        if once(&labels.transparent, mistakes).is_none() {
            required(
                true,
                labels.understood,
                ident,
                &format!(
                    "either every variant of an enum is `{TRANSPARENT}` or none; write `#[{EVENT}({TRANSPARENT})]` above \
                     `{}`, and put its own event into a type that it wraps",
                    ident.unraw()
                ),
                mistakes,
            );
            continue;
        }
        for word in variant_words(labels) {
            mistakes.at(word, format!("`{word}` comes from the wrapped event type; remove it"));
        }
        match ty {
            Some(ty) => wrapped.push((ident.clone(), ty.clone())),
            None => mistakes.at(
                ident,
                format!(
                    "a `{TRANSPARENT}` variant has one unnamed field, the event type that it wraps; write \
                     `{}(OtherEvent)`",
                    ident.unraw()
                ),
            ),
        }
    }
    wrapped
}

/// The stored name is never derived from the Rust name: renaming a variant must not change what is stored.
fn label(
    at: &Ident,
    labels: &EventLabels,
    variant: Option<Ident>,
    rust_name: String,
    mistakes: &mut Mistakes,
) -> Option<Shape> {
    let name = once(&labels.name, mistakes);
    let missing = format!(
        "`{}` has no stored name; write `#[{EVENT}(name = \"..\")]` above it, with a name such as `order.placed` that never \
         changes",
        at.unraw()
    );
    required(name.is_none(), labels.understood, at, &missing, mistakes);
    let version = once(&labels.version, mistakes).map_or(1, |version| from_one(version, "a schema version", mistakes));
    let name = name?;
    stored_name(name, mistakes);
    Some(Shape { variant, name: name.clone(), version, rust_name, older: Vec::new(), field: None })
}

/// Every version before the present one has a type, or stored events of it could not be read. Where the type has steps on JSON too
/// (`whole`), these may begin at the oldest versions; the compiler checks the whole chain.
fn older_versions(labels: &EventLabels, version: u32, whole: &EventLabels, mistakes: &mut Mistakes) -> Vec<Type> {
    let Some(types) = once(&labels.upcast, mistakes) else { return Vec::new() };
    let (given, older) = (types.len(), version as usize - 1);
    let fits = given == older || given < older && !whole.upcasters.0.is_empty();
    if let (false, Some(word)) = (fits, labels.upcast.first()) {
        let fix = if given > older {
            format!("raise `version` to {}, or remove {}", given + 1, types_text(given - older))
        } else {
            format!("add {}: `{UPCAST}(V1, .., V{older})`, the oldest first", types_text(older - given))
        };
        let problem =
            format!("version {version} has {older} older versions, but `{UPCAST}` names {}", types_text(given));
        mistakes.at(&word.word, format!("{problem}; {fix}"));
        return Vec::new();
    }
    types.clone()
}

fn types_text(count: usize) -> String {
    if count == 1 { "1 type".to_owned() } else { format!("{count} types") }
}

/// An event is read by its name, so two variants cannot have the same one.
fn names_are_unique(shapes: &[Shape], mistakes: &mut Mistakes) {
    for (at, shape) in shapes.iter().enumerate() {
        if let Some(first) = shapes[..at].iter().find(|earlier| earlier.name.value() == shape.name.value()) {
            mistakes.at(
                &shape.name,
                format!(
                    "`{}` is the stored name of `{}` already; choose another, or a stored event could be either",
                    shape.name.value(),
                    first.rust_name
                ),
            );
        }
    }
}

/// An enum without variants has no value that could be stored.
fn has_variants(ident: &Ident, variants: &[VariantInput], mistakes: &mut Mistakes) {
    if variants.is_empty() {
        mistakes.at(ident, format!("`{}` has no variants, so there is no event; add one", ident.unraw()));
    }
}

/// Each variant is one event with its own name and version.
fn names_belong_to_variants(labels: &EventLabels, mistakes: &mut Mistakes) {
    for word in variant_words(labels) {
        let example = if word == UPCAST { "(..)" } else { " = .." };
        let message =
            format!("each variant has its own `{word}`; write `#[{EVENT}({word}{example})]` above the variants");
        mistakes.at(word, message);
    }
    for said in &labels.transparent.0 {
        let word = &said.word;
        mistakes.at(word, format!("each variant is `{word}` by itself; write `#[{EVENT}({word})]` above the variants"));
    }
}

/// The words that describe one event.
fn variant_words(labels: &EventLabels) -> impl Iterator<Item = &Ident> {
    let name = labels.name.0.iter().map(|word| &word.word);
    let version = labels.version.0.iter().map(|word| &word.word);
    name.chain(version).chain(labels.upcast.0.iter().map(|word| &word.word))
}

/// All variants are handled by one implementation, which names one crate and one list of steps.
fn type_words_belong_to_the_type(labels: &EventLabels, mistakes: &mut Mistakes) {
    let words = labels.krate.0.iter().chain(&labels.upcasters.0).map(|word| &word.word);
    for word in words.chain(labels.of.0.iter().map(|word| &word.word)) {
        mistakes.at(word, format!("`{word}` belongs to the whole enum; write `#[{EVENT}({word} = ..)]` above it"));
    }
}

/// annals stores only the content of the variant, and finds the variant by its stored name. With these words serde would
/// write the Rust name into the content, leave out the variant, or write another type.
fn serde_writes_only_the_content(serde: &[Ident], mistakes: &mut Mistakes) {
    let tagged = serde.iter().any(|word| word == "tag");
    for word in serde {
        let why = match word.to_string().as_str() {
            // It requires `tag`, which is refused already.
            "content" if tagged => continue,
            "tag" | "content" | "untagged" => {
                "annals stores the content alone and picks the variant by its stored name; remove it"
            }
            "from" | "try_from" | "into" | "remote" | "transparent" | "variant_identifier" | "field_identifier" => {
                "annals picks the variant itself, which needs serde's own code for this enum; remove it, and convert in \
                 the type of a field instead"
            }
            _ => continue,
        };
        mistakes.at(word, format!("`#[serde({word})]` cannot be used on an event: {why}"));
    }
}

/// With `tag`, serde writes the struct's Rust name into the content, although the stored name is beside it.
fn serde_writes_only_the_fields(serde: &[Ident], mistakes: &mut Mistakes) {
    for word in serde.iter().filter(|word| *word == "tag") {
        mistakes.at(
            word,
            "`#[serde(tag)]` cannot be used on an event: annals stores the content alone, its stored name beside it; remove it",
        );
    }
}

/// Variants are chosen by their index among those that serde reads. A variant that serde leaves out would shift the
/// others, and could be stored but never read.
fn every_variant_is_read_and_written(serde: &[Ident], mistakes: &mut Mistakes) {
    for word in serde {
        let why = match word.to_string().as_str() {
            "skip" | "skip_serializing" | "skip_deserializing" => {
                "every variant that can be stored must always be readable; remove it, or move the variant to another type"
            }
            "other" => "an unknown event is an error that names it, never a variant that hides it; remove it",
            "untagged" => "annals stores the content alone and picks the variant by its stored name; remove it",
            _ => continue,
        };
        mistakes.at(word, format!("`#[serde({word})]` cannot be used on an event's variant: {why}"));
    }
}
