//! The rules of `#[derive(Aggregate)]`.

use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::{Error, Generics, Ident, LitStr, Type};

use super::shared::{from_one, not_generic, not_misplaced, once, required, stored_name};
use crate::ast::{AggregateInput, Body, Snapshot};
use crate::attr::{AGGREGATE, EVENT, ID, NAME, listed};
use crate::mistakes::Mistakes;

/// serde's words with which a part of a value is not written or not read.
const SKIPPING: [&str; 3] = ["skip", "skip_serializing", "skip_deserializing"];

/// A valid aggregate.
pub(crate) struct ValidAggregate {
    pub(crate) root: TokenStream,
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    pub(crate) name: LitStr,
    pub(crate) id: Type,
    pub(crate) event: Type,
    pub(crate) snapshot: ValidSnapshot,
    pub(crate) fold: u32,
    pub(crate) declaration: String,
}

pub(crate) enum ValidSnapshot {
    Never,
    Every(u32),
    After(Vec<LitStr>),
}

/// Checks every rule; `root` is the path of annals.
pub(crate) fn aggregate(
    input: &AggregateInput,
    root: Result<TokenStream, Error>,
    mut mistakes: Mistakes,
) -> Result<ValidAggregate, Error> {
    once(&input.krate, &mut mistakes);
    not_generic(&input.generics, "Aggregate", &mut mistakes);
    not_misplaced(
        &input.on_parts,
        "`#[aggregate(..)]` belongs to the whole type; put it above the struct or enum",
        &mut mistakes,
    );
    not_a_union(&input.body, &mut mistakes);
    let name = once(&input.name, &mut mistakes);
    let id = once(&input.id, &mut mistakes);
    let event = once(&input.event, &mut mistakes);
    has_name_id_and_event(input, &mut mistakes);
    if let Some(name) = name {
        stored_name(name, &mut mistakes);
    }
    let snapshot = match once(&input.snapshot, &mut mistakes) {
        Some(Snapshot::Every(every)) => ValidSnapshot::Every(from_one(every, "a snapshot's interval", &mut mistakes)),
        Some(Snapshot::After(names)) => {
            names.iter().for_each(|name| stored_name(name, &mut mistakes));
            ValidSnapshot::After(names.clone())
        }
        Some(Snapshot::Never) | None => ValidSnapshot::Never,
    };
    if !matches!(snapshot, ValidSnapshot::Never) {
        nothing_skipped(&input.serde, &mut mistakes);
    }
    let fold = once(&input.fold, &mut mistakes).map_or(1, |fold| from_one(fold, "the number of a fold", &mut mistakes));
    let root = root.map_err(|error| mistakes.push(error)).ok();
    let valid = root.zip(name).zip(id.zip(event)).map(|((root, name), (id, event))| ValidAggregate {
        root,
        ident: input.ident.clone(),
        generics: input.generics.clone(),
        name: name.clone(),
        id: id.clone(),
        event: event.clone(),
        snapshot,
        fold,
        declaration: input.declaration.clone(),
    });
    mistakes.finish(valid)
}

/// Name, id and event decide what is stored and where; none has a default. One message names all that are missing.
fn has_name_id_and_event(input: &AggregateInput, mistakes: &mut Mistakes) {
    let missing = [
        (NAME, "name = \"order\"", input.name.first().is_none()),
        (ID, "id = OrderId", input.id.first().is_none()),
        (EVENT, "event = OrderEvent", input.event.first().is_none()),
    ];
    let missing: Vec<_> = missing.into_iter().filter(|(.., missing)| *missing).collect();
    let message = format!(
        "`{}` has no {}; write `#[{AGGREGATE}({})]`",
        input.ident.unraw(),
        listed(&missing.iter().map(|(word, ..)| *word).collect::<Vec<_>>()),
        missing.iter().map(|(_, example, _)| *example).chain([".."]).take(3).collect::<Vec<_>>().join(", "),
    );
    required(!missing.is_empty(), input.understood, &input.ident, &message, mistakes);
}

/// A field that is not written would have its default after a load with a snapshot, and its folded value without one.
fn nothing_skipped(serde: &[Ident], mistakes: &mut Mistakes) {
    for word in serde.iter().filter(|word| SKIPPING.iter().any(|skipping| word == skipping)) {
        let message = format!(
            "`{word}` leaves a part of the state out of its snapshots, so that a load would lose it; take it off, or write \
             `snapshot(never)`"
        );
        mistakes.at(word, message);
    }
}

/// The active field of a union is unknown, so no event could be folded into it.
fn not_a_union(body: &Body<(), ()>, mistakes: &mut Mistakes) {
    if let Body::Union(union) = body {
        mistakes.at(union, "a union cannot be an aggregate; make it a struct or an enum");
    }
}
