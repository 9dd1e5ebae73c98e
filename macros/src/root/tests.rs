//! These run with the manifest of this crate, which knows `annals-eventstore` and itself.

use syn::parse_quote;

use super::{OF_EVENTS, OF_READ_MODELS, find};

fn check(packages: super::Packages, given: Option<syn::Path>, expected: &str) {
    let found = find(packages, given.as_ref(), "event").map(|path| path.to_string().replace(' ', ""));
    assert_eq!(found.map_err(|error| error.to_string()), Ok(expected.to_owned()));
}

#[test]
fn the_first_known_package_is_used() {
    check(OF_EVENTS, None, "::annals_eventstore::__private");
    check(["annals-eventstore", "annals-macros"], None, "::annals_eventstore::__private");
}

#[test]
fn a_package_is_found_as_itself_under_its_own_name() {
    check(["annals", "annals-macros"], None, "::annals_macros::__private");
}

#[test]
fn the_given_path_wins() {
    check(OF_EVENTS, Some(parse_quote!(crate::log)), "crate::log::__private");
}

#[test]
fn no_known_package_is_an_error_that_names_the_package_to_add() {
    let error = find(["annals", "annals-lost"], None, "event").unwrap_err().to_string();
    assert_eq!(
        error,
        "neither `annals` nor `annals-lost` is among the dependencies in Cargo.toml; add `annals`, or name its path: \
         `#[event(crate = path::to::annals)]`"
    );
    assert!(find(OF_READ_MODELS, None, "read_model").is_err());
}
