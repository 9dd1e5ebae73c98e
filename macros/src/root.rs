//! The path of annals in generated code.

use proc_macro_crate::{Error as Lookup, FoundCrate, crate_name};
use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::{Error, Path};

/// The packages that contain what a derive needs, in order of preference. The facade contains everything.
pub(crate) type Packages = [&'static str; 2];

pub(crate) const OF_EVENTS: Packages = ["annals", "annals-eventstore"];
pub(crate) const OF_READ_MODELS: Packages = ["annals", "annals-projections"];

/// The path of the hidden module that generated code calls: below `given` if the user named a crate, otherwise below the
/// first of `packages` in the user's manifest, by its name there.
pub(crate) fn find(packages: Packages, given: Option<&Path>, attribute: &str) -> Result<TokenStream, Error> {
    if let Some(path) = given {
        return Ok(quote!(#path::__private));
    }
    for package in packages {
        match crate_name(package) {
            Ok(FoundCrate::Name(name)) => return Ok(below(&name)),
            // The package itself, possibly its documentation tests, examples or binaries, where `crate` would be wrong. Its
            // library also has this name (`extern crate self as ..`).
            Ok(FoundCrate::Itself) => return Ok(below(&package.replace('-', "_"))),
            Err(Lookup::CrateNotFound { .. }) => {}
            // No manifest, as in builds without cargo: use the usual name.
            Err(_) => return Ok(below(packages[0])),
        }
    }
    let [facade, part] = packages;
    Err(Error::new(
        Span::call_site(),
        format!(
            "neither `{facade}` nor `{part}` is among the dependencies in Cargo.toml; add `{facade}`, or name its path: \
             `#[{attribute}(crate = path::to::annals)]`"
        ),
    ))
}

fn below(name: &str) -> TokenStream {
    let name = match syn::parse_str::<syn::Ident>(name) {
        Ok(name) => name,
        // The name of the dependency is a keyword.
        Err(_) => format_ident!("r#{name}"),
    };
    quote!(::#name::__private)
}

#[cfg(test)]
mod tests;
